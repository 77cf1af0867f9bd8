"""A campaign whose melt-quenches end as a test says: chunks with results that are written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ase import Atoms
from campaign_kit import LIMIT, content, param
from report_kit import end_well

from alloop.campaign import Campaign
from alloop.frames import write_arrays, write_frames
from alloop.store import Task, make_task

GLASSES = {"LBS-20-60-20": 294, "LBS-10-50-40": 320}


def campaign_of_glasses(root: Path) -> Campaign:
    """A campaign of two glasses, without work yet."""
    campaign = Campaign(root)
    campaign.take(param(glasses=list(GLASSES)), take_over=False, limit=LIMIT)
    return campaign


def condition(start_K: float, end_K: float, n_steps: int) -> dict[str, Any]:
    """The condition of a chunk of so many steps of 1 fs."""
    return {"temperature_start_K": start_K, "temperature_end_K": end_K, "timestep_fs": 1.0, "n_steps": n_steps}


def chunk(run: str, number: int, stage: str, glass: str, **spec: Any) -> Task:
    """The task of a chunk of a run, a hold at 300 K unless the spec says otherwise."""
    own = {"glass": glass, "stage": stage, "stage_kind": "hold", "condition": condition(300, 300, 1000)} | spec
    return make_task("quench", "production", f"{run}.s{number:02d}-{stage}", own | {"seed": f"{run}{number}"})


def decide_quench(campaign: Campaign, runs: dict[str, tuple[str, float, list[Task]]], iteration: int = 0) -> None:
    """Ask for runs, by name: their glass, rate of cooling and chunks."""
    tasks = {task.key: task for _, _, own in runs.values() for task in own}
    records = [
        {
            "name": name,
            "glass": glass,
            "atoms": GLASSES[glass],
            "replica": 0,
            "cooling_rate_K_ps": rate_K_ps,
            "tasks": [task.key for task in own],
        }
        for name, (glass, rate_K_ps, own) in runs.items()
    ]
    campaign.decide(
        "quench", iteration=iteration, converged=True, runs=records, **content(list(tasks.values()), {"events": {}})
    )


def ended(campaign: Campaign, task: Task, frames: list[Atoms] | None = None, **columns: Any) -> Path:
    """A chunk that came to its end, with frames and their columns if it kept any; return its result."""
    return ended_with(campaign, task, {"status": "finished", "reason": ""}, frames, **columns)


def ended_with(
    campaign: Campaign, task: Task, summary: dict[str, Any], frames: list[Atoms] | None = None, **columns: Any
) -> Path:
    """A task that ended with this summary; `steps` are those of its table of records."""
    result = end_well(campaign, task.key) / "result"
    (result / "summary.json").write_text(json.dumps(summary))
    if "steps" in columns:
        write_arrays(result / "table.npz", {"step": columns.pop("steps")})
    if frames is not None:
        write_frames(result / "frames.npz", frames, **columns)
    return result
