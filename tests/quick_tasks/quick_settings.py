"""How the doubles behave: a JSON file named in the environment variable QUICK_TASKS; all in it may be left out.

    {"seed": 1,
     "turns": "FOLDER",
     "real": ["label"],
     "label":    {"seconds": [6, 4], "failing": 0.1, "failing_attempts": 1, "failing_as": "numeric"},
     "train":    {"seconds": 15},
     "explore":  {"seconds": 30, "records": 40, "candidates": [0.5, 0.2, 0.0], "failed": [0.1, 0.0], "lost": 0.05},
     "evaluate": {"force_rmse_eV_A": [0.5, 0.3, 0.1], "candidates": [0.5, 0.2, 0.0], "trust_eV_A": [0.25, 1.0]}}

seconds: how long a task sleeps, a number or [mean, half-width] of a uniform distribution, drawn by the task's own
content, so that a task takes as long whenever it is tried; with `turns` (a folder that can be written to) by its turn
instead: the first label of iteration 3 to begin takes as long in every campaign.
real: kinds of tasks that are no doubles here.
failing: share of the tasks that fail, chosen by their content, in their first `failing_attempts` attempts (all if not
given), with a failure class, or as "crash" (return code 9), "killed" (SIGKILL) or "hang" (no end).
Lists are by the number of the ensemble, the last value goes on: candidates and failed are shares of the records of a
chunk (of the frames an evaluation looks at, also when it ranks a backlog; trust_eV_A are the levels it goes by), lost
the share of chunks given up half-way.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.attempt import Context, TaskError
from alloop.seeds import derived_seed
from alloop.structure import content_key

SLICE_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """What one kind of task is told."""

    kind: str
    values: dict[str, Any]
    seed: int = 0
    turns: Path | None = None
    slept_s: float = 0.0

    def of_ensemble(self, name: str, number: int, default: float) -> float:
        """A value that may change from one ensemble to the next."""
        value = self.values.get(name, default)
        return float(value[min(number, len(value) - 1)] if isinstance(value, list) else value)

    def rng(self, context: Context, *purpose: str) -> np.random.Generator:
        """Random numbers that depend on the task's content and the settings' seed alone."""
        return np.random.default_rng(derived_seed(self.seed, content_key(context.spec), *purpose))

    def seconds(self, context: Context) -> float:
        """How long the task shall take; takes a turn if turns are counted."""
        value = self.values.get("seconds", 0.0)
        if not isinstance(value, list):
            return float(value)
        if self.turns is None:
            rng = self.rng(context, "seconds")
        else:
            rng = turn_rng(self.seed, *_turn(self.turns, self.kind, context))
        return uniform_seconds(rng, *value)


def turn_rng(seed: int, kind: str, number: int, turn: int) -> np.random.Generator:
    """Random numbers of the duration of one turn in an iteration."""
    return np.random.default_rng(derived_seed(seed, "seconds", kind, number, turn))


def uniform_seconds(rng: np.random.Generator, mean: float, half_width: float) -> float:
    return float(rng.uniform(mean - half_width, mean + half_width))


def told() -> dict[str, Any]:
    """The settings of all kinds."""
    file = os.environ.get("QUICK_TASKS")
    return json.loads(Path(file).read_text()) if file else {}


def begin(kind: str, context: Context, *, asleep: bool = True) -> Settings:
    """Sleep as told (unless it is a task that takes no time), fail if told, and return the settings of its kind."""
    values = told()
    turns = Path(values["turns"]) if "turns" in values else None
    settings = Settings(kind, values.get(kind, {}), values.get("seed", 0), turns)
    seconds = settings.seconds(context) if asleep else 0.0
    _sleep(seconds, context)
    _fail_if_told(settings, context)
    return replace(settings, slept_s=round(seconds, 3))


def iteration(context: Context) -> int:
    """The iteration in whose folder the task lives; -1 for the bootstrap, production and the like."""
    found = re.search(r"/iter\.(\d+)/", str(context.work))
    return int(found.group(1)) if found else -1


def _turn(turns: Path, kind: str, context: Context) -> tuple[str, int, int]:
    """The kind, iteration and turn of a task: how many of them began before, counted by files that are made once."""
    number, turn = iteration(context), 0
    while True:
        try:
            (turns / f"{kind}.{number}.{turn}").touch(exist_ok=False)
        except FileExistsError:
            turn += 1
        else:
            return kind, number, turn


def _sleep(seconds: float, context: Context) -> None:
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0:
        time.sleep(min(left, SLICE_SECONDS))
        if left > SLICE_SECONDS:
            context.progress(1 - left / seconds, "asleep")


def _fail_if_told(settings: Settings, context: Context) -> None:
    chosen = settings.rng(context, "failing").uniform() < settings.values.get("failing", 0.0)
    if not chosen or len(context.earlier) >= settings.values.get("failing_attempts", np.inf):
        return
    how = settings.values.get("failing_as", "numeric")
    if how == "crash":
        os._exit(9)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang":
        time.sleep(SLICE_SECONDS)
    raise TaskError("it was told to fail", how)
