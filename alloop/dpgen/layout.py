"""The parts of a DP-GEN campaign folder, and the names they have on disk (``dpgen run`` 0.10 to 0.14).

Names and formats are those of DP-GEN's documentation (``doc/run/overview-of-the-run-process.md``) and of folders that
version 0.14 writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "record.dpgen"
TRAIN, EXPLORE, LABEL = "00.train", "01.model_devi", "02.fp"
STAGES = (
    "make_train",
    "run_train",
    "post_train",
    "make_model_devi",
    "run_model_devi",
    "post_model_devi",
    "make_fp",
    "run_fp",
    "post_fp",
)
"""What the second number of a line of ``record.dpgen`` means; a line is written when its stage is complete."""
TRAINED, LABELLED = STAGES.index("post_train"), STAGES.index("post_fp")
LISTS = {"candidate": "candidate", "accurate": "rest_accurate", "failed": "rest_failed"}
"""Trust class -> first word of its list in ``02.fp``."""


def iteration_name(number: int) -> str:
    """Return the folder of an iteration."""
    return f"iter.{number:06d}"


def list_name(trust_class: str, system: int) -> str:
    """Return the file in ``02.fp`` that lists the frames of one class in one system."""
    return f"{LISTS[trust_class]}.shuffled.{system:03d}.out"


@dataclass(frozen=True)
class FrameName:
    """A frame as the lists name it: the folder of its MD task, its MD step, and the atom of a cluster, if any."""

    task: str
    step: int
    atom: int | None = None

    def line(self) -> str:
        """Return the line of a list, without its end."""
        return f"{self.task} {self.step}" + ("" if self.atom is None else f" {self.atom}")


@dataclass(frozen=True)
class DataSystem:
    """One labelled DeePMD system (``deepmd/npy``).

    original: its place, from the DP-GEN folder or, of initial data, from ``init_data_prefix``; iteration: -1 for
    initial data; system: index of the entry of ``init_data_sys`` or ``sys_configs``; problem: why alloop cannot
    train on it, None if it can.
    """

    folder: Path
    original: str
    iteration: int
    system: int
    symbols: tuple[str, ...]
    frames: int
    problem: str | None = None

    @property
    def formula(self) -> str:
        """Return the formula, elements in order of first appearance."""
        return "".join(f"{symbol}{count}" for symbol, count in Counter(self.symbols).items())


@dataclass(frozen=True)
class Selection:
    """The lists of one system in one iteration.

    candidates: in the order of the file; accurate, failed: how many frames; labelled: the candidates that were.
    """

    system: int
    candidates: tuple[FrameName, ...]
    accurate: int
    failed: int
    labelled: tuple[FrameName, ...]

    def counts(self) -> dict[str, int]:
        """Return how many frames were accurate, candidates, failed, and labelled."""
        return {
            "candidate": len(self.candidates),
            "accurate": self.accurate,
            "failed": self.failed,
            "labelled": len(self.labelled),
        }


@dataclass(frozen=True)
class Model:
    """One trained model; checkpoint: what ``dp train --init-model`` takes. Each is None if it is not there."""

    folder: Path
    frozen: Path | None
    checkpoint: Path | None


@dataclass(frozen=True)
class Iteration:
    """One iteration; stage: the last one complete, -1 for none; tasks: folders of labelling runs in ``02.fp``."""

    number: int
    stage: int
    job: dict[str, Any] | None
    models: tuple[Model, ...]
    data: tuple[DataSystem, ...]
    selections: tuple[Selection, ...]
    tasks: int


@dataclass(frozen=True)
class DpgenFolder:
    """A DP-GEN campaign: configuration as written, progress, labelled data, lists and models.

    record: (iteration, stage) of every line; start_models: those that iteration 0 starts from; structures: per entry
    of ``sys_configs`` the files its globs match; remarks: (what, why) of what could not be read or used.
    """

    root: Path
    param: dict[str, Any]
    machine: dict[str, Any]
    record: tuple[tuple[int, int], ...]
    iterations: tuple[Iteration, ...]
    start_models: tuple[Model, ...]
    init_data: tuple[DataSystem, ...]
    structures: tuple[tuple[Path, ...], ...]
    remarks: tuple[tuple[str, str], ...]

    @property
    def labelled_iterations(self) -> int:
        """Return how many iterations have been labelled to the end, or hold labels all the same."""
        return max((i.number + 1 for i in self.iterations if i.data or i.stage >= LABELLED), default=0)

    @property
    def data(self) -> tuple[DataSystem, ...]:
        """Return all labelled data: the initial ones and those of every iteration."""
        return self.init_data + tuple(system for iteration in self.iterations for system in iteration.data)

    @property
    def last_ensemble(self) -> Iteration | None:
        """Return the last iteration whose training is complete, if there is one."""
        trained = [i for i in self.iterations if i.stage >= TRAINED and i.models]
        return trained[-1] if trained else None
