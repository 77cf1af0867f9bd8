"""The one place that knows dask-jobqueue: job scripts of dask workers, submitted and cancelled for one batch system.

Only the `Job` classes of dask-jobqueue 0.9 are used (script, submission, parsing of the job id). Its `*Cluster` classes
never look into the queue and never submit a failed job again, so what a pool needs beyond is in `batch`.
"""

from __future__ import annotations

import asyncio
import inspect
import shlex
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask_jobqueue.core import Job
from dask_jobqueue.lsf import LSFJob
from dask_jobqueue.pbs import PBSJob
from dask_jobqueue.sge import SGEJob
from dask_jobqueue.slurm import SLURMJob

from alloop.errors import InputError
from alloop.pool_params import BatchPoolParam
from alloop.pools.drain import end_file
from alloop.pools.queues import CommandError, run_command

JOB_CLASSES: dict[str, type[Job]] = {"slurm": SLURMJob, "pbs": PBSJob, "lsf": LSFJob, "sge": SGEJob}
SUBMIT_SECONDS = 60.0
"""A submission or cancellation that takes longer is ended, and its outcome looked up in the queue."""

OWN_OPTIONS = {
    "queue": "queue",
    "cores": "cores",
    "memory": "memory",
    "walltime": "walltime_minutes",
    "job_script_prologue": "prologue",
    "scheduler": None,
    "name": None,
    "job_name": None,
    "processes": None,
    "nanny": None,
    "protocol": None,
    "security": None,
    "worker_command": None,
}
"""Options of dask-jobqueue that alloop sets, and the pool's key that says what to (None: nobody else may)."""

LISTS = ("job_extra_directives", "job_directives_skip", "worker_extra_args")
"""Options that are lists of strings; text in their place would be taken letter by letter."""

DEPRECATED_OPTIONS = {"extra", "env_extra", "header_skip", "job_extra"}

SCRIPT = """%(shebang)s

%(job_header)s
export ALLOOP_POOL={pool} ALLOOP_JOB={job} ALLOOP_RUN={run} ALLOOP_ADDRESS={address}
export ALLOOP_JOB_END="${{SLURM_JOB_END_TIME:-$(($(date +%%s) + {walltime_s}))}}"
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=1h
trap : TERM INT  # what the batch system tells all processes is for the attempts; this script outlasts them
%(job_script_prologue)s
[ -e {end} ] && exit 0
short=0
while  # the worker ends with its scheduler; the job goes on while there is work in it, or another scheduler
  began=$SECONDS
  export ALLOOP_SCHEDULER="$(cat "$ALLOOP_ADDRESS")"
  %(worker_command)s
  code=$?
  if ((SECONDS - began < 120)); then short=$((short + 1)); else short=0; fi
  {python} -m alloop.pools.drain --code $code --short $short
do :; done
"""
"""Bash; the names in braces are filled in here, the rest by dask-jobqueue."""


@dataclass(frozen=True)
class Place:
    """What every job of a campaign needs to know: where it is told about its end, its scheduler and the keys.

    run_folder: ``iterations/run``; address: file that holds the scheduler's address; tls: folder of the keys.
    """

    run_folder: Path
    address: Path
    tls: Path


def accepted_options(kind: str) -> set[str]:
    """Return the names that `options` of a pool of one batch system may hold."""
    found: set[str] = set()
    for owner in (JOB_CLASSES[kind], Job):
        found |= set(inspect.signature(owner.__init__).parameters)
    deprecated = DEPRECATED_OPTIONS | ({"project"} if kind in ("slurm", "pbs") else set())
    return found - {"self", "base_class_kwargs"} - deprecated - OWN_OPTIONS.keys()


def check_options(pool: str, param: BatchPoolParam) -> None:
    """Raise InputError for options that dask-jobqueue's class does not accept or that alloop itself sets."""
    _check_lists(pool, param)
    accepted = accepted_options(param.type)
    for option in param.options:
        if option in accepted:
            continue
        where = f"param.json: pools.{pool}.options.{option}"
        if option in OWN_OPTIONS:
            own = OWN_OPTIONS[option]
            advice = f"give it as pools.{pool}.{own}" if own else "leave it out"
            raise InputError(f"{where}: alloop sets this itself\n  {advice}")
        known = ", ".join(sorted(accepted))
        raise InputError(f"{where}: dask-jobqueue knows no such option for {param.type}\n  it accepts: {known}")


def _check_lists(pool: str, param: BatchPoolParam) -> None:
    for option in LISTS:
        found = param.options.get(option, [])
        directives = option == "job_extra_directives" and isinstance(found, dict)
        if not directives and not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
            raise InputError(
                f"param.json: pools.{pool}.options.{option}: expected a list of strings, found {found!r}\n"
                f'  write "{option}": ["...", "..."]'
            )


def job_script(pool: str, param: BatchPoolParam, name: str, place: Place) -> str:
    """Return the script of one job: a dask worker with the pool's slots, then what waits for the attempts.

    Raises InputError if dask-jobqueue does not accept the options.
    """
    return _job(pool, param, name, place).job_script()


def submit(pool: str, param: BatchPoolParam, name: str, place: Place, abort: threading.Event | None = None) -> str:
    """Submit one job and return its id; CommandError if the batch system refused or did not answer in time.

    abort: when it is set, the answer is not waited for any longer.
    """
    job = _job(pool, param, name, place, abort)
    try:
        asyncio.run(job.start())
    except ValueError as error:  # no job id in the answer
        raise CommandError(str(error)) from None
    return str(job.job_id)


def cancel(kind: str, ids: list[str]) -> None:
    """Cancel jobs; CommandError if the batch system did not do it."""
    run_command([*shlex.split(JOB_CLASSES[kind].cancel_command), *ids], SUBMIT_SECONDS)


def _job(pool: str, param: BatchPoolParam, name: str, place: Place, abort: threading.Event | None = None) -> Job:
    check_options(pool, param)
    options = dict(param.options)
    python = options.setdefault("python", sys.executable)
    threads = ["--nthreads", str(param.slots_per_job), "--memory-limit", "0", "--dashboard-address", "127.0.0.1:0"]
    keys = [f"--tls-{role} {shlex.quote(str(place.tls / file))}" for role, file in TLS_FILES.items()]
    options["worker_extra_args"] = [*threads, *keys, *options.get("worker_extra_args", [])]
    options.setdefault("death_timeout", 60)
    _add_header(param, name, place, options)
    template = SCRIPT.format(
        pool=pool,
        job=name,
        run=_in_template(place.run_folder),
        address=_in_template(place.address),
        end=_in_template(end_file(place.run_folder, name)),
        python=_in_template(python),
        walltime_s=round(param.walltime_minutes * 60),
    )

    async def call(command: list[str], *, shell: bool = False, **_: Any) -> str:
        """Run a command of the batch system in time; dask-jobqueue itself would wait for ever."""
        return run_command(command[0] if shell else command, SUBMIT_SECONDS, abort)

    kind = JOB_CLASSES[param.type]
    adapted = type(kind.__name__, (kind,), {"_script_template": template, "_call": staticmethod(call)})
    try:
        return adapted(
            scheduler='"$ALLOOP_SCHEDULER"',
            name=name,
            job_name=name,
            queue=param.queue,
            cores=param.cores or param.slots_per_job * param.threads,
            memory=param.memory,
            walltime=walltime(param),
            processes=1,
            nanny=False,
            protocol="tls",
            job_script_prologue=param.prologue,
            **options,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"param.json: pools.{pool}: dask-jobqueue does not accept this pool: {error}\n  correct its options"
        ) from None


TLS_FILES = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


def walltime(param: BatchPoolParam) -> str:
    """Return the time limit as the batch system writes it: HH:MM for LSF, HH:MM:SS for the others."""
    seconds = round(param.walltime_minutes * 60)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if param.type == "lsf":
        return f"{hours:02d}:{minutes + (seconds % 60 > 0):02d}"
    return f"{hours:02d}:{minutes:02d}:{seconds % 60:02d}"


def _add_header(param: BatchPoolParam, name: str, place: Place, options: dict[str, Any]) -> None:
    """Add directives: no second start, one log file, and for Slurm one task per core, as `srun` and `mpirun` expect."""
    extra = []
    log = place.run_folder / "jobs" / f"{name}.log"
    extra.append({"slurm": "--no-requeue", "lsf": "-rn"}.get(param.type, "-r n"))  # alloop itself replaces lost jobs
    if param.type == "slurm" and "job_directives_skip" not in options:
        options["job_directives_skip"] = ["-n 1", "--cpus-per-task"]
        extra += ["-N 1", f"-n {param.cores or param.slots_per_job * param.threads}"]
    if "log_directory" not in options:
        path = str(log).replace("%", "%%") if param.type in ("slurm", "lsf") else str(log)
        extra += {"slurm": [f'-o "{path}"'], "pbs": ["-j oe", f"-o {path}"], "lsf": [f'-o "{path}"']}.get(
            param.type, ["-S /bin/bash", f"-o {path}"]
        )
    options["job_extra_directives"] = [*extra, *directives(param)]


def directives(param: BatchPoolParam) -> list[str]:
    """Return the directives a pool's options add to the job script; dask-jobqueue takes a list or an object."""
    given = param.options.get("job_extra_directives", [])
    if isinstance(given, dict):
        return [f"{key} {value}".strip() for key, value in given.items()]
    return list(given)


def _in_template(value: object) -> str:
    """Return a path quoted for the shell, within a text that %-formatting goes over."""
    return shlex.quote(str(value)).replace("%", "%%")
