"""Where attempts run. Every pool starts `alloop.attempt` processes and tells when one has ended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Slot:
    """A place where one batch of tasks may start now; remaining_s: until the walltime of its job ends."""

    pool: str
    name: str
    remaining_s: float = math.inf


@dataclass(frozen=True)
class Ended:
    """A batch of tasks whose process has ended.

    return_code: None if it was not this pool's child; cause: "walltime" or "infra" if the pool knows that the end was
    no doing of the tasks.
    """

    keys: tuple[str, ...]
    return_code: int | None
    cause: str = ""


class Pool(Protocol):
    """A place with slots. Ends are put into the queue the pool was made with, from any thread."""

    name: str

    def free_slots(self) -> list[Slot]:
        """Return the slots on which a batch may start now."""
        ...

    def demand(self, batches: int, longest_s: float | None) -> None:
        """Hear how many batches wait for a slot, and the estimate of the longest; called every second or so."""
        ...

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        """Start one process for a batch of tasks of one kind."""
        ...

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        """Watch an attempt of an earlier driver by its record ``attempt.json``; it occupies a slot until it ends."""
        ...

    def alive(self, owner: dict[str, Any]) -> bool:
        """Tell whether the process of an attempt's record still runs, as far as can be known here."""
        ...

    def end(self, owners: Iterable[dict[str, Any]]) -> None:
        """End attempts with all their children."""
        ...

    def troubles(self) -> list[str]:
        """Return what a person should know, such as submissions that fail or nodes that are avoided."""
        ...

    def close(self, *, cancel_jobs: bool) -> None:
        """Let go: attempts that still run go on by themselves, unless their jobs are cancelled."""
        ...
