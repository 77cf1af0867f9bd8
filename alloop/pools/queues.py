"""What a batch system's queue holds: one query for all jobs of this user, parsed for Slurm, PBS, LSF and SGE.

Sources of the formats: squeue(1) of Slurm, qstat(1B) and qselect(1B) of OpenPBS and Torque, bjobs(1) of LSF 10, and
the qstat.xsd of (Sun, Open, Altair) Grid Engine.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass

QUERY_SECONDS = 60.0
"""A query that takes longer is ended, and counts as failed."""

_JOB_VARIABLES = ("SLURM_", "SLURMD_", "PBS_", "LSB_", "LS_JOBPID", "JOB_ID", "JOB_NAME", "NSLOTS", "PE_HOSTFILE")
_SITE_VARIABLES = {"SLURM_CONF", "SLURM_CLUSTERS", "PBS_CONF_FILE", "PBS_DEFAULT", "PBS_SERVER", "PBS_EXEC", "PBS_HOME"}


class CommandError(Exception):
    """A command of the batch system failed or did not end in time; whether it had an effect is not known."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as the queue shows it.

    state: "waiting", "running" or "stuck" (the batch system will never start it); host: first node, if known.
    """

    id: str
    name: str
    state: str
    host: str | None = None


def job_free_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of the batch job this process may itself run in.

    A job submitted from within a job would inherit them, and Slurm refuses some combinations of an old job's limits
    with those of the new one.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _SITE_VARIABLES or not name.startswith(_JOB_VARIABLES)
    }


Run = Callable[[list[str]], str]
"""Runs a command and returns what it printed; CommandError if it failed."""


def run_command(command: list[str] | str, seconds: float, abort: threading.Event | None = None) -> str:
    """Run a command and return what it printed to stdout; a string goes to the shell.

    Raises CommandError, with what the command said, if it cannot be started, fails, does not end in time or before
    `abort` is set; its whole process group is then killed.
    """
    shown = command if isinstance(command, str) else " ".join(command)
    try:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=job_free_environment(os.environ),
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise CommandError(f"{shown}: {error}") from None
    deadline = time.monotonic() + seconds
    while True:
        try:
            output, errors = process.communicate(timeout=min(0.2, seconds))
            break
        except subprocess.TimeoutExpired:
            aborted = abort is not None and abort.is_set()
            if not aborted and time.monotonic() < deadline:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            reason = "not waited for" if aborted else f"no answer in {seconds:g} s"
            raise CommandError(f"{shown}: {reason}") from None
    if process.returncode != 0:
        said = " / ".join(line.strip() for line in (errors or output).splitlines() if line.strip())
        raise CommandError(f"{shown}: {said[-400:] or f'ended with code {process.returncode}'}")
    return output


# ---------------------------------------------------------------------------------------- one query


def query(kind: str, abort: threading.Event | None = None) -> dict[str, QueuedJob]:
    """Return this user's jobs that have not ended, by name; CommandError if the queue does not say."""
    return _QUERIES[kind](lambda command: run_command(command, QUERY_SECONDS, abort))


def by_name(jobs: list[QueuedJob]) -> dict[str, QueuedJob]:
    """Return jobs by name; of two with one name the running one counts."""
    return {job.name: job for job in sorted(jobs, key=lambda job: job.state == "running")}


def _query_slurm(run: Run) -> dict[str, QueuedJob]:
    return by_name(parse_squeue(run(["squeue", "--me", "-h", "-o", "%i|%j|%T|%N"])))


def parse_squeue(text: str) -> list[QueuedJob]:
    """Return the jobs in the output of ``squeue -h -o '%i|%j|%T|%N'``."""
    ended = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
    waiting = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 4 or fields[2] in ended:
            continue
        state = "waiting" if fields[2] in waiting else "running"
        found.append(QueuedJob(fields[0], fields[1], state, first_host(fields[3])))
    return found


def first_host(text: str) -> str | None:
    """Return the first node of a list such as ``node[07-09,12]``, ``n1/0*8+n2/0*8`` or ``8*n1:8*n2``."""
    text = re.sub(r"^\d+\*", "", text.strip())
    match = re.match(r"([^\[,:+/]+)(?:\[([^\],-]+))?", text)
    return f"{match[1]}{match[2] or ''}" if match else None


def _query_pbs(run: Run) -> dict[str, QueuedJob]:
    ids = run(["qselect", "-u", getpass.getuser()]).split()
    found: list[QueuedJob] = []
    for start in range(0, len(ids), 200):  # a command line holds only so much
        found += parse_qstat_f(_qstat_f(run, ids[start : start + 200]))
    return by_name(found)


def _qstat_f(run: Run, ids: list[str]) -> str:
    """Return what ``qstat -f`` says of jobs, of which some may have ended meanwhile."""
    command = ["qstat", "-f", *ids]
    while True:
        try:
            return run(command)
        except CommandError as error:
            gone = set(re.findall(r"Unknown Job Id:?\s+(\S+)", str(error)))
            left = [name for name in command[2:] if name not in gone]
            if not gone or len(left) == len(command) - 2:
                raise
            if not left:
                return ""
            command = ["qstat", "-f", *left]


def parse_qstat_f(text: str) -> list[QueuedJob]:
    """Return the jobs in the output of ``qstat -f`` of PBS, whose long lines go on after a tab."""
    found = []
    for block in re.split(r"^Job Id:", text.replace("\n\t", ""), flags=re.MULTILINE)[1:]:
        number, _, rest = block.partition("\n")
        fields = dict(line.strip().split(" = ", 1) for line in rest.splitlines() if " = " in line)
        state = fields.get("job_state", "Q")
        if state not in "CFX":
            host = first_host(fields["exec_host"]) if "exec_host" in fields else None
            running = "running" if state in "REST" and host else "waiting"
            found.append(QueuedJob(number.strip(), fields.get("Job_Name", ""), running, host))
    return found


def _query_lsf(run: Run) -> dict[str, QueuedJob]:
    command = ["bjobs", "-noheader", "-o", "jobid job_name stat exec_host delimiter='|'"]
    try:
        return by_name(parse_bjobs(run(command)))
    except CommandError as error:
        if "No unfinished job found" in str(error):
            return {}
        raise


def parse_bjobs(text: str) -> list[QueuedJob]:
    """Return the jobs in the output of ``bjobs -noheader -o "jobid job_name stat exec_host delimiter='|'"``."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 4 or fields[2] in ("DONE", "EXIT"):
            continue
        state = "waiting" if fields[2] in ("PEND", "PSUSP", "WAIT") else "running"
        found.append(QueuedJob(fields[0], fields[1], state, None if fields[3] == "-" else first_host(fields[3])))
    return found


def _query_sge(run: Run) -> dict[str, QueuedJob]:
    return by_name(parse_qstat_xml(run(["qstat", "-xml", "-u", getpass.getuser()])))


def parse_qstat_xml(text: str) -> list[QueuedJob]:
    """Return the jobs in the output of ``qstat -xml`` of Grid Engine; CommandError if that is no XML."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise CommandError(f"qstat -xml: {error}") from None
    found = []
    for job in root.iter("job_list"):
        state, queue = job.findtext("state", ""), job.findtext("queue_name") or ""
        host = queue.partition("@")[2] or None
        known = (
            "stuck" if "E" in state else "running" if set(state) & set("rtRsSTd") and "q" not in state else "waiting"
        )
        found.append(QueuedJob(job.findtext("JB_job_number", ""), job.findtext("JB_name", ""), known, host))
    return found


_QUERIES: dict[str, Callable[[Run], dict[str, QueuedJob]]] = {
    "slurm": _query_slurm,
    "pbs": _query_pbs,
    "lsf": _query_lsf,
    "sge": _query_sge,
}


# ---------------------------------------------------------------------------------------- one query for all pools


@dataclass(frozen=True)
class Look:
    """One look into the queue: its number, when it began on the monotonic clock, and what it saw."""

    number: int
    began: float
    jobs: Mapping[str, QueuedJob]


class QueueWatch:
    """Looks into one batch system's queue now and then, in a thread of its own, for all pools that use it."""

    def __init__(self, kind: str, interval_s: float) -> None:
        self.kind = kind
        self.look = Look(0, 0.0, {})
        self.failures = 0
        self.problem = ""
        self._interval_s = interval_s
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"queue-{kind}", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Say that somebody wants to know; without that the queue is left alone."""
        self._asked.set()

    def _watch(self) -> None:
        while True:
            self._asked.wait()
            if self._closed.is_set():
                return
            self._asked.clear()
            began = time.monotonic()
            try:
                self.look = Look(self.look.number + 1, began, query(self.kind, self._closed))
                self.failures, self.problem = 0, ""
            except CommandError as error:
                self.failures, self.problem = self.failures + 1, str(error)
            except Exception as error:  # an answer nobody has met before must not end the watch
                self.failures, self.problem = self.failures + 1, f"{type(error).__name__}: {error}"
            self._closed.wait(self._interval_s * min(2 ** min(self.failures, 6), 30))

    def close(self) -> None:
        """End the thread and what it does now."""
        self._closed.set()
        self._asked.set()
