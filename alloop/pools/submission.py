"""Submitting and cancelling the jobs of one pool, one command at a time, in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from alloop.failpoint import failpoint
from alloop.pool_params import BatchPoolParam
from alloop.pools import jobqueue
from alloop.pools.queues import CommandError

_CLOSING_SECONDS = 60.0


@dataclass(frozen=True)
class BackOff:
    """How long to wait after failures in a row: `first_s`, then twice as long each time, up to `longest_s`."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures (1 or more)."""
        return min(self.first_s * 2 ** min(failures - 1, 16), self.longest_s)


class Submitter:
    """At most one submission under way, no more per minute than allowed, and fewer while they fail."""

    def __init__(self, pool: str, param: BatchPoolParam, place: jobqueue.Place, back_off: BackOff) -> None:
        self.trouble = ""
        self._pool = pool
        self._param = param
        self._place = place
        self._back_off = back_off
        self._commands = ThreadPoolExecutor(1, thread_name_prefix=f"submit-{pool}")
        self._closing = threading.Event()
        self._under_way = False
        self._failures = 0
        self._not_before = 0.0
        self._to_cancel: set[str] = set()
        self._cancellations: list[Future[None]] = []

    def ready(self) -> bool:
        """Tell whether a job may be submitted now."""
        return not self._under_way and time.monotonic() >= self._not_before

    def wait_after(self, failures: int) -> None:
        """Submit nothing for a while, after so many failures of another kind in a row."""
        self._not_before = max(self._not_before, time.monotonic() + self._back_off.after(failures))

    def submit(self, name: str, avoided: set[str], ended: Callable[[str | None], None]) -> None:
        """Submit a job; `ended` hears its id, or None if nobody knows whether it was submitted."""
        self._under_way = True
        self._commands.submit(self._submit, name, avoided, ended)

    def _submit(self, name: str, avoided: set[str], ended: Callable[[str | None], None]) -> None:
        job_id, problem = None, ""
        try:
            param = without_nodes(self._param, avoided)
            failpoint("submit:before")
            job_id = jobqueue.submit(self._pool, param, name, self._place, self._closing)
            failpoint("submit:after")
        except CommandError as error:
            problem = str(error)
        except Exception as error:  # nothing may end this thread, and the queue tells what happened
            problem = f"{type(error).__name__}: {error}"
        self._not_before = time.monotonic() + 60.0 / self._param.submits_per_minute
        if job_id is None:
            self._failures += 1
            self.wait_after(self._failures)
            self.trouble = f"submission failed {self._failures} time(s) in a row: {problem}"
        else:
            self._failures, self.trouble = 0, ""
        ended(job_id)
        self._under_way = False

    def cancel(self, kind: str, ids: list[str]) -> None:
        """Cancel jobs; one that is gone cannot be cancelled, and who cares asks again."""
        fresh = [job_id for job_id in ids if job_id not in self._to_cancel]

        def quietly() -> None:
            try:
                with contextlib.suppress(CommandError):
                    jobqueue.cancel(kind, fresh)
            finally:
                self._to_cancel.difference_update(fresh)

        with contextlib.suppress(RuntimeError):  # the pool has been closed
            if fresh:
                self._to_cancel.update(fresh)
                self._cancellations.append(self._commands.submit(quietly))
                self._cancellations = [future for future in self._cancellations if not future.done()]

    def close(self) -> None:
        """End after the cancellations asked for, or a minute of them; a submission's answer is not waited for."""
        self._closing.set()
        wait(self._cancellations, timeout=_CLOSING_SECONDS)
        self._commands.shutdown(wait=False, cancel_futures=True)


def without_nodes(param: BatchPoolParam, nodes: set[str]) -> BatchPoolParam:
    """Return a pool whose jobs do not start on some nodes (Slurm only; others are ended when they start there)."""
    if not nodes or param.type != "slurm":
        return param
    extra = [*jobqueue.directives(param), f"--exclude={','.join(sorted(nodes))}"]
    return param.model_copy(update={"options": param.options | {"job_extra_directives": extra}})
