"""Run one task, or several cheap ones of one kind: ``python -m alloop.attempt [--epoch N] DIR...``.

Needs neither dask nor the driver: it reads ``task.json``, works in a private attempt folder and publishes each
result as it ends. It goes on when the driver dies, and takes up no further task once another driver holds the campaign.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from alloop import __version__
from alloop.process import this_process
from alloop.store import (
    FULL,
    MANIFEST,
    NO_SPACE,
    Attempt,
    attempts,
    begin_attempt,
    drop_scratch,
    fail,
    live_attempts,
    publish,
    read_json,
    write_json,
)

LAST_SECONDS = 120.0
"""So near the end of a batch job, SIGTERM comes from its walltime."""

MODULES = {
    "bootstrap": "alloop.tasks.bootstrap",
    "label": "alloop.tasks.label",
    "train": "alloop.tasks.train",
    "explore": "alloop.tasks.explore",
    "evaluate": "alloop.tasks.evaluate",
    "quench": "alloop.tasks.quench",
    "relax": "alloop.tasks.relax",
}


class TaskError(Exception):
    """A task failed for a known reason; `kind` is its failure class, `final` that trying again is in vain."""

    def __init__(self, message: str, kind: str = "numeric", *, final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


class EndedFromOutside(BaseException):
    """SIGTERM has come; no task may take it for an error of its own."""


@dataclass(frozen=True)
class Context:
    """What a task's ``run(context)`` works with.

    spec: the task's JSON; work: a private scratch folder; out: the folder that becomes the result;
    earlier: scratch folders of earlier attempts that have ended, newest first; about: what the task may know but its
    result does not depend on; label_settings: the file that says how labels of a code are run now; notes: what the
    task wants recorded in its manifest, where it is read without opening the result.
    """

    spec: dict[str, Any]
    name: str
    work: Path
    out: Path
    earlier: list[Path]
    inputs: dict[str, Path]
    files: dict[str, Path]
    about: dict[str, Any] = field(default_factory=dict)
    label_settings: Path = Path()
    notes: dict[str, Any] = field(default_factory=dict)

    def result_of(self, key: str) -> Path:
        """Return the result folder of an input task."""
        return self.inputs[key] / "result"

    def progress(self, done: float, note: str = "") -> None:
        """Tell whoever watches how far the task is, from 0 to 1."""
        with contextlib.suppress(OSError):
            write_json(self.work.parent / "progress.json", {"done": round(done, 4), "note": note})


def run_tasks(folders: list[Path], epoch: int | None, settings: Path | None = None) -> int:
    """Run the tasks one after the other; return 0 if none failed.

    A task that reads the result of one that just failed here is left for the next time: only once its input is
    given up for good (and then no part of a batch) may it find out that there is none.
    """
    worst = 0
    failed: set[str] = set()
    for folder in folders:
        if (folder / "result").is_dir():
            continue
        task = read_json(folder / "task.json")
        if failed.intersection(task["inputs"]):
            failed.add(task["key"])
            continue
        attempt = begin_attempt(folder, _waited_s(folder, task))
        if not _may_go_on(attempt, epoch):
            shutil.rmtree(attempt.folder)
            break
        if (folder / "result").is_dir():  # published between the two looks
            shutil.rmtree(attempt.folder)
            continue
        if not _run_one(attempt, task, settings):
            failed.add(task["key"])
            worst = 1
    return worst


_INPUTS_LOOKED_AT = 16


def _waited_s(task_folder: Path, task: dict[str, Any]) -> float | None:
    """Return how long a task has waited for its first attempt; None for a further one, or if nobody knows.

    The wait begins with the decision, or with the end of the last of its inputs. Tasks of many inputs are decided
    after those have ended.
    """
    if task.get("asked") is None or next(attempts(task_folder), None) is not None:
        return None
    root = task_folder.parents[_depth(task_folder)]
    ready = [datetime.fromisoformat(task["asked"]).timestamp()]
    for path in task["inputs"].values() if len(task["inputs"]) <= _INPUTS_LOOKED_AT else ():
        with contextlib.suppress(OSError):
            ready.append((root / path / "result").stat().st_mtime)
    return round(max(0.0, time.time() - max(ready)), 3)


def _may_go_on(attempt: Attempt, epoch: int | None) -> bool:
    """Tell whether this process may work on the task: no new driver, no stop asked for, and nobody else at it.

    epoch: number of the driver that asks for the work; drivers and their stopping do not matter to work without one.

    The attempt folder exists already, so a driver that takes over now either sees it or is seen here.
    """
    run_folder = attempt.task_folder.parents[_depth(attempt.task_folder)] / "run"
    if epoch is not None:
        if (run_folder / "stop.json").exists():
            return False
        with contextlib.suppress(OSError, ValueError):
            if read_json(run_folder / "driver.json").get("epoch") not in (None, epoch):
                return False
    return all(owner == this_process() for owner in live_attempts(attempt.task_folder))


def _depth(task_folder: Path) -> int:
    names = [parent.name for parent in task_folder.parents]
    return names.index("iterations")


def _run_one(attempt: Attempt, task: dict[str, Any], settings: Path | None) -> bool:
    root = attempt.task_folder.parents[_depth(attempt.task_folder)]
    work = attempt.folder / "work"
    work.mkdir()
    earlier = [folder for folder in attempts(attempt.task_folder) if folder != attempt.folder]
    earlier.sort(key=lambda folder: (folder / "attempt.json").stat().st_mtime_ns, reverse=True)
    context = Context(
        task["spec"],
        task["name"],
        work,
        attempt.out,
        [folder / "work" for folder in earlier],
        {key: root / path for key, path in task["inputs"].items()},
        {name: root.parent / path for name, path in task["files"].items()},
        task.get("about", {}),
        root / "run" / "labels.json" if settings is None else settings,
    )
    began = time.monotonic()
    begun = read_json(attempt.folder / "attempt.json")
    log = attempt.folder / "log.txt"
    try:
        with _output_to(log):
            importlib.import_module(MODULES[task["kind"]]).run(context)
    except EndedFromOutside:
        _record_the_end(attempt.folder)
        raise
    except Exception as error:
        kind = error.kind if isinstance(error, TaskError) else _failure_class(error, context)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        final = isinstance(error, TaskError) and error.final
        message = f"{type(error).__name__}: {error}"
        fail(attempt.folder, kind, message, f"{traceback.format_exc()}\n{tail}", final=final)
        return False
    record = begun | {
        "seconds": round(time.monotonic() - began, 3),
        "alloop": __version__,
        "failed_attempts": sum((folder / "failed.json").exists() for folder in earlier),
        "notes": context.notes,
    }
    if not _publish_patiently(attempt, task["key"], record):
        fail(attempt.folder, "late", "another attempt had published the result")
    drop_scratch(attempt.task_folder)
    return True


SPACE_SECONDS = 10.0
_SPACE_LOOKS = 360


def _publish_patiently(attempt: Attempt, key: str, record: dict[str, Any]) -> bool:
    """Publish finished work as `publish` does; on a full disk wait for space, up to an hour, as it is paid for."""
    for _ in range(_SPACE_LOOKS):
        try:
            return publish(attempt, key, record)
        except OSError as error:
            if error.errno not in FULL:
                raise
        time.sleep(SPACE_SECONDS)
    return publish(attempt, key, record)


def _record_the_end(folder: Path) -> None:
    """Say in the attempt's folder that the process was told to end: by its job's walltime, or by somebody."""
    remaining_s = float(os.environ.get("ALLOOP_JOB_END", "inf")) - time.time()
    run_folder = folder.parents[_depth(folder)] / "run"
    if remaining_s < LAST_SECONDS:
        fail(folder, "walltime", "the walltime of its batch job ended")
    elif (run_folder / "stop.json").exists():
        fail(folder, "interrupted", "a person had it ended: alloop stop --now, or Ctrl-C twice")
    elif "ALLOOP_JOB_END" not in os.environ and "SLURM_JOB_ID" in os.environ:
        fail(folder, "interrupted", "the job of its driver ended")
    else:
        fail(folder, "killed", "the process was told to end from outside (SIGTERM)")


def _raise_on_sigterm(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the record shall be written
    raise EndedFromOutside


_WRONG_PATH = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""They come again wherever and however often a task is tried, unless the machine's part in them can be told."""


def _failure_class(error: Exception, context: Context) -> str:
    """Return "infra" if another node or another time may do better, "bug" if not."""
    if isinstance(error, _WRONG_PATH):
        return "infra" if _in_launch(error) or _of_unseen_input(error, context) else "bug"
    return "infra" if isinstance(error, MemoryError | OSError) else "bug"


def _in_launch(error: OSError) -> bool:
    """Tell whether a program could not be started, which may be missing on this node only."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == subprocess.__file__


def _of_unseen_input(error: OSError, context: Context) -> bool:
    """Tell whether a file was looked for in a result that this node does not see, or not yet, as over NFS."""
    path = Path(str(error.filename))
    folders = [folder / "result" for folder in context.inputs.values()]
    return any(path.is_relative_to(folder) and not (folder / MANIFEST).is_file() for folder in folders)


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send everything this process and its libraries print to a file, below Python's own streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def main() -> int:
    """Run the tasks named on the command line; NO_SPACE if the disk is so full that no record could be written."""
    parser = argparse.ArgumentParser(prog="python -m alloop.attempt", description=__doc__)
    parser.add_argument("--epoch", type=int, help="number of the driver that asks for the work")
    parser.add_argument("--settings", type=Path, help="how labels of a code are run; the campaign's if not given")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="task folders, in order")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _raise_on_sigterm)
    try:
        return run_tasks([folder.resolve() for folder in arguments.folders], arguments.epoch, arguments.settings)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"no space left on the disk: {error}", file=sys.stderr)
        return NO_SPACE
    except EndedFromOutside:  # end as the signal would have it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    # Tasks import this module under its own name: only there is the TaskError they raise the one caught here.
    raise SystemExit(importlib.import_module("alloop.attempt").main())
