"""A small campaign driven in one process: the true driver, policy, deciders and attempts; only the physics is a double.

Its story has all that goes wrong in a campaign: a label that fails once, one that fails for good, one that a person
has tried again, one that a person takes out of training, a result that is corrupted on the disk.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from rich.console import Console

QUICK = Path(__file__).resolve().parents[1] / "quick_tasks"
sys.path.insert(0, str(QUICK))

from quick_dynamics import QuickWatch  # noqa: E402
from quick_settings import iteration  # noqa: E402

from alloop import attempt, config, decision_files, failpoint, loop, process, requests, store  # noqa: E402
from alloop.attempt import Context, TaskError  # noqa: E402
from alloop.campaign import Campaign  # noqa: E402
from alloop.errors import DONE, NOT_CONVERGED, InputError  # noqa: E402
from alloop.pool_params import pool_of, pool_slots  # noqa: E402
from alloop.pools import Ended, Slot  # noqa: E402
from alloop.process import ProcessIdentity  # noqa: E402
from alloop.report.progress import Watcher  # noqa: E402
from alloop.tasks import dynamics  # noqa: E402

PARAM: dict[str, Any] = {
    "name": "crash",
    "seed": 5,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [21]}],
    "bootstrap": {"trajectories": 2, "snapshots": 3, "strained_copies": 0, "held_out_fraction": 0.5},
    "train": {"models": 2, "steps": 10, "warm_steps": 10},
    "explore": {"temperatures_K": [300, 1000], "ramps": [], "chunk_ps": 0.1, "chunks": 2, "trajectories": 1},
    "select": {"max_labels": 4, "audit": 1, "min_separation_ps": 0.01},
    "label": {"labeler": "teter-rehearsal", "per_process": 2},
    "stop": {"max_iterations": 1},
    "quench": {"melt_ps": 0.1, "cooling_rate_K_ps": 10000, "final_ps": 0.1, "chunk_ps": 0.2, "when": "always"},
    "pools": {"local": {"slots": 2}},
    "budget": {"free_disk_GB": 0.0},
}
STREAMING = PARAM | {
    "train": PARAM["train"] | {"after_labels": 1},
    "explore": PARAM["explore"] | {"chunks": 4, "max_lag": 0},
    "select": PARAM["select"] | {"max_labels": 8},
    "stop": {"max_iterations": 2},
    "pools": {"local": {"slots": 2}, "labels": {"tasks": ["label"], "slots": 1}},
}
"""The same with ensembles that overtake the exploration of the ones before."""
LEVELS = PARAM | {
    "bootstrap": PARAM["bootstrap"] | {"snapshots": 4},
    "explore": PARAM["explore"] | {"chunks": 1},
    "label": PARAM["label"] | {"foundation": {"labeler": "shik-rehearsal", "iterations": 1, "promote": 12}},
    "stop": {
        "max_iterations": 3,
        "accurate_fraction": 0.01,
        "force_rmse_eV_A": 9.0,
        "probe": PARAM["quench"] | {"replicas": 2, "iterations": 2},
        "relax": {},
    },
    "quench": {
        "protocol": "urata2022",
        "runs": ["10Kps"],
        "chunk_ps": 1000,
        "final_training": {"steps": 10},
        "relax": {},
    },
}
"""One on a foundation's labels, then its own; it converges on all criteria, seeks where its glass melts, quenches it,
learns what it met there beyond trust, converges and quenches again, relaxes the glass, and is then relabelled."""
LEVELS["stop"]["probe"].pop("when")
RELABELLED = LEVELS | {"label": PARAM["label"] | {"labeler": "ase.calculators.emt:EMT"}}
"""What a person makes of it in the end."""
PARAMS = {"barrier": PARAM, "streaming": STREAMING, "levels": LEVELS}
"""The campaign of each order; `levels` is in the classical order, too."""
SETTINGS = {
    "explore": {"records": 10, "candidates": [0.5, 0.4]},
    "quench": {"records": 4, "candidates": 0.0, "failed": [1.0, 1.0, 0.0]},
    "evaluate": {"force_rmse_eV_A": 0.5},
}

FAILS_ONCE, FAILS_FOR_GOOD, FAILS_UNTIL_ASKED, EXCLUDED, CORRUPTED = (
    f"LBS-20-60-20.n21.t{trajectory:02d}.s{frame:04d}" for trajectory, frame in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
)
"""Names of bootstrap labels, and what becomes of them."""


# ---------------------------------------------------------------------------------------- doubles of the tasks

_gate: Callable[[], None] | None = None
"""What an attempt passes as its task begins, in a process that shall wait there."""


def _with_story(kind: str) -> SimpleNamespace:
    quick = importlib.import_module(f"quick_{kind}")

    def run(context: Context) -> None:
        if _gate is not None:
            _gate()
        if kind == "label" and iteration(context) < 0:
            _fail_as_told(context)
        quick.run(context)

    return SimpleNamespace(run=run)


def _fail_as_told(context: Context) -> None:
    limits = {FAILS_ONCE: 1, FAILS_UNTIL_ASKED: 3, FAILS_FOR_GOOD: 99}
    records = [work.parent / "failed.json" for work in context.earlier]
    own = sum(record.exists() and store.read_json(record)["class"] == "numeric" for record in records)
    if own < limits.get(context.name, 0):
        raise TaskError("it was told to fail")


def put_doubles_in_place(settings_file: Path) -> None:
    """Have attempts in this process run the doubles; for a process of its own, as nothing puts the true ones back."""
    settings_file.write_text(json.dumps(SETTINGS))
    os.environ["QUICK_TASKS"] = str(settings_file)
    decision_files.BLOCK = 8  # so that a short campaign has blocks
    dynamics.Watch = QuickWatch  # type: ignore[assignment,misc]
    for kind in list(attempt.MODULES):
        attempt.MODULES[kind] = f"crash_{kind}"
        sys.modules[f"crash_{kind}"] = _with_story(kind)  # type: ignore[assignment]


# ---------------------------------------------------------------------------------------- where attempts run


@dataclass
class Batch:
    """Tasks that share a process; process: once it has one of its own, with the pipe that lets it go on."""

    slot: Slot
    keys: tuple[str, ...]
    folders: list[Path]
    pid: int = 0
    pipe: int = -1


@dataclass
class InlinePool:
    """All pools of a campaign; batches run one after the other, in order, when the driver waits for an end.

    mode: "inline" in the driver's process; "forked" in a child, whose commit points count on; "apart" in a child that
    begins at once, stops as its task begins, and goes on when it is its turn or, after a while, when the driver dies;
    "elsewhere" in a child of a job on a node that is lost if the child is stopped, together with the driver.
    """

    campaign: Campaign
    param: config.Param
    mode: str = "inline"
    orphan_s: float = 0.0
    each_wait: Callable[[], None] = lambda: None
    batches: deque[Batch] = field(default_factory=deque)
    adopted: dict[ProcessIdentity, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def free_slots(self) -> list[Slot]:
        busy = {batch.slot for batch in self.batches}
        free = []
        for name, pool in self.param.pools.items():
            slots = [Slot(name, str(number)) for number in range(pool_slots(pool))]
            adopted = sum(pool_name == name for pool_name, _ in self.adopted.values())
            free += [slot for slot in slots if slot not in busy][adopted:]
        return free

    def demand(self, wanted: dict[str, Any]) -> None:
        pass

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        batch = Batch(slot, keys, folders)
        if self.mode == "apart":
            self._start_apart(batch)
        self.batches.append(batch)

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        owned = ProcessIdentity.from_json(owner)
        _, before = self.adopted.get(owned, ("", ()))
        kind = self.campaign.state.tasks[keys[0]].kind
        self.adopted[owned] = pool_of(self.param.pools, kind), before + keys

    def alive(self, owner: dict[str, Any]) -> bool:
        return ProcessIdentity.from_json(owner).alive()

    def wait(self, seconds: float) -> list[Ended]:
        person_asks(self.campaign)
        self.each_wait()
        for owned in list(self.adopted):
            if not owned.alive():
                return [Ended(self.adopted.pop(owned)[1], None)]
        if not self.batches:
            time.sleep(0.01)
            return []
        batch = self.batches.popleft()
        run = {"inline": self._inline, "forked": self._forked, "apart": self._apart, "elsewhere": self._forked}
        code = run[self.mode](batch)
        self._corrupt(batch)
        return [Ended(batch.keys, code)]

    def end(self, owners: Any) -> None:
        raise NotImplementedError

    def troubles(self) -> list[str]:
        return []

    def close(self, *, cancel_jobs: bool) -> None:
        pass

    def _inline(self, batch: Batch) -> int:
        return attempt.run_tasks(batch.folders, self.campaign.epoch)

    def _forked(self, batch: Batch) -> int:
        """Run it in a child; the points it passes count, and if it dies there, that was the one death of this run."""
        told, tell = os.pipe()
        before = len(failpoint.armed.points) if failpoint.armed else 0

        def work() -> int:
            if self.mode == "elsewhere":
                process.platform = SimpleNamespace(node=lambda: "elsewhere")  # type: ignore[assignment]
                os.environ["ALLOOP_JOB"] = "lost"
            try:
                code = self._inline(batch)
            except OSError as error:
                if error.errno not in store.FULL:
                    raise
                return store.NO_SPACE
            if failpoint.armed:
                os.write(tell, " ".join(failpoint.armed.points[before:]).encode())
            return code

        pid = fork(work)
        code = wait_for(pid, os.WUNTRACED)
        if code is None:
            (self.campaign.run_folder / "stopped").write_text(str(pid))
            (self.campaign.run_folder / "jobs").mkdir()
            (self.campaign.run_folder / "jobs" / "lost.json").write_text('{"gone": true}')
            os.kill(os.getpid(), signal.SIGKILL)
        assert code is not None
        os.close(tell)
        with os.fdopen(told) as stream:
            passed = stream.read().split()
        if failpoint.armed is not None:
            failpoint.armed.points += [f"attempt {name}" for name in passed]
            if code == -signal.SIGKILL:
                failpoint.armed = None
        return code

    def _start_apart(self, batch: Batch) -> None:
        others = [other.pipe for other in self.batches]
        gate, batch.pipe = os.pipe()
        ready, tell = os.pipe()

        def work() -> int:
            for end in (*others, batch.pipe, ready):
                os.close(end)
            failpoint.armed = None
            at_the_gate(gate, tell, self.orphan_s)
            return self._inline(batch)

        batch.pid = fork(work)
        os.close(gate)
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)

    def _apart(self, batch: Batch) -> int:
        with contextlib.suppress(BrokenPipeError):  # an orphan is at its task or has done it: it ended before the gate
            os.write(batch.pipe, b"g")
        os.close(batch.pipe)
        code = wait_for(batch.pid)
        assert code is not None
        return code

    def _corrupt(self, batch: Batch) -> None:
        """Damage one result, once, after it was published and before the driver looks at it."""
        quarantine = self.campaign.store.iterations / "quarantine"
        for folder in batch.folders:
            file = folder / "result" / "label.json"
            if folder.name.startswith(CORRUPTED) and file.exists() and not any(quarantine.glob(f"{folder.name}.*")):
                os.truncate(file, 10)


def at_the_gate(gate: int, tell: int, orphan_s: float) -> None:
    """Have the first task of this process wait until it may go on; as an orphan, it goes on after a while."""

    def wait() -> None:
        global _gate
        _gate = None
        os.close(tell)
        if not os.read(gate, 1):
            time.sleep(orphan_s)

    global _gate
    _gate = wait


def fork(work: Callable[[], int]) -> int:
    """Start a child that does some work and ends with the code that returns; 70 if it raises, and says what."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait_for(pid: int, options: int = 0) -> int | None:
    """The return code of a child; None if it has stopped and that was asked for."""
    status = os.waitpid(pid, options)[1]
    return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


# ---------------------------------------------------------------------------------------- persons and drivers


def person_asks(campaign: Campaign) -> None:
    """While iteration 0 explores: a quarantined label again, another one out of training; each is asked for once."""
    if not campaign.state.decided("explore", 0):
        return
    armed, failpoint.armed = failpoint.armed, None  # another process
    with contextlib.suppress(OSError):  # on a full disk they try again
        _ask(campaign)
    failpoint.armed = armed


def _ask(campaign: Campaign) -> None:
    state = campaign.state
    keys = {pick["name"]: key for key, pick in state.picks.items()}
    waiting = {kind for _, kind, _ in requests.waiting(campaign)}
    if not state.retried and "retry" not in waiting:
        requests.leave(campaign, "retry", keys=[keys[FAILS_UNTIL_ASKED]])
    if not state.excluded and "exclude" not in waiting:
        requests.leave(campaign, "exclude", keys=[keys[EXCLUDED]], reason="it looks odd", undo=False)


def relabel(root: Path, param: config.Param) -> None:
    """`alloop relabel` of a person who has named another labeler, and who asks again if that was not heard."""
    with contextlib.suppress(InputError):  # the labels are of that level already
        requests.relabel(Campaign(root), param, really=True)


def drive(
    root: Path,
    *,
    barrier: bool,
    mode: str = "inline",
    orphan_s: float = 0.0,
    output: TextIO | None = None,
    each_wait: Callable[[], None] = lambda: None,
    take_over: bool = False,
) -> tuple[int, Campaign]:
    """`alloop run` in this process; return its exit code and the campaign as the driver left it.

    A campaign that began with a foundation is relabelled at its end, and driven on.
    """
    param = config.load(root / "param.json")
    if param.label.labeler == RELABELLED["label"]["labeler"]:
        relabel(root, param)
    campaign = Campaign(root)
    limits = loop.limits(param, param.stop.max_iterations, barrier=barrier)
    if not barrier:
        limits = replace(limits, batch=limits.batch | {"explore": 1, "label": 1})  # so that chunks and labels overlap
    campaign.take(param, take_over=take_over, limit={"max_iterations": limits.max_iterations, "slots": 2})
    loop.open_fleet = lambda *_: InlinePool(campaign, param, mode, orphan_s, each_wait)  # type: ignore[assignment]
    watcher = Watcher(Console(file=output or io.StringIO()))
    code = loop.run(campaign, param, limits, watcher).code
    if param.label.foundation is None or code not in (DONE, NOT_CONVERGED):
        return code, campaign
    store.write_json(root / "param.json", RELABELLED)
    return drive(root, barrier=barrier, mode=mode, orphan_s=orphan_s, output=output, each_wait=each_wait)
