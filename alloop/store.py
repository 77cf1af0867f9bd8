"""Tasks and results on disk: keys, attempt folders, publishing by one rename, validation, quarantine.

A task folder holds ``task.json``, ``attempts/<id>/`` (private to one attempt each) and, exactly when the task is
done, ``result/`` with a MANIFEST.json of checksums. Nothing in a result ever changes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alloop.cost import allotment
from alloop.errors import InputError
from alloop.failpoint import failpoint, write
from alloop.process import ProcessIdentity, this_process
from alloop.structure import content_key

MANIFEST = "MANIFEST.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk without space answers."""
NO_SPACE = 75
"""Return code of an attempt process that could not even say so for want of space (EX_TEMPFAIL of sysexits.h)."""
FOREIGN_FAULTS = ("interrupted", "killed", "late", "walltime")
"""Failure classes for which the task itself is not to blame."""


@dataclass(frozen=True)
class Task:
    """One piece of work.

    key: hash of kind and spec, so the same work has the same key wherever it is asked for;
    group: folder under ``iterations/``; name: for people; spec: all that decides the result (JSON);
    inputs: keys of the tasks whose results it reads; files: paths of foreign files, relative to the campaign
    folder, whose content (a hash in the spec) counts and not their place; about: what may help an attempt but decides
    nothing, such as the glass a structure is of.
    """

    key: str
    kind: str
    group: str
    name: str
    spec: dict[str, Any] = field(repr=False, compare=False)
    inputs: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    about: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def folder(self) -> str:
        """Return the task's folder relative to ``iterations/``."""
        return f"{self.group}/{self.name}-{self.key}"


def make_task(
    kind: str,
    group: str,
    name: str,
    spec: dict[str, Any],
    inputs: tuple[str, ...] = (),
    files: dict[str, str] | None = None,
    about: dict[str, Any] | None = None,
) -> Task:
    """Return a task with its content key; the spec may hold no paths, dates or host names."""
    return Task(content_key({"kind": kind, "spec": spec}), kind, group, name, spec, inputs, files or {}, about or {})


# ---------------------------------------------------------------------------------------- single files


def _fsync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint("folder:synced")


def _write_aside(path: Path, data: bytes) -> Path:
    aside = path.parent / f".tmp.{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        with aside.open("xb") as stream:
            failpoint("aside:created")
            write(stream, data)
            stream.flush()
            failpoint("aside:written")
            os.fsync(stream.fileno())
            failpoint("aside:synced")
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; on a full disk the old file stays."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step; on a full disk the old file stays."""
    aside = _write_aside(path, data)
    aside.rename(path)
    failpoint("file:renamed")
    _fsync_dir(path.parent)


def create_json_once(path: Path, value: Any) -> bool:
    """Put a JSON file in place unless one is there already; tell whether this call did it."""
    return create_once(path, (json.dumps(value) + "\n").encode())


def create_once(path: Path, data: bytes) -> bool:
    """Put a file in place unless one is there already; tell whether this call did it (link(2), NFS-safe)."""
    try:
        return _link_once(path, data)
    except FileNotFoundError:  # a driver that has taken over meanwhile took the file aside for a dead one's
        return _link_once(path, data)


def _link_once(path: Path, data: bytes) -> bool:
    aside = _write_aside(path, data)
    try:
        os.link(aside, path)
        failpoint("file:linked")
    except FileExistsError:
        return aside.stat().st_nlink == 2  # a lost reply: the link may be ours
    finally:
        aside.unlink(missing_ok=True)
        failpoint("aside:unlinked")
    _fsync_dir(path.parent)
    return True


def read_json(path: Path) -> Any:
    """Return the value of a JSON file."""
    return json.loads(path.read_text())


@contextlib.contextmanager
def filled_folder(directory: Path, last: str) -> Iterator[Path]:
    """Yield a folder aside, whose content is moved into `directory` at the end, or is gone if anything fails.

    What is called `last` comes last, so that a folder with it is whole. InputError if directory holds anything.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise InputError(
            f"{directory} is not an empty folder\n  name a new one, so that nothing of yours is overwritten"
        )
    aside = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        yield aside
        directory.mkdir(exist_ok=True)
        for part in sorted(aside.iterdir(), key=lambda part: part.name == last):
            part.rename(directory / part.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# ---------------------------------------------------------------------------------------- the store


class Store:
    """The tasks and results under one campaign's ``iterations/`` folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.iterations = root / "iterations"

    def folder(self, task: Task) -> Path:
        """Return the task's folder."""
        return self.iterations / task.folder

    def result(self, task: Task) -> Path:
        """Return the task's result folder, which exists exactly when the task is done."""
        return self.folder(task) / "result"

    def is_done(self, task: Task) -> bool:
        """Tell whether the task has a published result, whole or not; see `check_result`."""
        return self.result(task).is_dir()

    def prepare(self, task: Task, campaign_id: str, input_folders: dict[str, str], asked: str | None = None) -> Path:
        """Write ``task.json`` if it is not there and return the task's folder.

        input_folders: key to folder (relative to ``iterations/``) of every input task; asked: when the task was
        decided, from which its wait is counted.
        """
        folder = self.folder(task)
        file = folder / "task.json"
        if not file.exists():
            (folder / "attempts").mkdir(parents=True, exist_ok=True)
            failpoint("task:folder")
            record = {
                "key": task.key,
                "kind": task.kind,
                "group": task.group,
                "name": task.name,
                "campaign": campaign_id,
                "asked": asked,
                "inputs": input_folders,
                "files": task.files,
                "about": task.about,
                "spec": task.spec,
            }
            create_json_once(file, record)
        return folder

    def check_result(self, task: Task, *, checksums: bool = True) -> bool:
        """Validate a published result; a bad one goes to ``quarantine/`` and False is returned."""
        problem = result_problem(self.result(task), task.key, checksums=checksums)
        if problem is None:
            return True
        self.quarantine(task, problem)
        return False

    def quarantine(self, task: Task, problem: str) -> Path:
        """Move a task's bad result aside, with the reason beside it, so that the work is done again.

        If what was moved is whole, another driver has had the work done again meanwhile: it is put back.
        """
        place = self.iterations / "quarantine" / f"{task.name}-{task.key}.{uuid.uuid4().hex[:6]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        failpoint("quarantine:before")
        self.result(task).rename(place)
        failpoint("quarantine:after")
        if result_problem(place, task.key) is None:
            with contextlib.suppress(OSError):  # there is yet another one
                place.rename(self.result(task))
            return self.result(task)
        write_json(place.with_name(f"{place.name}.reason.json"), {"task": task.folder, "problem": problem})
        return place


def result_problem(result: Path, key: str, *, checksums: bool = True) -> str | None:
    """Return what is wrong with a result folder, or None; without checksums only names and sizes are compared."""
    try:
        manifest = read_json(result / MANIFEST)
        owner, record = manifest["key"], manifest["record"]
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        float(record["seconds"]), int(record["threads"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"unreadable manifest: {type(error).__name__}: {error}"
    if owner != key:
        return f"manifest of another task: {owner}"
    for name, (size, sha256) in files.items():
        file = result / name
        if not file.is_file():
            return f"missing file {name}"
        if file.stat().st_size != size:
            return f"{name}: {file.stat().st_size} bytes instead of {size}"
        if checksums and _sha256(file) != sha256:
            return f"{name}: checksum differs"
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------- attempts


@dataclass(frozen=True)
class Attempt:
    """One try at a task: its private folder and, inside it, ``out/``, which becomes the result."""

    task_folder: Path
    folder: Path

    @property
    def out(self) -> Path:
        """Return the folder whose content will be published."""
        return self.folder / "out"


def begin_attempt(task_folder: Path, waited_s: float | None = None) -> Attempt:
    """Create a private attempt folder owned by this process; waited_s: how long the task waited for its first."""
    folder = task_folder / "attempts" / uuid.uuid4().hex[:8]
    (folder / "out").mkdir(parents=True)
    failpoint("attempt:folder")
    record = this_process().to_json() | {"started": _now(), "waited_s": waited_s} | allotment()
    write_json(folder / "attempt.json", record)
    return Attempt(task_folder, folder)


def publish(attempt: Attempt, key: str, record: dict[str, Any]) -> bool:
    """Make the attempt's output the task's result by one rename; False if another attempt was first.

    The manifest, written last, holds sizes and checksums of all files and `record`: who, when, and what it cost
    (``seconds``, ``threads``, ``cores``, ``gpus``).
    """
    files = {}
    for file in sorted(p for p in attempt.out.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        files[str(file.relative_to(attempt.out))] = {"size": file.stat().st_size, "sha256": _sha256(file)}
    record = record | {"ended": _now(), "attempt": attempt.folder.name}
    write_json(attempt.out / MANIFEST, {"key": key, "files": files, "record": record})
    failpoint("publish:before")
    target = attempt.task_folder / "result"
    try:
        attempt.out.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(attempt.out, ignore_errors=True)
        return False
    failpoint("publish:after")
    _fsync_dir(attempt.task_folder)
    return True


def fail(
    attempt_folder: Path,
    kind: str,
    message: str,
    detail: str = "",
    *,
    final: bool = False,
    last_seen: float | None = None,
) -> None:
    """Record why an attempt failed: class, one line, the tail of its log, and whether trying again is in vain.

    Where it ran and what it took are taken from its ``attempt.json``; it lasted until now, or until `last_seen` (in
    seconds since 1970), which is known of one that nobody saw end.
    """
    record = {"class": kind, "message": message, "detail": detail, "final": final, "time": _now()}
    write_json(attempt_folder / "failed.json", record | _spent(attempt_folder, last_seen))


_ABOUT_COST = ("host", "pool", "job", "threads", "cores", "gpus", "waited_s")


def _spent(attempt_folder: Path, last_seen: float | None) -> dict[str, Any]:
    """Return the part of a failure's record that tells its cost; seconds is None if its beginning is not known."""
    try:
        begun = read_json(attempt_folder / "attempt.json")
        started = datetime.fromisoformat(begun["started"]).timestamp()
    except (OSError, ValueError, LookupError, TypeError):
        return {"seconds": None}
    ended = time.time() if last_seen is None else last_seen
    return {"seconds": round(max(0.0, ended - started), 3)} | {name: begun.get(name) for name in _ABOUT_COST}


def _last_sign(attempt_folder: Path) -> float:
    """Return when an attempt last wrote anything that lies in its folder or its scratch folder."""
    places = [attempt_folder, attempt_folder / "work"]
    found = [file for place in places if place.is_dir() for file in (place, *place.iterdir())]
    return max(file.lstat().st_mtime for file in found)


Alive = Callable[[dict[str, Any]], bool]
"""Tells of an attempt's record whether its process still runs, as far as can be known."""


def alive_here(record: dict[str, Any]) -> bool:
    """Tell whether the process of an attempt's record runs on this host."""
    return ProcessIdentity.from_json(record).alive()


def record_death(
    task_folder: Path,
    return_code: int | None,
    *,
    unwatched: bool = False,
    cause: str = "",
    alive: Alive = alive_here,
) -> None:
    """Record attempts whose process is gone without a word: interrupted, killed by a signal, or crashed on its own.

    One that ended while no driver watched is interrupted, as by a kill of everything or a power cut. Nobody saw with
    which code an adopted process ended (return code None); it counts as killed. cause: failure class, if the pool knows
    that the end was no doing of the task; the newest attempt may have been told to end, and know no better than that
    it was killed. One on another host that belongs to no job cannot be seen, and is left alone.
    """
    newest = max(attempts(task_folder), key=_began_ns, default=None) if cause else None
    for folder in attempts(task_folder):
        record = attempt_record(folder)
        if folder == newest:
            _know_better(folder / "failed.json", cause)
        if record is None or (folder / "failed.json").exists() or not (folder / "out").exists():
            continue
        seen = ProcessIdentity.from_json(record).is_local() or record.get("job")
        if not seen or alive(record):
            continue
        log = folder / "log.txt"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""
        if cause:
            fail(folder, cause, _CAUSES.get(cause, cause), tail)
        elif unwatched:
            last = _last_sign(folder)
            fail(folder, "interrupted", "the process ended while no driver watched", tail, last_seen=last)
        elif return_code is None or return_code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
            fail(folder, "killed", "the process was killed from outside", tail)
        elif return_code == NO_SPACE:
            fail(folder, "infra", "no space left on the disk", tail)
        else:
            fail(folder, "crash", f"the process ended with code {return_code}", tail)


def _began_ns(attempt_folder: Path) -> int:
    with contextlib.suppress(OSError):  # it may just be swept away
        return (attempt_folder / "attempt.json").stat().st_mtime_ns
    return 0


def _know_better(failed: Path, cause: str) -> None:
    """Have the cause that the pool knows replace what an attempt says that was told to end and knows not why."""
    try:
        record = read_json(failed)
    except (OSError, ValueError):
        return
    if record.get("class") == "killed":
        write_json(failed, record | {"class": cause, "message": _CAUSES.get(cause, cause)})


_CAUSES = {
    "walltime": "its job reached its walltime",
    "infra": "its job ended before it: cancelled, or its node was lost",
}


def drop_scratch(task_folder: Path) -> None:
    """Remove the scratch folders of a finished task's attempts, but for those that failed by their own fault."""
    own_faults = {failure["attempt"] for failure in failures(task_folder) if failure["class"] not in FOREIGN_FAULTS}
    for folder in attempts(task_folder):
        failpoint("scratch:before")
        if folder.name not in own_faults:
            shutil.rmtree(folder / "work", ignore_errors=True)


def attempts(task_folder: Path) -> Iterator[Path]:
    """Yield the folders of all attempts at a task."""
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted((task_folder / "attempts").iterdir()):
            if (folder / "attempt.json").is_file():
                yield folder


def attempt_record(folder: Path) -> dict[str, Any] | None:
    """Return ``attempt.json``: the process that runs or ran an attempt, its pool and job; None if not readable."""
    try:
        record: dict[str, Any] = read_json(folder / "attempt.json")
        ProcessIdentity.from_json(record)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return record


def attempt_owner(folder: Path) -> ProcessIdentity | None:
    """Return the process that runs or ran an attempt; None while its record is not readable."""
    record = attempt_record(folder)
    return None if record is None else ProcessIdentity.from_json(record)


def live_attempts(task_folder: Path) -> Iterator[ProcessIdentity]:
    """Yield the processes on this host that still work on a task."""
    yield from map(ProcessIdentity.from_json, live_records(task_folder))


def live_records(task_folder: Path, alive: Alive = alive_here) -> Iterator[dict[str, Any]]:
    """Yield the records of attempts at a task whose processes still run."""
    for folder in attempts(task_folder):
        if (folder / "failed.json").exists() or not (folder / "out").exists():
            continue
        record = attempt_record(folder)
        if record is not None and alive(record):
            yield record


def live_attempt(task_folder: Path) -> ProcessIdentity | None:
    """Return the process of an attempt that still runs on this host, if there is one."""
    return next(live_attempts(task_folder), None)


def progress(task_folder: Path) -> float | None:
    """Return how far an unfinished attempt at a task last said it was, from 0 to 1; None if none did."""
    for folder in attempts(task_folder):
        if (folder / "out").exists() and not (folder / "failed.json").exists():
            with contextlib.suppress(OSError, ValueError, KeyError):
                return float(read_json(folder / "progress.json")["done"])
    return None


def failures(task_folder: Path) -> list[dict[str, Any]]:
    """Return the failure records of a task's attempts, oldest first."""
    found = []
    for folder in attempts(task_folder):
        with contextlib.suppress(OSError, ValueError):
            found.append(read_json(folder / "failed.json") | {"attempt": folder.name})
    return sorted(found, key=lambda record: record["time"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
