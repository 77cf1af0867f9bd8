"""All pools of a campaign as one: which kind of task runs where, and one queue on which every end is heard."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from alloop.config import Param
from alloop.errors import InputError
from alloop.pool_params import LOCAL, BatchPoolParam, LocalPoolParam, pool_slots
from alloop.pools import Ended, Pool, Slot
from alloop.pools.local import LocalHost, LocalPool


class Host(Protocol):
    """What several pools share, to be closed after them."""

    def close(self) -> None:
        """Let go of it."""
        ...


class Fleet:
    """The pools that `param.json` names."""

    def __init__(self, pools: dict[str, Pool], events: queue.SimpleQueue[Ended], *hosts: Host) -> None:
        self.pools = pools
        self._events = events
        self._hosts = hosts

    def free_slots(self) -> list[Slot]:
        """Return the slots of all pools on which a batch may start now."""
        return [slot for pool in self.pools.values() for slot in pool.free_slots()]

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        """Start one process for a batch of tasks of one kind."""
        self.pools[slot.pool].start(slot, keys, folders)

    def demand(self, wanted: dict[str, tuple[int, float | None]]) -> None:
        """Tell each pool how many batches wait for it, and how long the longest may take."""
        for name, pool in self.pools.items():
            pool.demand(*wanted.get(name, (0, None)))

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        """Watch an attempt of an earlier driver; one of a pool that is no more is watched by one that can see it."""
        self._pool_of(owner).adopt(owner, keys, folders)

    def alive(self, owner: dict[str, Any]) -> bool:
        """Tell whether the process of an attempt's record still runs, as far as can be known."""
        return self._pool_of(owner).alive(owner)

    def _pool_of(self, owner: dict[str, Any]) -> Pool:
        return self.pools.get(owner.get("pool") or LOCAL, self.pools[LOCAL])

    def wait(self, seconds: float) -> list[Ended]:
        """Return the batches that have ended, waiting up to `seconds` for the first."""
        ended = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._events.get(timeout=seconds))
            while True:
                ended.append(self._events.get_nowait())
        return ended

    def end(self, owners: Iterable[dict[str, Any]]) -> None:
        """End attempts with all their children."""
        for owner in owners:
            self._pool_of(owner).end([owner])

    def troubles(self) -> list[str]:
        """Return what a person should know about the pools."""
        return [trouble for pool in self.pools.values() for trouble in pool.troubles()]

    def close(self, *, cancel_jobs: bool = False) -> None:
        """Let go of all pools; attempts that still run go on by themselves."""
        for pool in self.pools.values():
            pool.close(cancel_jobs=cancel_jobs)
        for host in self._hosts:
            host.close()


def open_fleet(param: Param, run_folder: Path, campaign_id: str, epoch: int) -> Fleet:
    """Return the pools of a configuration, ready to start work."""
    events: queue.SimpleQueue[Ended] = queue.SimpleQueue()
    locals_ = {name: pool for name, pool in param.pools.items() if isinstance(pool, LocalPoolParam)}
    host = LocalHost(sum(map(pool_slots, locals_.values())))
    pools: dict[str, Pool] = {
        name: LocalPool(name, pool, host, events, run_folder, epoch) for name, pool in locals_.items()
    }
    batch = {name: pool for name, pool in param.pools.items() if isinstance(pool, BatchPoolParam)}
    if not batch and not (run_folder / "jobs").is_dir():
        return Fleet(pools, events, host)
    from alloop.pools.batch_host import open_batch_pools  # a second of imports that only batch systems need

    jobs = open_batch_pools(batch, events, run_folder, campaign_id, epoch)
    for name in jobs.pools.keys() & pools.keys():
        raise InputError(
            f"pools.{name} is local now, but batch jobs of a pool of this name are on record\n"
            "  give the local pool another name, or cancel those jobs first: alloop stop --cancel-jobs"
        )
    return Fleet(pools | dict(jobs.pools), events, host, jobs)
