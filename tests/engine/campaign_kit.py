"""A campaign without work: its parameters, and the content its decisions would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alloop import config
from alloop.campaign import Campaign
from alloop.state import task_entries
from alloop.store import Task, make_task

LIMIT = {"max_iterations": 2, "slots": 2}


def param(**changes: Any) -> config.Param:
    return config.parse({"name": "tiny", "seed": 3, "glasses": ["LBS-20-60-20"]} | changes)


def driven(root: Path, **options: Any) -> Campaign:
    """A campaign this process has taken."""
    campaign = Campaign(root)
    campaign.take(param(), take_over=options.get("take_over", False), limit=LIMIT)
    return campaign


def bootstrap_content(count: int = 3) -> dict[str, Any]:
    tasks = [make_task("bootstrap", "bootstrap/seed", f"glass.t{n:02d}", {"seed": n}) for n in range(count)]
    return content(tasks) | {
        "trajectories": {task.name: "training" if n else "held_out" for n, task in enumerate(tasks)}
    }


def content(tasks: list[Task], common: dict[str, Any] | None = None, inputs: list[str] | None = None) -> dict[str, Any]:
    return {"inputs": inputs or [], "common": common or {}, "tasks": task_entries(tasks, common or {})}


def asked_labels(campaign: Campaign, count: int = 1, **more: Any) -> dict[str, Any]:
    """A decision's content that asks for labels of frames of a task called source."""
    level = campaign.level
    picks = [
        {
            "key": make_task("label", "", "", {"frame": frame} | level["content"]).key,
            "name": f"LBS-20-60-20.n63.t{frame % 3:02d}.s{frame:04d}",
            "source": {"task": "source", "frame": frame},
            "given": False,
            "level": level["name"],
            "trajectory": f"LBS-20-60-20.n63.t{frame % 3:02d}",
            "role": "held_out" if frame % 3 == 2 else "training",
            "reason": "bootstrap",
            "temperature_K": 300.0,
        }
        | more
        for frame in range(count)
    ]
    return {"level": level, "picks": picks}
