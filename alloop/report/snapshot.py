"""``state.json``: the driver's view as a disposable file, from which `status` is told without loading a campaign.

While a driver lives its view is shown as it is. Once it is gone, the snapshot still tells the truth if no decision came
after it: only tasks that were open can have changed, so their folders are looked at and the counts put right. Where
more than counts would change the campaign is loaded instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from alloop.campaign import Campaign, glass_name
from alloop.cost import Costs
from alloop.notify import trouble
from alloop.report.cost import budget_record, budget_warnings, cost_record, eta_hours
from alloop.report.status import (
    build_status,
    code_warnings,
    foundation_name,
    label_class,
    lasting_warnings,
    model_path,
)
from alloop.result_index import accepted, manifest_of
from alloop.state import decision_tasks
from alloop.store import live_records, progress, read_json, result_problem, write_bytes

_FILE = "state.json"
_FORM = 8
"""Raised with every change of the record, so that no snapshot of another alloop's driver is taken for one's own."""
WRITE_SECONDS = 5.0
_SHARE_OF_TIME = 0.02


class Open(NamedTuple):
    """A task without a result, and what follows once it has one.

    rest: its status while no attempt runs; may_run: whether a live attempt makes it a running one; glass, pick (reason
    and given): where its cost is counted; becomes: of a label, how it counts when done; iteration: of the selection
    that asked for it; counted: attempts whose failure is counted; plain: whether only counts change when it is done.
    """

    key: str
    folder: str
    kind: str
    name: str
    now: str
    rest: str
    may_run: bool
    glass: str | None
    pick: dict[str, Any] | None
    becomes: str | None
    iteration: int | None
    counted: list[str]
    plain: bool


# ---------------------------------------------------------------------------------------- writing


class Snapshots:
    """Writes the snapshot and the index of results now and then, taking no more than 2 % of the driver's time."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self._due = 0.0

    def write(self, *, force: bool = False) -> None:
        """Write if it is time to; `force`, for the end of a run, writes in any case."""
        began = time.monotonic()
        if not force and began < self._due:
            return
        self.campaign.check_held()
        self.campaign.index.flush()
        write_snapshot(self.campaign)
        ended = time.monotonic()
        self._due = ended + max(WRITE_SECONDS, (ended - began) / _SHARE_OF_TIME)


def write_snapshot(campaign: Campaign) -> None:
    """Write the view of a loaded campaign to ``state.json``."""
    state = campaign.state
    config = state.starts[-1]["config"] if state.starts else None
    last = state.decisions.get(("train", state.iteration))
    record = {
        "form": _FORM,
        "decisions": state.next_number,
        "status": build_status(campaign, "alive"),
        "config": {name: config.get(name) for name in ("pools", "budget")} | {"glasses": sorted(campaign.glasses)}
        if config
        else None,
        "foundation": foundation_name(state),
        "costs": campaign.costs.to_json(),
        "lasting_warnings": lasting_warnings(campaign),
        "ensemble": [[entry["key"], state.tasks[entry["key"]].folder] for entry in last["tasks"]] if last else [],
        "open": _open_tasks(campaign),
    }
    write_bytes(campaign.store.iterations / _FILE, json.dumps(record, separators=(",", ":")).encode())


def _open_tasks(campaign: Campaign) -> list[Open]:
    """Return every task without a result: waiting, running, given up or no longer wanted."""
    state = campaign.state
    first = foundation_name(state)
    keys = dict.fromkeys([*state.waiting, *sorted(state.running), *state.quarantined, *sorted(state.superseded)])
    found = []
    for key in keys:
        if key in state.done:
            continue
        task, pick = state.tasks[key], state.picks.get(key)
        rest = "superseded" if key in state.superseded else "quarantined" if key in state.quarantined else "waiting"
        stages = state.asked_in[key]
        found.append(
            Open(
                key,
                task.folder,
                task.kind,
                task.name,
                state.status_of(key),
                rest,
                key not in state.quarantined,
                campaign.glass_of(task),
                {"reason": pick.get("reason"), "given": pick.get("given"), "level": pick.get("level")}
                if pick
                else None,
                label_class(pick, state.target_level, first, excluded=key in state.excluded) if pick else None,
                next((iteration for kind, iteration in stages if kind == "select"), None),
                sorted(campaign.counted_failures(key)),
                task.kind != "quench" and key != state.describer and all(kind != "assess" for kind, _ in stages),
            )
        )
    return found


# ---------------------------------------------------------------------------------------- reading


TROUBLES = "troubles.json"
"""In ``run/``: what the pools of the present driver have trouble with."""


def read_status(campaign: Campaign) -> dict[str, Any]:
    """Return the status: from the snapshot if it still tells the truth, else counted anew from what is on disk."""
    alive = campaign.driver_alive()
    status = None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        snapshot = read_json(campaign.store.iterations / _FILE)
        if snapshot["form"] == _FORM:
            status = snapshot["status"] if alive else _up_to_date(campaign, snapshot)
    if status is None:
        campaign.load()
        status = build_status(campaign, "alive" if alive else "not running")
    told = trouble(campaign.run_folder)
    if told is not None:
        status["warnings"].append(told)
    with contextlib.suppress(OSError, ValueError, TypeError):
        status["warnings"] += read_json(campaign.run_folder / TROUBLES) if alive else []
    return status


def _up_to_date(campaign: Campaign, snapshot: dict[str, Any]) -> dict[str, Any] | None:
    """Return the status as it is now without a driver; None if the snapshot cannot tell."""
    open_tasks = {row[0]: Open(*row) for row in snapshot["open"]}
    if not campaign.files.taken(snapshot["decisions"] - 1) or not _fold_newer(campaign, snapshot, open_tasks):
        return None
    update = _Update(campaign, snapshot)
    if not all(update.look_at(task) for task in open_tasks.values()):
        return None
    return update.status_now(snapshot)


_NEWER_AT_MOST = 100


def _fold_newer(campaign: Campaign, snapshot: dict[str, Any], open_tasks: dict[str, Open]) -> bool:
    """Fold in what was decided after the snapshot; False if it is more than a few picks and tasks given up."""
    status = snapshot["status"]
    while (decision := campaign.files.one(status["decisions"])) is not None:
        status["decisions"] += 1
        folded = False
        if status["decisions"] - snapshot["decisions"] <= _NEWER_AT_MOST:
            if decision["kind"] == "quarantine":
                folded = _give_up(status, open_tasks, decision)
            elif decision["kind"] == "pick":
                folded = _ask_for(snapshot, open_tasks, decision)
        if not folded:
            return False
    return True


def _give_up(status: dict[str, Any], open_tasks: dict[str, Open], decision: dict[str, Any]) -> bool:
    task = open_tasks.get(decision["key"])
    if task is None or task.rest != "waiting":
        return False
    open_tasks[task.key] = task._replace(rest="quarantined", may_run=False)
    told = {
        "key": task.key,
        "task": task.name,
        "kind": task.kind,
        "class": decision.get("class"),
        "message": decision["message"],
    }
    status["quarantined"].append(told)
    return True


def _ask_for(snapshot: dict[str, Any], open_tasks: dict[str, Open], decision: dict[str, Any]) -> bool:
    status, picks, iteration = snapshot["status"], decision["picks"], decision["iteration"]
    if any(pick["key"] in open_tasks for pick in picks):
        return False
    foundation = snapshot["foundation"]
    for task, pick in zip(decision_tasks(decision), picks, strict=True):
        glass = glass_name(pick["trajectory"], snapshot["config"]["glasses"])
        about = {name: pick.get(name) for name in ("reason", "given", "level")}
        becomes = label_class(pick, status["level"], foundation, excluded=False)
        row = (task.key, task.folder, "label", task.name, "waiting", "waiting", True, glass, about, becomes, iteration)
        open_tasks[task.key] = Open(*row, counted=[], plain=True)
    counts = status["tasks"].setdefault("label", {"done": 0, "running": 0, "waiting": 0, "quarantined": 0})
    counts["waiting"] += len(picks)
    status["labels"]["waiting"] += len(picks)
    status["iterations"][iteration].setdefault("labels", 0)
    return True


class _Update:
    """Puts the counts of a snapshot right, task by task."""

    def __init__(self, campaign: Campaign, snapshot: dict[str, Any]) -> None:
        self.campaign = campaign
        self.status: dict[str, Any] = snapshot["status"]
        self.costs = Costs.from_json(snapshot["costs"])
        self.root = str(campaign.store.iterations)
        self.without_result: set[str] = set()
        self.trained = False
        self.running: dict[str, Open] = {}
        self.open_kinds: Counter[str] = Counter()

    def look_at(self, task: Open) -> bool:
        """Take in what has become of a task; False if more than counts would change."""
        folder = f"{self.root}/{task.folder}"
        now = task.rest
        if os.path.isdir(f"{folder}/result"):  # noqa: PTH112
            if not self._finished(task, Path(folder)):
                return False
            now = "done"
        else:
            self.without_result.add(task.key)
            new = self._new_attempts(task, folder)
            self._count_failures(task, folder, new)
            if new and task.may_run and any(live_records(Path(folder), self.campaign.alive)):
                now = "running"
                self.running[task.key] = task
            if now in ("waiting", "running"):
                self.open_kinds[task.kind] += 1
        self._move(task, now)
        return True

    def _new_attempts(self, task: Open, folder: str) -> list[str]:
        try:
            return sorted(set(os.listdir(f"{folder}/attempts")) - set(task.counted))  # noqa: PTH208
        except OSError:
            return []

    def _count_failures(self, task: Open, folder: str, attempts: list[str]) -> None:
        for name in attempts:
            with contextlib.suppress(OSError, ValueError):
                failure = read_json(Path(folder) / "attempts" / name / "failed.json")
                self.costs.add_failure(task.kind, task.glass, task.pick, failure)

    def _move(self, task: Open, now: str) -> None:
        if now == task.now:
            return
        counts = self.status["tasks"][task.kind]
        counts[task.now] -= 1
        counts[now] = counts.get(now, 0) + 1
        if not counts.get("superseded", 1):
            del counts["superseded"]
        if task.kind == "label":
            labels = self.status["labels"]
            labels["in_flight" if task.now == "running" else task.now] -= 1
            if now != "done":
                labels["in_flight" if now == "running" else now] += 1

    def _finished(self, task: Open, folder: Path) -> bool:
        result = folder / "result"
        if not task.plain or result_problem(result, task.key, checksums=False) is not None:
            return False
        entry = accepted(result, manifest_of(result), [])
        self.costs.add(task.kind, task.glass, task.pick, entry.record)
        if entry.record["failed_attempts"]:
            self._count_failures(task, str(folder), self._new_attempts(task, str(folder)))
        self.trained = self.trained or task.kind == "train"
        self.status["quarantined"] = [told for told in self.status["quarantined"] if told["key"] != task.key]
        if task.kind == "label":
            self._labelled(task, entry.record.get("notes") or {})
        return True

    def _labelled(self, task: Open, notes: dict[str, Any]) -> None:
        status, labels = self.status, self.status["labels"]
        labels[task.becomes] += 1
        in_use = task.becomes in ("training", "held_out", "excluded")
        labels["done"] += in_use
        if task.iteration is not None:
            status["iterations"][task.iteration]["labels"] += 1
        if task.pick and task.pick["level"] == status["level"] and "code" in notes:
            status["codes"][notes["code"]] = status["codes"].get(notes["code"], 0) + 1
        for flag in notes.get("flags", ()) if in_use and task.becomes != "excluded" else ():
            known = {entry["flag"]: entry for entry in status["flagged"]}
            entry = known.setdefault(flag, {"flag": flag, "count": 0, "example": f"{task.name}-{task.key}"})
            entry["count"] += 1
            status["flagged"] = [known[name] for name in sorted(known)]

    def status_now(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """Return the whole status once all open tasks were looked at."""
        status, config = self.status, snapshot["config"]
        budget = budget_record(config, self.costs)
        status |= {
            "driver": "not running",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cost": cost_record(self.costs, status["level_now"]),
            "budget": budget,
            "eta_hours": eta_hours(self.costs, config, self.open_kinds, status["level_now"]),
            "warnings": code_warnings(status["level"], status["codes"])
            + snapshot["lasting_warnings"]
            + budget_warnings(budget),
            "running": self._progress(),
        }
        if self.trained:
            done = [folder for key, folder in snapshot["ensemble"] if key not in self.without_result]
            results = [self.campaign.store.iterations / folder / "result" for folder in done]
            status["models"] = [model_path(self.campaign, result) for result in results] or status["models"]
        return status

    def _progress(self) -> list[dict[str, Any]]:
        told = []
        for _, task in sorted(self.running.items()):
            done = progress(self.campaign.store.iterations / task.folder)
            if done is not None:
                told.append({"kind": task.kind, "task": task.name, "done": done})
        return told
