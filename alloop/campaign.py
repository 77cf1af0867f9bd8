"""One campaign: its folder, its decisions, and the state they and the results on disk add up to.

The state is decisions plus which results exist; everything else on disk is a disposable cache. A decision is one
small immutable file, put in place with link(2), so that its number is taken exactly once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
import uuid
from collections import Counter
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alloop.cost import Costs
from alloop.decision_files import DecisionFiles
from alloop.errors import CampaignHeldError, InputError
from alloop.failpoint import failpoint
from alloop.process import ProcessIdentity, this_process
from alloop.result_index import Accepted, ResultIndex, accepted, manifest_of
from alloop.state import Durations, State, asked_entries, decision_tasks
from alloop.store import (
    Store,
    Task,
    alive_here,
    attempts,
    failures,
    live_records,
    progress,
    read_json,
    result_problem,
    write_json,
)
from alloop.structure import Record, content_key

if TYPE_CHECKING:  # each costs a tenth of a second to import, and reading a campaign needs none of them
    import numpy as np

    from alloop.config import Param

BEAT_SECONDS = 5.0
FOREIGN_SILENCE_SECONDS = 300.0
_LOOKS = 5
_LOOK_AGAIN_SECONDS = 0.2


class Campaign:
    """A campaign folder: read by every command, written by the one driver that holds it.

    costs: what all attempts took, kept up to date event by event; codes: per level of theory, how many labels each
    version of a code has made; flagged: per label what a person may want to look at in it; glasses: the names of all
    glasses it was ever started with.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.store = Store(self.root)
        self.files = DecisionFiles(self.decisions_folder)
        self.index = ResultIndex(self.run_folder / "results.jsonl")
        self.state = State()
        self.costs = Costs()
        self.codes: dict[str, Counter[str]] = {}
        self.flagged: dict[str, list[str]] = {}
        self.epoch: int | None = None
        self._asked: dict[str, str | None] = {}
        self.glasses: set[str] = set()
        self._failures: dict[str, set[str]] = {}
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
        return self.files.taken(0)

    def load(self) -> State:
        """Fold all decisions and look which results exist and which attempts still run."""
        self.state, self.costs, self.codes, self.flagged = State(), Costs(), {}, {}
        self._asked, self.glasses, self._failures = {}, set(), {}
        with _no_garbage_collection():
            for decision in self.files.read():
                self._fold(decision)
            self._look_at_results()
        return self.state

    def _fold(self, decision: dict[str, Any]) -> None:
        """Fold the next decision in, and note when its tasks were asked for."""
        self.state.apply(decision)
        for entry in (*asked_entries(decision), *decision.get("picks", ())):
            self._asked.setdefault(entry["key"], decision.get("time"))
        if decision["kind"] == "start":
            self.glasses.update(glass["name"] for glass in decision["config"]["glasses"])

    def _look_at_results(self) -> None:
        """See which tasks have a result and which attempts run; manifests that the index knows are not opened."""
        known = self.index.read()
        drives = self.epoch is not None
        root = str(self.store.iterations)
        for key, task in self.state.tasks.items():
            folder = f"{root}/{task.folder}"
            entry = known.get(key)
            if entry is not None and entry.holds(f"{folder}/result", sizes=drives):
                self._settle(task, entry)
                continue
            known.pop(key, None)
            if os.path.isdir(f"{folder}/result"):  # noqa: PTH112
                self._accept_unread(key, task)
            elif os.path.isdir(f"{folder}/attempts"):  # noqa: PTH112
                self.failures(key)
                if key not in self.state.quarantined and any(live_records(Path(folder), self.alive)):
                    self.state.begin(key)
        self.state.recount()
        if drives:
            self.index.tidy(known)
            self.index.flush()

    def alive(self, record: dict[str, Any]) -> bool:
        """Tell whether an attempt still runs: by its process on this host, else by what is last known of its job."""
        if ProcessIdentity.from_json(record).is_local() or not record.get("job"):
            return alive_here(record)
        try:
            return not read_json(self.run_folder / "jobs" / f"{record['job']}.json").get("gone", False)
        except (OSError, ValueError):
            return False

    def _accept_unread(self, key: str, task: Task) -> None:
        """Note a result found on disk; only names and sizes are compared, as all were checked when they landed."""
        if result_problem(self.store.result(task), key, checksums=False) is None:
            self._note(task)
        elif self.epoch is not None:
            self.store.check_result(task)

    def _note(self, task: Task) -> None:
        """Note a result that is there and whole, and have the index know it."""
        result = self.store.result(task)
        manifest = manifest_of(result)
        tried = failures(self.folder(task.key)) if manifest["record"].get("failed_attempts") else []
        entry = accepted(result, manifest, tried)
        self._settle(task, entry)
        if self.epoch is not None:
            self.index.note(task.key, entry)

    def _settle(self, task: Task, entry: Accepted) -> None:
        """Settle a task as done, and count what its result and the failures before it cost."""
        key, record = task.key, entry.record
        pick = self.state.picks.get(key)
        self.state.settle_done(key)
        self.costs.add(task.kind, self.glass_of(task), pick, record)
        if not (pick and pick.get("given")):  # imported labels take no time
            self.state.durations.setdefault(task.kind, Durations()).add(record["seconds"])
        self._count_failures(task, entry.failures)
        notes = record.get("notes") or {}
        if pick is not None and pick.get("level") is not None and "code" in notes:
            self.codes.setdefault(pick["level"], Counter())[notes["code"]] += 1
        if notes.get("flags"):
            self.flagged[key] = list(notes["flags"])

    def check_identity(self, param: Param) -> None:
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
        self._check_levels(param)
        last = self.state.starts[-1]["config"] if self.state.starts else known["config"]
        from alloop.config import parse

        before = parse(last, "the recorded configuration")
        if before.elements != param.elements:
            raise InputError(
                f"elements changed from {before.elements} to {param.elements}; the models' type map is fixed\n"
                "  set it back, or start a new campaign folder"
            )
        self._check_glasses(param)

    def _check_glasses(self, param: Param) -> None:
        """Refuse a glass that came after the bootstrap: nothing could be explored of it."""
        bootstrap = self.state.decisions.get(("bootstrap", -1))
        if bootstrap is None:
            return
        then = [start["config"] for start in self.state.starts if start["number"] < bootstrap["number"]][-1]
        known = {glass["name"] for glass in then["glasses"]}
        if new := [glass.name for glass in param.glasses if glass.name not in known]:
            raise InputError(
                f"glasses: {', '.join(new)} came after the bootstrap, from which all explorations start\n"
                "  take it out; for a campaign with it, begin one in a new folder (alloop init DIR) and give it the "
                "labels of this one: alloop export, then bootstrap.data"
            )

    def _check_levels(self, param: Param) -> None:
        """Refuse a configuration at another level of theory than the labels asked for so far."""
        state = self.state
        if not any(pick["level"] == state.level and not pick["given"] for pick in state.picks.values()):
            return
        found = self.levels_of(param)["foundation" if state.foundation_level else "target"]
        if found is None or found["name"] != state.level:
            raise InputError(
                f"label: the level of theory changed from {state.level} to {found['name'] if found else 'none'}"
                f"{_level_difference(self.level, found)}\n"
                "  labels of two levels cannot train one model; set it back, or have all labels made anew: "
                "alloop relabel"
            )

    def levels_of(self, param: Param) -> dict[str, dict[str, Any] | None]:
        """Return the levels of theory a configuration and its files make, as a start records them."""
        from alloop.labelers import levels

        foundation = levels.foundation_level(param.label.foundation, self.root)
        return {
            "target": levels.target_level(param.label, param.elements, self.root).to_json(),
            "foundation": foundation.to_json() if foundation else None,
        }

    @property
    def level(self) -> dict[str, Any]:
        """The level of theory, name and content, at which labels are asked for now."""
        known = self.state.starts[-1]["levels"]
        found = [level for level in known.values() if level and level["name"] == self.state.level]
        return found[0] if found else {"name": self.state.level, "content": self.state.levels[str(self.state.level)]}

    @property
    def elements(self) -> list[str]:
        """The models' type map, which is fixed for the whole campaign."""
        return list(self.state.starts[-1]["config"]["elements"])

    def result(self, key: str) -> Path:
        """Return the result folder of a finished task."""
        return self.store.result(self.state.tasks[key])

    def summary(self, key: str) -> dict[str, Any]:
        """Return ``summary.json`` of a finished task's result."""
        return read_json(self.result(key) / "summary.json")

    # -------------------------------------------------------------------------------- deciding

    def take(self, param: Param, *, take_over: bool, limit: dict[str, Any]) -> None:
        """Become the campaign's driver, starting the campaign if it is new; CampaignHeldError if it is held."""
        from alloop.labelers import levels

        if not take_over:
            self.refuse_if_held()
        self.decisions_folder.mkdir(parents=True, exist_ok=True)
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self.load()
        self.check_identity(param)
        effective = param.model_dump(mode="json")
        if not self.state.identity:
            self._append("campaign", id=uuid.uuid4().hex, name=param.name, seed=param.seed, config=effective)
        write_json(self.run_folder / "labels.json", levels.run_settings(param.label, param.elements, self.root))
        self._hold(config=effective, limit=limit, levels=self.levels_of(param))

    def take_for_a_moment(self) -> None:
        """Become the driver of a campaign as its last start left it, so that no other can start; errors as `take`."""
        self.refuse_if_held()
        self.load()
        last = self.state.starts[-1]
        self._hold(**{what: last[what] for what in ("config", "limit", "levels")})

    def _hold(self, **start: Any) -> None:
        """Decide a start of this process, and be the one whose heart beats."""
        self._append("start", process=this_process().to_json(), **start)
        self.epoch = self.state.next_number - 1
        self.files.merge(self.epoch)
        for left in ("stop.json", "handed-over"):
            (self.run_folder / left).unlink(missing_ok=True)
        failpoint("take:swept")
        self.beat(force=True)
        self.load()
        if self.state.starts[-1]["number"] != self.epoch:
            raise CampaignHeldError("another driver took the campaign at the same moment; this one changes nothing")

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
        """Return the last heartbeat of a driver, None where there is none; OSError if it cannot be read.

        It is replaced every few seconds, so a host that sees it over NFS may hold a stale handle and looks again.
        """
        for _ in range(_LOOKS - 1):
            try:
                return self._beat()
            except OSError:
                time.sleep(_LOOK_AGAIN_SECONDS)
        return self._beat()

    def _beat(self) -> dict[str, Any] | None:
        try:
            return read_json(self.run_folder / "driver.json")
        except (FileNotFoundError, NotADirectoryError, ValueError):
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
        if self.files.taken(self.state.next_number):
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
            failpoint("release:before")
            (self.run_folder / "driver.json").unlink(missing_ok=True)
            failpoint("release:after")

    def decide(self, kind: str, **content: Any) -> None:
        """Write the next decision and fold it in; CampaignHeldError if another driver took its number."""
        failpoint(f"decide:{kind}:before")
        self._append(kind, **content)
        failpoint(f"decide:{kind}:after")

    def _append(self, kind: str, **content: Any) -> None:
        number = self.state.next_number
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        decision = {"number": number, "kind": kind, "time": now, "epoch": self.epoch} | content
        if not self.files.create(number, decision):
            raise CampaignHeldError(f"another driver took decision {number}; this one ends and changes nothing more")
        self._fold(decision)
        for task in decision_tasks(decision):
            if task.key in self.state.waiting and self.store.is_done(task):
                self._accept_unread(task.key, task)

    # -------------------------------------------------------------------------------- tasks

    def prepare(self, key: str) -> Path:
        """Write a wanted task's folder and return it."""
        task = self.materialise(self.state.tasks[key])
        folders = {name: self.state.tasks[name].folder for name in task.inputs}
        return self.store.prepare(task, self.state.identity["id"], folders, self._asked.get(key))

    def materialise(self, task: Task) -> Task:
        """Return the task with its full spec; a label's is built from the frame it was picked from."""
        if task.kind != "label":
            return task
        from alloop.frames import read_columns, read_structure

        pick = self.state.picks[task.key]
        result, frame = self.result(pick["source"]["task"]), pick["source"]["frame"]
        if pick["given"]:
            content = given_labels(read_columns(result), frame, pick["level"])
        else:
            content = self.state.levels[pick["level"]]
        about = {"glass": pick["trajectory"].split(".")[0], "reason": pick["reason"]}
        made = label_task(task.group, task.name, read_structure(result, frame), content, task.inputs, about)
        if made.key != task.key:
            raise InputError(
                f"label {task.name} was asked for as {task.key}, and its structure and level make {made.key}\n"
                "  the campaign was begun by a version of alloop that named labels otherwise; go on with that one"
            )
        return made

    def folder(self, key: str) -> Path:
        """Return the folder of a wanted task."""
        return self.store.folder(self.state.tasks[key])

    def accept(self, key: str) -> bool:
        """Note a task's result if it is there and whole; a broken one is quarantined, and False returned."""
        task = self.state.tasks[key]
        if not self.store.is_done(task) or not self.store.check_result(task):
            return False
        self._note(task)
        return True

    def failures(self, key: str) -> list[dict[str, Any]]:
        """Return the failure records of a task's attempts, oldest first; the cost of each is counted once."""
        found = failures(self.folder(key))
        self._count_failures(self.state.tasks[key], found)
        return found

    def _count_failures(self, task: Task, found: list[dict[str, Any]]) -> None:
        counted = self._failures.setdefault(task.key, set()) if found else set()
        for failure in found:
            if failure["attempt"] not in counted:
                counted.add(failure["attempt"])
                self.costs.add_failure(task.kind, self.glass_of(task), self.state.picks.get(task.key), failure)

    def counted_failures(self, key: str) -> set[str]:
        """Return the attempts at a task whose failure is counted."""
        return self._failures.get(key, set())

    def glass_of(self, task: Task) -> str | None:
        """Return the glass a task is for, None if it is for all of them or for structures of a person's own."""
        pick = self.state.picks.get(task.key)
        return glass_name(str(pick["trajectory"] if pick else task.name), self.glasses)

    def progress(self) -> dict[str, float]:
        """Return how far running tasks are, from 0 to 1, for those that tell."""
        told = {key: progress(self.folder(key)) for key in sorted(self.state.running)}
        return {key: done for key, done in told.items() if done is not None}

    def attempts_at(self, key: str) -> list[Path]:
        """Return the folders of the attempts at a task that have not been cleared away."""
        return list(attempts(self.store.folder(self.state.tasks[key])))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Leave cyclic garbage alone: looking for it again and again doubles the time in which many objects are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def glass_name(trajectory: str, glasses: Container[str]) -> str | None:
    """Return the glass a trajectory's name begins with, None if it is of none of these glasses."""
    name = trajectory.partition(".")[0]
    return name if name in glasses else None


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


def label_task(
    group: str,
    name: str,
    structure: Record,
    level: dict[str, Any],
    inputs: tuple[str, ...],
    about: dict[str, Any] | None = None,
) -> Task:
    """Return the task that labels a structure; its key is the structure and the level of theory, nothing else."""
    key = label_key(content_key(structure), content_key(level))
    return Task(key, "label", group, name, {"structure": structure} | level, inputs, {}, about or {})


def label_key(structure: str, level: str) -> str:
    """Return the key of a label from those of its structure and of its level of theory's content."""
    return content_key({"kind": "label", "structure": structure, "level": level})


def _level_difference(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    """Return, in brackets, which settings differ between two levels."""
    before, after = flat((old or {}).get("content", {})), flat((new or {}).get("content", {}))
    changed = [
        f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return f" ({'; '.join(changed[:6])})" if changed else ""


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested objects by their dotted path."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        key: leaf for name, part in value.items() for key, leaf in flat(part, f"{prefix}.{name}".lstrip(".")).items()
    }
