"""Running an electronic-structure code for one label: clean environment, private folder, limits, and recovery.

A code (`Code`) knows its inputs, its outputs and what may be tried when a run fails; this module runs it, has the
outputs judged, and tries again with corrections that cannot change the level of theory until there are none left.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from ase import Atoms

from alloop.labelers.verdict import Verdict
from alloop.process import ProcessIdentity, this_process
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame

Correction = Mapping[str, Any]

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES")
_KEPT_PREFIXES = ("SLURM_", "SLURMD_", "PBS_", "LSB_", "LS_", "SGE_", "PE_", "PMI_", "NSLOTS", "JOB_ID")
_OUTSIDE = ("killed", "disk_full")
"""Faults of the machine, not of the label: the same run may succeed elsewhere or later."""


class Code(Protocol):
    """What the frame needs to know of a code."""

    name: str
    log: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]

    def write(self, folder: Path, atoms: Atoms, correction: Correction) -> Atoms:
        """Write all inputs of one run; return the atoms in the order written, with all their arrays."""

    def command(self, folder: Path) -> str:
        """Return which of the commands in the run settings the written input needs."""

    def judge(self, folder: Path, asked: Atoms) -> Verdict:
        """Judge the outputs of a run of `asked`, the atoms in the order written; never raises for bad outputs."""

    def errors(self, folder: Path) -> list[str]:
        """Return the names of the error texts in the run's log."""

    def next_correction(self, faults: list[str], tried: list[Correction]) -> Correction | None:
        """Return what to try next after these faults, or None; it cannot change the level of theory."""


@dataclass(frozen=True)
class RunSettings:
    """How a code is run; none of it decides a number.

    commands: variant ("default", "gamma") to command line; script: text with @COMMAND@, @MODULES@ and @ENVIRONMENT@;
    scratch: node-local folder, environment variables expanded on the node; timeout_s: for one run;
    silent_s: a run whose files do not grow for so long hangs; keep: further output files to keep.
    """

    commands: dict[str, str]
    script: str
    modules: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    scratch: str | None = None
    timeout_s: float = 86400.0
    silent_s: float = 3600.0
    keep: list[str] = field(default_factory=list)


class CodeFault(Exception):
    """A label that could not be had: `kind` is its failure class, `final` says that trying again cannot help."""

    def __init__(self, kind: str, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


@dataclass(frozen=True)
class CodeLabel:
    """A trusted label, atoms in the order asked for, and how it was come by."""

    frame: LabeledFrame
    verdict: Verdict
    corrections: list[dict[str, Any]]
    folder: Path
    return_code: int


@dataclass(frozen=True)
class _Ended:
    return_code: int
    hang: str | None


def label_with_code(
    code: Code, settings: RunSettings, atoms: Atoms, work: Path, tried: list[dict[str, Any]] | None = None
) -> CodeLabel:
    """Run the code until a judge trusts its outputs; CodeFault when nothing is left to try.

    tried: faults and corrections of runs that an interrupted attempt at the same label has behind it.
    """
    history = list(tried or [])
    atoms = atoms.copy()
    atoms.set_array("asked", np.arange(len(atoms)))
    while True:
        correction = history[-1]["next"] if history else {}
        folder = work / f"run.{len(history)}"
        written, ended = _one_run(code, settings, atoms, folder, correction)
        verdict = code.judge(folder, written)
        if verdict.trusted and verdict.frame is not None:
            frame = _in_order_asked(verdict.frame, written)
            return CodeLabel(frame, verdict, [entry["next"] for entry in history], folder, ended.return_code)
        faults = _faults(code, folder, verdict, ended)
        message = _tell(code, folder, verdict, ended, faults)
        if faults[0] in _OUTSIDE:
            raise CodeFault(faults[0], message, final=False)
        following = code.next_correction(faults, [entry["next"] for entry in history])
        if following is None:
            runs = f" (after {len(history) + 1} runs)" if history else ""
            raise CodeFault(faults[0], message + runs, final=True)
        history.append({"faults": faults, "next": dict(following)})
        write_json(work / "tried.json", history)


def tried_before(earlier: list[Path]) -> list[dict[str, Any]]:
    """Return what the newest earlier attempt that left a record had tried when it was interrupted.

    earlier: their scratch folders, newest first. What lies behind one that failed for good no longer counts: a person
    has mended something since, and everything may be tried anew.
    """
    for folder in earlier:
        if _failed_for_good(folder.parent):
            return []
        try:
            return read_json(folder / "tried.json")
        except (OSError, ValueError):
            continue
    return []


def _failed_for_good(attempt: Path) -> bool:
    try:
        return bool(read_json(attempt / "failed.json").get("final"))
    except (OSError, ValueError):
        return False


def _in_order_asked(frame: LabeledFrame, written: Atoms) -> LabeledFrame:
    back = np.argsort(written.get_array("asked"))
    return LabeledFrame(frame.atoms[back], frame.energy_eV, frame.forces_eV_A[back], frame.virial_eV)


def _faults(code: Code, folder: Path, verdict: Verdict, ended: _Ended) -> list[str]:
    """Return the failure classes of a run, the one that names it first: what ended it, what it said, what it left.

    A code that gives up is often ended by a signal too: srun kills the other ranks and returns theirs.
    """
    found = [_CLASSES.get(name, name) for name in code.errors(folder)]
    first: list[str] = []
    if _disk_full(folder / code.log):
        first = ["disk_full"]
    elif ended.hang:
        first = ["hang"]
    elif not found and _signal_of(ended.return_code) in _FROM_OUTSIDE:
        first = ["killed"]
    elif ended.return_code != 0:
        found.append("crash")
    outside = [name for name in found if name in _OUTSIDE]
    return list(dict.fromkeys([*outside, *first, *found, verdict.fault or "unreadable"]))


_CLASSES = {
    "no_space": "disk_full",
    "out_of_memory": "killed",
    "time_limit": "killed",
    "job_ended": "killed",
    "segmentation_fault": "crash",
}
"""Failure classes of error texts that are not the code's own."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
_DISK_TEXTS = ("No space left on device", "Disk quota exceeded")


def _signal_of(return_code: int) -> int | None:
    """Return the signal behind a return code: Python's -N, or 128 + N of a shell or mpirun."""
    if return_code < 0:
        return -return_code
    return return_code - 128 if 128 < return_code < 160 else None


def _disk_full(log: Path) -> bool:
    return any(text in tail(log, 200) for text in _DISK_TEXTS)


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log, or nothing if there is none; reads at most its last 200 kB."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 200_000))
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _tell(code: Code, folder: Path, verdict: Verdict, ended: _Ended, faults: list[str]) -> str:
    """Print the log's tail, which the attempt keeps, and return one line on what happened."""
    print(f"{code.name} in {folder.name}: {', '.join(faults)}\n--- end of {code.log}:\n{tail(folder / code.log)}")
    signal_number = _signal_of(ended.return_code)
    how = ended.hang or (f"signal {signal_number}" if signal_number else f"return code {ended.return_code}")
    return f"{code.name}: {', '.join(faults)}: {verdict.message} ({how})"


# ------------------------------------------------------------------------------------------ one run


def _one_run(
    code: Code, settings: RunSettings, atoms: Atoms, folder: Path, correction: Correction
) -> tuple[Atoms, _Ended]:
    """Write inputs and run the code, on scratch if there is one; what it wrote ends up in `folder`."""
    place = _scratch_folder(settings.scratch) or folder
    place.mkdir(parents=True, exist_ok=True)
    try:
        written = code.write(place, atoms, correction)
        variant = code.command(place)
        command = settings.commands.get(variant) or settings.commands["default"]
        script = place / "run.sh"
        script.write_text(fill_script(settings, command))
        ended = _run_script(script, place / code.log, settings)
        for pattern in code.dropped:
            for file in place.glob(pattern):
                if file.name not in settings.keep:
                    file.unlink(missing_ok=True)
        if place != folder:
            shutil.copytree(place, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("owner.json"))
    finally:
        if place != folder:
            shutil.rmtree(place, ignore_errors=True)
    return written, ended


def fill_script(settings: RunSettings, command: str) -> str:
    """Return the script of a run: modules, environment and command in their places."""
    modules = f"module load {' '.join(map(shlex.quote, settings.modules))}" if settings.modules else ""
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.environment.items())
    text = settings.script
    for word, value in (("@MODULES@", modules), ("@ENVIRONMENT@", exports), ("@COMMAND@", command)):
        text = text.replace(word, value)
    return text


def clean_environment() -> dict[str, str]:
    """Return the environment of a run: the person, the batch job, and the system's own PATH.

    Nothing of the Python environment alloop runs in is passed on: its `mpirun` and libraries would shadow the site's.
    """
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    return kept | {"PATH": _SYSTEM_PATH}


def _run_script(script: Path, log: Path, settings: RunSettings) -> _Ended:
    command = ["bash", "--noprofile", "--norc", script.name]
    if shutil.which("setpriv", path=_SYSTEM_PATH):  # the run shall not outlive this process
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    with log.open("ab") as stream:
        child = subprocess.Popen(
            command, cwd=script.parent, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        hang = _watch(child, script.parent, settings)
    except OSError as error:
        _end_tree(child.pid)
        child.wait()
        raise CodeFault("infra", f"the run cannot be watched: {error}", final=False) from error
    return _Ended(child.wait(), hang)


def _watch(child: subprocess.Popen[bytes], folder: Path, settings: RunSettings) -> str | None:
    """Wait for the run's end; end it and say why if it takes too long or its files stop growing."""
    begun = changed = time.monotonic()
    size = -1
    descriptor = os.pidfd_open(child.pid)
    try:
        while True:
            period = max(0.05, min(settings.silent_s / 10, 30.0, begun + settings.timeout_s - time.monotonic()))
            if select.select([descriptor], [], [], period)[0]:
                return None
            now, found = time.monotonic(), _size(folder)
            if found != size:
                size, changed = found, now
            if now - begun > settings.timeout_s:
                _end_tree(child.pid)
                return f"ended after the limit of {settings.timeout_s / 60:g} minutes"
            if now - changed > settings.silent_s:
                _end_tree(child.pid)
                return f"ended after {settings.silent_s / 60:g} minutes without output"
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    total = 0
    try:
        files = list(folder.iterdir())
    except OSError:
        if not folder.exists():  # a cleaner has been there; anything else may pass
            raise
        return total
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _end_tree(pid: int) -> None:
    """End a process with all its children: asked first, then killed."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
    for process in alive:
        _quietly(process.kill)


_GRACE_SECONDS = 40.0
"""Slurm's KillWait is 30 s: an srun killed before leaves its tasks running, and the next one finds no free node."""


def _quietly(action: Any) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return


def _scratch_folder(scratch: str | None) -> Path | None:
    """Return a new private folder on node-local scratch, and remove those that killed runs left there."""
    if scratch is None:
        return None
    root = Path(os.path.expandvars(scratch)).expanduser()
    if "$" in str(root):
        raise CodeFault("config", f"label.run.scratch {scratch!r} names a variable that is not set here", final=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        place = root / f"alloop-{uuid.uuid4().hex[:12]}"
        place.mkdir()
        write_json(place / "owner.json", this_process().to_json())
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:  # another node may have a better one
        raise CodeFault("infra", f"label.run.scratch {scratch!r} cannot be used here: {error}", final=False) from error
    for left in root.glob("alloop-*"):
        try:
            owner = ProcessIdentity.from_json(read_json(left / "owner.json"))
        except (OSError, ValueError, KeyError):
            continue
        if owner.is_local() and not owner.alive():
            shutil.rmtree(left, ignore_errors=True)
    return place
