"""A campaign whose labels end well or fail as a test says, without any work being done."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from campaign_kit import LIMIT, bootstrap_content, param

from alloop import config, store
from alloop.campaign import Campaign
from alloop.process import this_process
from alloop.store import Attempt, begin_attempt, fail, make_task, publish, write_json

RECORD = {"seconds": 10.0, "threads": 1, "cores": 4, "gpus": 1, "waited_s": 2.0, "failed_attempts": 0, "notes": {}}


def begun(root: Path, **changes: Any) -> Campaign:
    """A campaign this process drives, with two finished bootstrap runs of 7 core-seconds."""
    campaign = Campaign(root)
    configuration = param(**changes)
    (root / "param.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "param.json").write_text(json.dumps(configuration.model_dump(mode="json")))
    campaign.take(configuration, take_over=False, limit=LIMIT)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content(2))
    for task in list(campaign.state.tasks.values()):
        end_well(campaign, task.key, seconds=7.0, cores=1, gpus=0)
    return campaign


def picks(campaign: Campaign, count: int, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Picks of labels over two glasses-and-a-crystal trajectories, for two reasons."""
    level, (source, *_) = campaign.level, campaign.state.tasks
    return [
        {
            "key": make_task("label", "", "", {"frame": frame} | level["content"]).key,
            "name": f"LBS-20-60-20.n63.t{frame % 3:02d}.s{frame:04d}",
            "source": {"task": source, "frame": frame},
            "given": False,
            "level": level["name"],
            "trajectory": "crystal00.b2o3" if frame % 5 == 4 else f"LBS-20-60-20.n63.t{frame % 3:02d}",
            "role": "held_out" if frame % 3 == 2 else "training",
            "reason": "overlap" if frame % 2 else "candidate",
            "temperature_K": 300.0,
        }
        | more
        for frame in range(first, first + count)
    ]


def ask_labels(campaign: Campaign, count: int, first: int = 0, kind: str = "seed_labels", **more: Any) -> list[str]:
    """Decide labels and return their keys."""
    found = picks(campaign, count, first, **more)
    campaign.decide(kind, iteration=-1, level=campaign.level, picks=found)
    return [pick["key"] for pick in found]


def task_folder(campaign: Campaign, key: str) -> Path:
    """The folder of a task, prepared as the driver would (a label's structure is not needed here)."""
    task = campaign.state.tasks[key]
    return campaign.store.prepare(task, campaign.state.identity["id"], {})


def end_well(campaign: Campaign, key: str, *, accept: bool = True, **record: Any) -> Path:
    """Publish a result, with a record of the cost, as an attempt would; the driver hears of it unless told not to."""
    folder = task_folder(campaign, key)
    earlier = sum(1 for _ in store.attempts(folder))
    attempt = begin_attempt(folder)
    (attempt.out / "label.json").write_text(json.dumps({"of": key}))
    assert publish(attempt, key, RECORD | {"failed_attempts": earlier} | record)
    if accept:
        assert campaign.accept(key)
    return folder


def fail_once(campaign: Campaign, key: str, seconds: float = 100.0, kind: str = "numeric", **about: Any) -> Attempt:
    """An attempt that failed after so many seconds on 4 cores and one GPU; the driver has not heard of it yet."""
    attempt = begin_attempt(task_folder(campaign, key))
    started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    owner = this_process().to_json() | {"start_ticks": 1, "started": started, "waited_s": 3.0}
    write_json(attempt.folder / "attempt.json", owner | {"threads": 1, "cores": 4, "gpus": 1} | about)
    fail(attempt.folder, kind, "it failed")
    return attempt


def parsed(**changes: Any) -> config.Param:
    return param(**changes)
