"""One campaign: its folder, its decisions, and the state they and the results on disk add up to.

The state is decisions plus which results exist; everything else on disk is a disposable cache. A decision is one
small immutable file, put in place with link(2), so that its number is taken exactly once.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from alloop import config
from alloop.errors import CampaignHeldError, InputError
from alloop.failpoint import failpoint
from alloop.frames import read_columns, read_structure
from alloop.process import ProcessIdentity, this_process
from alloop.store import (
    MANIFEST,
    Store,
    Task,
    attempts,
    create_json_once,
    live_attempt,
    make_task,
    progress,
    read_json,
    result_problem,
    write_json,
)
from alloop.structure import Record

Stage = tuple[str, int]
"""Kind of task and iteration (-1 for the bootstrap): the unit at whose end a decision falls due."""

BEAT_SECONDS = 5.0
FOREIGN_SILENCE_SECONDS = 300.0

# which tasks a decision of each kind asks for, and in which folder they live
_TASKS_OF = {
    "bootstrap": ("bootstrap", "bootstrap/seed"),
    "seed_labels": ("label", "bootstrap/label"),
    "train": ("train", "iter.{iteration:06d}/train"),
    "explore": ("explore", "iter.{iteration:06d}/explore"),
    "select": ("label", "iter.{iteration:06d}/label"),
    "evaluate": ("evaluate", "iter.{iteration:06d}/evaluate"),
    "assess": ("assess", "production/assess"),
    "quench": ("quench", "production"),
}


def decision_tasks(decision: dict[str, Any]) -> list[Task]:
    """Return the tasks a decision asks for; a label's spec is still empty, see `Campaign.materialise`."""
    if decision["kind"] not in _TASKS_OF:
        return []
    kind, group = _TASKS_OF[decision["kind"]]
    group = group.format(iteration=max(decision.get("iteration", 0), 0))
    if kind == "assess":
        kind = "evaluate"
    if kind == "label":
        return [
            Task(pick["key"], kind, group, pick["name"], {}, (pick["source"]["task"],)) for pick in decision["picks"]
        ]
    common = decision.get("common", {})
    return [
        Task(
            entry["key"],
            kind,
            group,
            entry["name"],
            common | entry["spec"],
            tuple(decision.get("inputs", ())) + tuple(entry["inputs"]),
            entry.get("files", {}),
        )
        for entry in decision["tasks"]
    ]


def task_entries(tasks: list[Task], common: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the decision's record of tasks, without the part of their specs that all share."""
    return [
        {
            "key": task.key,
            "name": task.name,
            "inputs": list(task.inputs),
            "spec": {k: v for k, v in task.spec.items() if k not in common},
        }
        | ({"files": task.files} if task.files else {})
        for task in tasks
    ]


@dataclass
class State:
    """What has been decided and what has come of it, kept up to date event by event."""

    next_number: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    decisions: dict[Stage, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    stages_of: dict[str, list[Stage]] = field(default_factory=dict)
    unfinished: dict[Stage, set[str]] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)
    picks: dict[str, dict[str, Any]] = field(default_factory=dict)
    trajectories: dict[str, str] = field(default_factory=dict)
    iteration: int = -1
    verdict: dict[str, Any] | None = None
    starts: list[dict[str, Any]] = field(default_factory=list)

    def apply(self, decision: dict[str, Any]) -> None:
        """Fold the next decision in."""
        kind, iteration = decision["kind"], decision.get("iteration", -1)
        self.next_number = decision["number"] + 1
        if kind == "campaign":
            self.identity = decision
        elif kind == "start":
            self.starts.append(decision)
        elif kind == "quarantine":
            self.settle_quarantine(decision["key"], decision)
        else:
            self.decisions[kind, iteration] = decision
        if kind == "train":
            self.iteration, self.verdict = iteration, None
        if kind == "verdict":
            self.verdict = decision
        self.trajectories |= decision.get("trajectories", {})
        for pick in decision.get("picks", []):
            self.picks.setdefault(pick["key"], pick | {"iteration": iteration})
        stage = (kind, iteration)
        for task in decision_tasks(decision):
            self.unfinished.setdefault(stage, set())
            if task.key not in self.tasks:
                self.tasks[task.key] = task
                self.waiting[task.key] = None
            if task.key in self.waiting or task.key in self.running:
                self.unfinished[stage].add(task.key)
                self.stages_of.setdefault(task.key, []).append(stage)

    def decided(self, kind: str, iteration: int = -1) -> bool:
        """Tell whether this decision has been taken."""
        return (kind, iteration) in self.decisions

    def open(self, kind: str, iteration: int = -1) -> bool:
        """Tell whether work of this decision is unfinished."""
        return bool(self.unfinished.get((kind, iteration)))

    def settle_done(self, key: str) -> None:
        """Note that a task has its result."""
        self.done.add(key)
        self.quarantined.pop(key, None)  # a late result is as good as one in time
        self._settle(key)

    def settle_quarantine(self, key: str, record: dict[str, Any]) -> None:
        """Note that a task was given up, with the reason."""
        if key not in self.done:
            self.quarantined[key] = record
        self._settle(key)

    def _settle(self, key: str) -> None:
        self.waiting.pop(key, None)
        self.running.discard(key)
        for stage in self.stages_of.pop(key, ()):
            self.unfinished[stage].discard(key)

    def begin(self, key: str) -> None:
        """Note that an attempt at a task is under way."""
        self.waiting.pop(key, None)
        self.running.add(key)

    def put_back(self, key: str) -> None:
        """Note that an attempt ended without a result."""
        if key in self.running:
            self.running.discard(key)
            self.waiting[key] = None

    def labels(self, role: str) -> list[str]:
        """Return the keys of all finished labels with a role (training or held_out), in order of request."""
        return [key for key, pick in self.picks.items() if pick["role"] == role and key in self.done]

    def models(self, iteration: int) -> list[str]:
        """Return the keys of the trained models of an iteration's ensemble, in order."""
        decision = self.decisions.get(("train", iteration))
        return [task["key"] for task in decision["tasks"] if task["key"] in self.done] if decision else []

    def stage_counts(self, kind: str, iteration: int) -> tuple[int, int]:
        """Return (finished, all) tasks of a decision."""
        decision = self.decisions.get((kind, iteration))
        total = len({t.key for t in decision_tasks(decision)}) if decision else 0
        return total - len(self.unfinished.get((kind, iteration), ())), total

    def task_counts(self) -> dict[str, dict[str, int]]:
        """Return, per kind of task, how many are done, running, waiting and quarantined."""
        counts: dict[str, Counter[str]] = {}
        for key, task in self.tasks.items():
            entry = counts.setdefault(task.kind, Counter(done=0, running=0, waiting=0, quarantined=0))
            entry[self.status_of(key)] += 1
        return {kind: dict(entry) for kind, entry in counts.items()}

    def status_of(self, key: str) -> str:
        """Return done, running, waiting or quarantined."""
        if key in self.done:
            return "done"
        if key in self.quarantined:
            return "quarantined"
        return "running" if key in self.running else "waiting"


@dataclass
class Cost:
    """What finished tasks of one kind took: how many, and seconds and core-seconds in all."""

    tasks: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0

    def add(self, seconds: float, threads: int) -> None:
        """Count one finished task."""
        self.tasks += 1
        self.seconds += seconds
        self.core_seconds += seconds * threads


class Campaign:
    """A campaign folder: read by every command, written by the one driver that holds it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.store = Store(self.root)
        self.state = State()
        self.costs: dict[str, Cost] = {}
        self.epoch: int | None = None
        self._beat_counter = 0
        self._beat_time = 0.0

    # -------------------------------------------------------------------------------- reading

    @property
    def decisions_folder(self) -> Path:
        """Return the folder of decision files."""
        return self.store.iterations / "decisions"

    @property
    def run_folder(self) -> Path:
        """Return the folder of what belongs to running drivers only."""
        return self.store.iterations / "run"

    def exists(self) -> bool:
        """Tell whether the folder holds a campaign that has begun."""
        return self._decision_file(0).exists()

    def _decision_file(self, number: int) -> Path:
        return self.decisions_folder / f"{number:08d}.json"

    def load(self) -> State:
        """Fold all decisions and look which results exist and which attempts still run."""
        self.state, self.costs = State(), {}
        if self.decisions_folder.is_dir():
            numbers = sorted(int(file.stem) for file in self.decisions_folder.glob("[0-9]*.json"))
            if numbers != list(range(len(numbers))):
                missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
                raise InputError(
                    f"{self.decisions_folder} lacks decision file(s) {missing[:5]}\n"
                    "  restore them from a backup: a campaign without them cannot know what it asked for"
                )
            for number in numbers:
                self.state.apply(self._read_decision(number))
        self._look_at_results()
        return self.state

    def _read_decision(self, number: int) -> dict[str, Any]:
        file = self._decision_file(number)
        try:
            return read_json(file)
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read: {error}\n  restore it from a backup") from None

    def _look_at_results(self) -> None:
        for key, task in self.state.tasks.items():
            if self.store.is_done(task):
                self._accept_unread(key, task)
            elif key not in self.state.quarantined and live_attempt(self.store.folder(task)) is not None:
                self.state.begin(key)

    def _accept_unread(self, key: str, task: Task) -> None:
        """Note a result found on disk; only names and sizes are compared, as all were checked when they landed."""
        if result_problem(self.store.result(task), key, checksums=False) is None:
            self.state.settle_done(key)
            self._count_cost(task)
        elif self.epoch is not None:
            self.store.check_result(task)

    def check_identity(self, param: config.Param) -> None:
        """Refuse a `param.json` that names another campaign than the one in ``iterations/``."""
        known = self.state.identity
        if not known:
            return
        for what, found in (("name", param.name), ("seed", param.seed)):
            if known[what] != found:
                raise InputError(
                    f"{self.store.iterations} holds another campaign: "
                    f"its {what} is {known[what]!r}, param.json says {found!r}\n"
                    f"  set {what} back to {known[what]!r} to go on with it, or start the new one in its own folder "
                    "(alloop init DIR)"
                )
        last = self.state.starts[-1]["config"] if self.state.starts else known["config"]
        before = config.parse(last, "the recorded configuration")
        if before.label.level_of_theory() != param.label.level_of_theory():
            raise InputError(
                f"label: the level of theory changed from {before.label.level} to {param.label.level}\n"
                "  labels of two levels cannot train one model; set it back, or start a new campaign folder"
            )
        if before.elements != param.elements:
            raise InputError(
                f"elements changed from {before.elements} to {param.elements}; the models' type map is fixed\n"
                "  set it back, or start a new campaign folder"
            )

    def result(self, key: str) -> Path:
        """Return the result folder of a finished task."""
        return self.store.result(self.state.tasks[key])

    def summary(self, key: str) -> dict[str, Any]:
        """Return ``summary.json`` of a finished task's result."""
        return read_json(self.result(key) / "summary.json")

    # -------------------------------------------------------------------------------- deciding

    def take(self, param: config.Param, *, take_over: bool, limit: dict[str, Any]) -> None:
        """Become the campaign's driver, starting the campaign if it is new; CampaignHeldError if it is held."""
        if not take_over:
            self.refuse_if_held()
        self.decisions_folder.mkdir(parents=True, exist_ok=True)
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self.load()
        self.check_identity(param)
        effective = param.model_dump(mode="json")
        if not self.state.identity:
            self._append("campaign", id=uuid.uuid4().hex, name=param.name, seed=param.seed, config=effective)
        self._append("start", process=this_process().to_json(), config=effective, limit=limit)
        self.epoch = self.state.next_number - 1
        self.store.sweep()
        (self.run_folder / "stop.json").unlink(missing_ok=True)
        self.beat(force=True)
        self.load()

    def refuse_if_held(self) -> None:
        """Raise CampaignHeldError while another driver lives; one on another host is watched for five minutes."""
        beat = self.read_beat()
        if beat is None:
            return
        owner = ProcessIdentity.from_json(beat)
        advice = "wait for it, end it with: alloop stop, or take over with: alloop run --take-over"
        if owner.is_local():
            if owner.alive():
                raise CampaignHeldError(f"driver {owner.pid} on this host holds the campaign\n  {advice}")
            return
        deadline = time.monotonic() + FOREIGN_SILENCE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS)
            if self.read_beat() != beat:
                raise CampaignHeldError(f"driver {owner.pid} on {owner.host} holds the campaign\n  {advice}")

    def read_beat(self) -> dict[str, Any] | None:
        """Return the last heartbeat of a driver, if any."""
        try:
            return read_json(self.run_folder / "driver.json")
        except (OSError, ValueError):
            return None

    def driver_alive(self) -> bool:
        """Tell whether a driver runs (one on another host counts while its beat is young)."""
        beat = self.read_beat()
        if beat is None:
            return False
        owner = ProcessIdentity.from_json(beat)
        if owner.is_local():
            return owner.alive()
        age = datetime.now(UTC) - datetime.fromisoformat(beat["time"])
        return age.total_seconds() < FOREIGN_SILENCE_SECONDS

    def check_held(self) -> None:
        """Raise CampaignHeldError if another driver has taken the next decision's number."""
        if self._decision_file(self.state.next_number).exists():
            raise CampaignHeldError(
                "another driver has taken over this campaign; this one ends and changes nothing more"
            )

    def beat(self, *, force: bool = False) -> None:
        """Tell other drivers that this one lives (at most every few seconds)."""
        if not force and time.monotonic() - self._beat_time < BEAT_SECONDS:
            return
        self.check_held()
        self._beat_time = time.monotonic()
        self._beat_counter += 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = this_process().to_json() | {"epoch": self.epoch, "counter": self._beat_counter, "time": now}
        write_json(self.run_folder / "driver.json", record)

    def release(self) -> None:
        """Remove this driver's heartbeat."""
        beat = self.read_beat()
        if beat is not None and beat.get("epoch") == self.epoch:
            (self.run_folder / "driver.json").unlink(missing_ok=True)

    def decide(self, kind: str, **content: Any) -> None:
        """Write the next decision and fold it in; CampaignHeldError if another driver took its number."""
        failpoint(f"decide:{kind}:before")
        self._append(kind, **content)
        failpoint(f"decide:{kind}:after")

    def _append(self, kind: str, **content: Any) -> None:
        number = self.state.next_number
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        decision = {"number": number, "kind": kind, "time": now, "epoch": self.epoch} | content
        if not create_json_once(self._decision_file(number), decision):
            raise CampaignHeldError(f"another driver took decision {number}; this one ends and changes nothing more")
        self.state.apply(decision)
        for task in decision_tasks(decision):
            if task.key in self.state.waiting and self.store.is_done(task):
                self.state.settle_done(task.key)

    # -------------------------------------------------------------------------------- tasks

    def prepare(self, key: str) -> Path:
        """Write a wanted task's folder and return it."""
        task = self.materialise(self.state.tasks[key])
        folders = {name: self.state.tasks[name].folder for name in task.inputs}
        return self.store.prepare(task, self.state.identity["id"], folders)

    def materialise(self, task: Task) -> Task:
        """Return the task with its full spec; a label's is built from the frame it was picked from."""
        if task.kind != "label":
            return task
        pick = self.state.picks[task.key]
        result, frame = self.result(pick["source"]["task"]), pick["source"]["frame"]
        level = pick["level"] or given_labels(read_columns(result), frame, pick["given"])
        return label_task(task.group, task.name, read_structure(result, frame), level, task.inputs)

    def folder(self, key: str) -> Path:
        """Return the folder of a wanted task."""
        return self.store.folder(self.state.tasks[key])

    def accept(self, key: str) -> bool:
        """Note a task's result if it is there and whole; a broken one is quarantined, and False returned."""
        task = self.state.tasks[key]
        if not self.store.is_done(task) or not self.store.check_result(task):
            return False
        self.state.settle_done(key)
        self._count_cost(task)
        return True

    def _count_cost(self, task: Task) -> None:
        record = read_json(self.store.result(task) / MANIFEST)["record"]
        self.costs.setdefault(task.kind, Cost()).add(record["seconds"], record["threads"])

    def progress(self) -> dict[str, float]:
        """Return how far running tasks are, from 0 to 1, for those that tell."""
        told = {key: progress(self.folder(key)) for key in sorted(self.state.running)}
        return {key: done for key, done in told.items() if done is not None}

    def attempts_at(self, key: str) -> list[Path]:
        """Return the folders of the attempts at a task that have not been cleared away."""
        return list(attempts(self.store.folder(self.state.tasks[key])))


def given_labels(columns: dict[str, np.ndarray], frame: int, level: str) -> dict[str, Any]:
    """Return the part of a label's spec that holds the numbers which came with a frame of imported data."""
    count = columns["n_atoms"][frame]
    return {
        "imported": level,
        "given": {
            "energy_eV": float(columns["energy_eV"][frame]),
            "forces_eV_A": columns["forces_eV_A"][frame][:count].tolist(),
            "virial_eV": columns["virial_eV"][frame].tolist(),
        },
    }


def label_task(group: str, name: str, structure: Record, level: dict[str, Any], inputs: tuple[str, ...]) -> Task:
    """Return the task that labels a structure; its key is the structure and the level of theory, nothing else."""
    return make_task("label", group, name, {"structure": structure} | level, inputs)
