"""A real campaign in a subprocess: start it, watch its attempts, kill it in every way, read what it left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from alloop.campaign import Campaign
from alloop.process import ProcessIdentity
from alloop.store import attempts

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 7,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}],
    "bootstrap": {"trajectories": 3, "melt_ps": 2.0, "quench_ps": 1.5, "snapshots": 5, "strained_copies": 1},
    "train": {
        "models": 2,
        "cutoff_A": 4.0,
        "neuron": [6, 12],
        "axis_neuron": 4,
        "fitting_neuron": [24, 24],
        "steps": 400,
        "warm_steps": 200,
        "learning_rate": 0.01,
        "warm_learning_rate": 0.005,
        "final_learning_rate": 0.001,
        "save_every": 100,
        "resume": "scratch",
    },
    "explore": {
        "temperatures_K": [300],
        "ramps": [{"from_K": 300, "to_K": 900}],
        "trajectories": 1,
        "chunks": 2,
        "chunk_ps": 0.2,
        "deviation_every": 10,
    },
    "select": {
        "trust_low_eV_A": 0.4,
        "trust_high_eV_A": 15.0,
        "max_labels": 8,
        "audit": 2,
        "min_separation_ps": 0.02,
        "held_out_fraction": 0.3,
    },
    "label": {"labeler": "slow_teter:SlowTeter", "per_process": 4},
    "stop": {"max_iterations": 2},
    "quench": {
        "when": "always",
        "melt_temperature_K": 500,
        "melt_ps": 0.4,
        "cooling_rate_K_ps": 500,
        "final_ps": 0.4,
        "chunk_ps": 0.5,
        "frame_every_ps": 0.1,
        "deviation_every": 10,
    },
    "pools": {"local": {"slots": 2}},
}
SHORT: dict[str, Any] = {"stop": {"max_iterations": 1}}
"""What makes it end an iteration earlier; up to there it does the same."""
EARLY: dict[str, Any] = {
    "bootstrap": TINY["bootstrap"] | {"trajectories": 2, "snapshots": 2},
    "train": TINY["train"] | {"steps": 100},
}
"""What brings it to its first training sooner."""


def environment(**extra: str) -> dict[str, str]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": ":".join(filter(None, paths))} | extra


def write_param(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "param.json").write_text(json.dumps(TINY | changes))
    return folder


def alloop(folder: Path, *arguments: str, timeout: float = 600, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alloop", *arguments, "-C", str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**extra), check=False
    )


class Driver:
    """One `alloop run` process."""

    def __init__(self, folder: Path, *arguments: str, **extra: str) -> None:
        self.folder = folder
        self.log = folder / "driver.log"
        command = [sys.executable, "-m", "alloop", "run", *arguments, "-C", str(folder)]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                env=environment(**extra),
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """Driver, dask processes, and attempts: the ones below it and any this campaign's folder names."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            found = [root, *root.children(recursive=True)]
        for _, _, owner in live_attempts(self.folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                attempt = psutil.Process(owner.pid)
                found += [attempt, *attempt.children(recursive=True)]
        return found

    def kill(self, *, everything: bool) -> None:
        """SIGKILL the driver alone, or with everything below it."""
        victims = self.family() if everything else [psutil.Process(self.process.pid)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        self.process.wait(timeout=30)
        if everything:
            psutil.wait_procs(victims, timeout=30)

    def wait(self, timeout: float) -> int:
        return self.process.wait(timeout=timeout)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def driver(folder: Path, *arguments: str, **extra: str) -> Iterator[Driver]:
    """A driver that leaves nothing running behind."""
    started = Driver(folder, *arguments, **extra)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started.process.pid, signal.SIGCONT)
        if started.process.poll() is None or live_attempts(folder):
            started.kill(everything=True)


def live_attempts(folder: Path, kind: str | None = None) -> list[tuple[str, Path, ProcessIdentity]]:
    """Kind, attempt folder and process of every attempt that runs now and has no result yet."""
    found = []
    for path, folders, _ in os.walk(folder / "iterations"):  # a glob stumbles over attempts that come and go
        task_folder = Path(path)
        if "attempts" not in folders:
            continue
        folders.clear()
        for attempt in attempts(task_folder):
            with contextlib.suppress(OSError, ValueError, KeyError):
                owner = ProcessIdentity.from_json(json.loads((attempt / "attempt.json").read_text()))
                if (task_folder / "result").exists() or not owner.alive():
                    continue
                found_kind = json.loads((task_folder / "task.json").read_text())["kind"]
                if kind in (None, found_kind):
                    found.append((found_kind, attempt, owner))
    return found


def finished_tasks(folder: Path) -> int:
    """How many results there are."""
    return sum("result" in folders for _, folders, _ in os.walk(folder / "iterations"))


@dataclass(frozen=True)
class Meeting:
    """A live attempt met at a moment of its life."""

    kind: str
    task: str
    attempt: str
    seconds_in: float
    typical_seconds: float


def meet_attempt(started: Driver, kind: str, typical_seconds: float, timeout: float = 240) -> Meeting:
    """Wait until an attempt of a kind is at half its typical time and still alive.

    One that has ended by then shows that the machine is quicker now: the next is met earlier.
    """
    deadline = time.monotonic() + timeout
    passed: set[Path] = set()
    while time.monotonic() < deadline:
        assert started.process.poll() is None, f"the driver ended before a {kind} attempt was met:\n{started.text()}"
        for _, attempt, owner in live_attempts(started.folder, kind):
            if attempt in passed:
                continue
            passed.add(attempt)
            begun = datetime.fromisoformat(json.loads((attempt / "attempt.json").read_text())["started"])
            time.sleep(max(0.0, typical_seconds / 2 - (datetime.now(UTC) - begun).total_seconds()))
            if owner.alive() and not (attempt.parents[1] / "result").exists():
                seconds_in = (datetime.now(UTC) - begun).total_seconds()
                return Meeting(kind, attempt.parents[1].name, attempt.name, seconds_in, typical_seconds)
            typical_seconds /= 2
        time.sleep(0.05)
    raise AssertionError(f"no {kind} attempt met in {timeout} s:\n{started.text()}")


@dataclass(frozen=True)
class Outcome:
    """What a campaign left on disk: finished tasks by kind and group, mean seconds by kind, and roles by iteration."""

    keys: dict[tuple[str, str], set[str]]
    seconds: dict[str, float]
    label_roles: dict[int, dict[str, str]]

    def before_production(self, iteration: int) -> tuple[Any, ...]:
        """What led to the ensemble of an iteration."""
        groups = ["bootstrap/", *(f"iter.{number:06d}/" for number in range(iteration)), f"iter.{iteration:06d}/train"]
        keys = {about: keys for about, keys in self.keys.items() if about[1].startswith(tuple(groups))}
        return keys, {number: roles for number, roles in self.label_roles.items() if number < iteration}


def outcome(folder: Path) -> Outcome:
    campaign = Campaign(folder)
    state = campaign.load()
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    times: dict[str, list[float]] = defaultdict(list)
    for key in state.done:
        task = state.tasks[key]
        keys[task.kind, task.group].add(key)
        times[task.kind].append(manifest(campaign, key)["record"]["seconds"])
    roles: dict[int, dict[str, str]] = defaultdict(dict)
    for key, pick in state.picks.items():
        roles[pick["iteration"]][key] = pick["role"]
    return Outcome(dict(keys), {kind: sum(own) / len(own) for kind, own in times.items()}, dict(roles))


def manifest(campaign: Campaign, key: str) -> dict[str, Any]:
    return json.loads((campaign.result(key) / "MANIFEST.json").read_text())


def assert_nothing_ran_twice(folder: Path) -> None:
    """No attempt at a task began after the task had its result, and no result was published in vain."""
    campaign = Campaign(folder)
    campaign.load()
    for key in campaign.state.done:
        record = manifest(campaign, key)["record"]
        for attempt in campaign.attempts_at(key):
            begun = json.loads((attempt / "attempt.json").read_text())["started"]
            assert begun <= record["ended"], f"{attempt} began after the result was there"
            if (attempt / "failed.json").exists():
                assert json.loads((attempt / "failed.json").read_text())["class"] in ("killed", "interrupted"), attempt


def assert_counts_add_up(folder: Path) -> dict[str, Any]:
    status = json.loads(alloop(folder, "status", "--json").stdout)
    labels = status["labels"]
    assert labels["done"] == labels["training"] + labels["held_out"] + labels["excluded"]
    asked = status["tasks"]["label"]
    assert sum(asked.values()) == labels["done"] + labels["in_flight"] + labels["waiting"] + labels["quarantined"]
    return status
