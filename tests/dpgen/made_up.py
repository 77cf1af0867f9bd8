"""A campaign whose labels are real and whose models and dynamics are made up, so that it runs in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alloop.attempt import run_tasks
from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions import DECIDERS
from alloop.frames import read_structures, write_arrays, write_frames
from alloop.selection.classes import classify
from alloop.store import Task, begin_attempt, publish, write_json
from alloop.structure import content_key, from_record, to_record

STEPS = 12


def decide(campaign: Campaign, param: Param, kind: str, iteration: int) -> list[Task]:
    """Take a decision and return the tasks that wait now."""
    campaign.decide(kind, iteration=iteration, **DECIDERS[kind](campaign, param, iteration))
    return [campaign.state.tasks[key] for key in campaign.state.waiting]


def really(campaign: Campaign, tasks: list[Task]) -> None:
    assert run_tasks([campaign.prepare(task.key) for task in tasks], None) == 0
    assert all(campaign.accept(task.key) for task in tasks)


def made_up(campaign: Campaign, tasks: list[Task], write: Callable[[Campaign, Task, Path], None]) -> None:
    for task in tasks:
        attempt = begin_attempt(campaign.prepare(task.key))
        write(campaign, task, attempt.out)
        assert publish(attempt, task.key, {"seconds": 1.0, "threads": 1})
        assert campaign.accept(task.key)


def write_model(_: Campaign, task: Task, out: Path) -> None:
    for name in ("model.pb", "model-compressed.pb", "input.json", "lcurve.out"):
        (out / name).write_text(f"{name} of {task.key}")
    for suffix in ("index", "meta", "data-00000-of-00001"):
        (out / f"model.ckpt-9.{suffix}").write_text(f"{suffix} of {task.key}")
    write_json(out / "summary.json", {"model": "model-compressed.pb", "checkpoint": "model.ckpt-9"})


def write_chunk(campaign: Campaign, task: Task, out: Path) -> None:
    rng = np.random.default_rng(task.spec["seed"])
    start = task.spec["start"]
    source = start["task"] if "frame" in start else campaign.state.decisions["bootstrap", -1]["tasks"][0]["key"]
    (record,) = read_structures(campaign.result(source), [start.get("frame", 0)])
    levels = (task.spec["trust_low_eV_A"], task.spec["trust_high_eV_A"])
    deviation = rng.uniform(0, 1.5 * levels[1], STEPS)
    classes = classify(deviation, *levels)
    steps = np.arange(1, STEPS + 1) * task.spec["deviation_every"]
    kept = np.flatnonzero(classes == "candidate")
    frames = [from_record(record) for _ in kept]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
    none = np.zeros(STEPS, dtype=bool)
    force = {f"{name}_force_deviation_eV_A": deviation for name in ("max", "mean", "min")}
    write_arrays(out / "table.npz", {"step": steps, "max_virial_deviation_eV": deviation / 9} | force)
    write_frames(
        out / "frames.npz",
        frames,
        content=np.array([content_key(to_record(atoms)) for atoms in frames], dtype="U16"),
        step=steps[kept],
        max_force_deviation_eV_A=deviation[kept],
        temperature_K=np.full(len(kept), 500.0),
        target_temperature_K=np.full(len(kept), 500.0),
        kept_for=np.array(["candidate"] * len(kept), dtype="U24"),
        audit_of=np.zeros(len(kept), dtype=int),
        trust_class=classes[kept],
        **{f"event:{name}": none[kept] for name in task.spec["events"]},
    )
    counts = {name: int((classes == name).sum()) for name in ("accurate", "candidate", "failed")}
    events = dict.fromkeys(task.spec["events"], 0)
    write_json(
        out / "summary.json", {"status": "finished", "classes": counts, "events": events, "has_good_state": False}
    )


def begin(folder: Path, param: Param) -> Campaign:
    """Take the campaign of a folder through its bootstrap and all labels of it."""
    campaign = Campaign(folder)
    campaign.take(param, take_over=False, limit={})
    really(campaign, decide(campaign, param, "bootstrap", -1))
    really(campaign, decide(campaign, param, "seed_labels", -1))
    return campaign


def iterate(campaign: Campaign, param: Param, iteration: int) -> None:
    """Take a campaign through one iteration, but for its verdict."""
    made_up(campaign, decide(campaign, param, "train", iteration), write_model)
    made_up(campaign, decide(campaign, param, "explore", iteration), write_chunk)
    really(campaign, decide(campaign, param, "select", iteration))


def stop_production(campaign: Campaign, param: Param, iteration: int) -> None:
    """Quench with an ensemble, every run of which is stopped, and label what the guard asks for."""

    def write(campaign: Campaign, task: Task, out: Path) -> None:
        write_chunk(campaign, task, out)
        write_json(out / "summary.json", {"status": "stopped", "stage": "melt", "reason": "beyond trust"})

    made_up(campaign, decide(campaign, param, "quench", iteration), write)
    really(campaign, decide(campaign, param, "guard", iteration))


def train(campaign: Campaign, param: Param, iteration: int) -> None:
    made_up(campaign, decide(campaign, param, "train", iteration), write_model)
