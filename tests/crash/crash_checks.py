"""What must be true of a campaign after any crash, and what of it two runs of one campaign have in common."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alloop import store
from alloop.campaign import Campaign
from alloop.report.snapshot import read_status
from alloop.report.status import build_status

PERSONS = ("retry", "exclude")
UNNUMBERED = ("campaign", "start", "quarantine", *PERSONS)


def outcome(root: Path) -> dict[str, Any]:
    """What two runs of one campaign in the classical order must agree in."""
    campaign = Campaign(root)
    state = campaign.load()
    done: dict[str, list[str]] = {}
    for key in sorted(state.done):
        done.setdefault(state.tasks[key].kind, []).append(key)
    decisions = campaign.files.read()
    return {
        "done": done,
        "roles": {key: state.picks[key]["role"] for key in sorted(state.picks)},
        "quarantined": {key: record["class"] for key, record in sorted(state.quarantined.items())},
        "excluded": sorted(state.excluded),
        "retried": sorted(state.retried),
        "decisions": [(made["kind"], made["iteration"]) for made in decisions if made["kind"] not in UNNUMBERED],
        "requests": sorted(made["kind"] for made in decisions if made["kind"] in PERSONS),
        "sets": [
            (made["common"]["training"], made["common"]["held_out"]) for made in decisions if made["kind"] == "train"
        ],
        "verdicts": [made["reason"] for made in decisions if made["kind"] == "verdict"],
    }


def problems(root: Path, driven: Campaign | None = None) -> Iterator[str]:
    """What is wrong with a campaign that has come to its end; driven: as its last driver left it."""
    campaign = Campaign(root)
    state = campaign.load()
    yield from _unfinished(campaign)
    yield from _miscounted(campaign)
    yield from _unreadable(campaign)
    for key in state.tasks:
        yield from _wrong_attempts(campaign, key)
    if driven is not None:
        known, found = driven.state, state
        for name in ("done", "running", "quarantined", "excluded", "superseded", "waiting", "fresh", "unjudged"):
            if getattr(known, name) != getattr(found, name):
                yield f"the driver knew other {name} than a new one: {getattr(known, name)} {getattr(found, name)}"
        if _spent(driven) != _spent(campaign):
            yield f"the driver counted other costs than a new one: {_spent(driven)} {_spent(campaign)}"


def status_problems(root: Path) -> Iterator[str]:
    """What `status` tells of a campaign without a driver from its snapshot must be what is counted anew."""
    campaign = Campaign(root)
    told = read_status(campaign)
    campaign = Campaign(root)
    campaign.load()
    counted = build_status(campaign, "not running")
    for name in sorted((told.keys() | counted.keys()) - {"time"}):
        if not _alike(told.get(name), counted.get(name)):
            yield f"status tells {name} {told.get(name)}, and it is {counted.get(name)}"


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two values are equal but for the last digits of numbers, which depend on the order of sums."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(one, str) and isinstance(other, str):
        return _COST.sub("", one) == _COST.sub("", other)
    return json.dumps(one) == json.dumps(other)


_COST = re.compile(r"about \S+ core-hours")
"""In a sentence of the snapshot: spent when it was written; an attempt that died later is not in it."""


def _spent(campaign: Campaign) -> dict[str, Any]:
    costs = campaign.costs
    sorts = {"kind": costs.by_kind, "glass": costs.by_glass, "reason": costs.by_reason}
    found = {(sort, name): vars(spend) for sort, spends in sorts.items() for name, spend in spends.items()}
    plain = {
        place: {name: round(value, 6) for name, value in numbers.items() if isinstance(value, int | float)}
        for place, numbers in found.items()
    }
    return plain | {"paid_labels": costs.paid_labels}


def _unfinished(campaign: Campaign) -> Iterator[str]:
    state = campaign.state
    for name, keys in (("waits", state.waiting), ("runs", state.running)):
        yield from (f"{state.tasks[key].kind} {state.tasks[key].name} still {name}" for key in keys)
    for key in state.picks:
        if state.status_of(key) not in ("done", "quarantined", "superseded"):
            yield f"label {state.tasks[key].name} is lost: {state.status_of(key)}"
    for i in range(state.iteration):
        stages = ("train", "explore", "select", "evaluate", "verdict")
        yield from (f"{kind} {i} was never decided" for kind in stages if not state.decided(kind, i))
    if campaign.read_beat() is not None:
        yield "a heartbeat is left"
    left = [file.name for file in (campaign.run_folder / "requests").glob("[0-9]*")]
    yield from (f"request {name} is left" for name in left)


def _miscounted(campaign: Campaign) -> Iterator[str]:
    state, status = campaign.state, build_status(campaign, "dead")
    labels = status["labels"]
    if labels["done"] != labels["training"] + labels["held_out"] + labels["excluded"]:
        yield f"labels do not add up: {labels}"
    parts = ("done", "in_flight", "waiting", "quarantined", "pretraining", "superseded")
    if sum(labels[part] for part in parts) != len(state.picks):
        yield f"{len(state.picks)} labels were asked for, status knows of {labels}"
    if sum(sum(counts.values()) for counts in status["tasks"].values()) != len(state.tasks):
        yield f"{len(state.tasks)} tasks were asked for, status knows of {status['tasks']}"
    on_disk = {json.loads((place / store.MANIFEST).read_text())["key"] for place in _results(campaign)}
    if on_disk != state.done:
        yield f"results without a decision, or the other way: {on_disk ^ state.done}"
    picked = Counter(pick["key"] for picks in state.picks_in.values() for pick in picks)
    yield from (f"label {key} was picked {count} times" for key, count in picked.items() if count > 1)


def _unreadable(campaign: Campaign) -> Iterator[str]:
    for file in campaign.store.iterations.rglob("*.json"):
        if not file.name.startswith(".tmp.") and "quarantine" not in file.parts:
            try:
                json.loads(file.read_text())
            except ValueError:
                yield f"{file} is no JSON"
    yield from (f"{file} is left" for file in campaign.decisions_folder.glob(".tmp.*"))
    for key in campaign.state.done:
        problem = store.result_problem(campaign.result(key), key)
        if problem:
            yield f"{campaign.result(key)}: {problem}"


def _wrong_attempts(campaign: Campaign, key: str) -> Iterator[str]:
    """No attempt began once the result was there, and no two worked at once."""
    result, spans = campaign.store.result(campaign.state.tasks[key]), []
    record = json.loads((result / store.MANIFEST).read_text())["record"] if result.is_dir() else {}
    for folder in campaign.attempts_at(key):
        begun = json.loads((folder / "attempt.json").read_text())["started"]
        if record and begun > record["ended"]:
            yield f"{folder} began when the task was done"
        failed = store.read_json(folder / "failed.json") if (folder / "failed.json").exists() else None
        if failed and failed["class"] == "late":
            yield f"{folder} did work that another attempt had done"
        if failed is None and record.get("attempt") == folder.name:
            spans.append((begun, record["ended"]))
        elif failed is None and (folder / "out").exists():
            yield f"nothing is known of the end of {folder}"
    if record and len(spans) != 1:
        yield f"{result} was published by {len(spans)} of its attempts"


def _results(campaign: Campaign) -> list[Path]:
    found = []
    for path, folders, _ in os.walk(campaign.store.iterations):
        if "attempts" in folders:
            found += [Path(path) / "result"] if "result" in folders else []
            folders.clear()
    return found


def wait_for_orphans(root: Path, seconds: float = 10.0) -> None:
    """Wait until no attempt of a campaign runs any more."""
    deadline = time.monotonic() + seconds
    for folder in root.glob("iterations/**/attempts/*"):
        while (owner := store.attempt_owner(folder)) is not None and owner.alive():
            assert owner.pid == os.getpid() or time.monotonic() < deadline, f"{folder} does not end"
            if owner.pid == os.getpid():
                break
            time.sleep(0.01)
