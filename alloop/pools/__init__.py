"""Where attempts run. Every pool starts `alloop.attempt` processes and tells when one has ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A batch of tasks whose process has ended (return code None if it was not this pool's child)."""

    keys: tuple[str, ...]
    return_code: int | None
