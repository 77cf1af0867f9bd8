"""What can be seen to be wrong with a pool before anything runs in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alloop.errors import InputError
from alloop.pool_params import BatchPoolParam, LocalPoolParam

Trouble = tuple[str, str, str]
"""Key below ``pools.NAME``, what was found, what to do."""

_LOOK_SECONDS = 3.0
_SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}
_LIST_QUEUES = {
    "slurm": ["sinfo", "--noheader", "--format=%R"],
    "pbs": ["qstat", "-Q"],
    "lsf": ["bqueues", "-w"],
    "sge": ["qconf", "-sql"],
}


def pool_troubles(name: str, param: LocalPoolParam | BatchPoolParam) -> Iterator[Trouble]:
    """Yield everything that is wrong with one pool; asks the batch system for its queues."""
    if param.python is not None and shutil.which(str(Path(param.python).expanduser())) is None:
        yield "python", f"{param.python!r} is no program here", "name the Python that has alloop on the pool's machines"
    if isinstance(param, LocalPoolParam):
        return
    unfilled = [(key, value) for key, value in _texts(param.model_dump()) if value.startswith("<")]
    for key, value in unfilled:
        yield key, f"is still {value!r}", "fill it in for your site, or leave it out"
    yield from _options(name, param)
    submit = _SUBMIT[param.type]
    if shutil.which(submit) is None:
        yield "type", f"{param.type}, but {submit} is not found on PATH", "run alloop where jobs can be submitted"
    elif param.queue is not None and not param.queue.startswith("<"):
        yield from _queue(param)
    if param.cores is not None and param.cores < param.slots_per_job * param.threads:
        needed = param.slots_per_job * param.threads
        found = f"{param.cores} cores for {param.slots_per_job} slots of {param.threads} thread(s)"
        yield "cores", found, f"ask for {needed}, or for fewer slots"


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _texts(inner, f"{key}[{name}]" if isinstance(name, int) else f"{key}.{name}".lstrip("."))


def _options(name: str, param: BatchPoolParam) -> Iterator[Trouble]:
    if not param.options:
        return
    from alloop.pools.jobqueue import check_options  # brings dask-jobqueue with it

    try:
        check_options(name, param)
    except InputError as error:
        found, _, remedy = str(error).partition("\n")
        where, _, what = found.removeprefix(f"param.json: pools.{name}.").partition(": ")
        yield where, what, remedy.strip()


def _queue(param: BatchPoolParam) -> Iterator[Trouble]:
    from alloop.pools.queues import CommandError, run_command

    try:
        answer = run_command(_LIST_QUEUES[param.type], _LOOK_SECONDS)
    except CommandError as error:
        yield "type", f"{param.type} does not answer: {error}", "see whether the batch system is up, then check again"
        return
    known = list(dict.fromkeys(line.split()[0] for line in answer.splitlines() if line.strip()))
    if param.queue not in known:
        yield "queue", f"there is no {param.queue!r}", f"choose one of: {', '.join(known) or 'none was listed'}"
