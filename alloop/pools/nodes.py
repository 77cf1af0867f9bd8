"""Nodes that fail one attempt after the other, and are left out for some time."""

from __future__ import annotations

import time
from collections import Counter

FAILURES = 3
"""So many failures in a row, without a success between, and a node is avoided."""


class Nodes:
    """How the nodes of a pool have done; a new driver begins anew."""

    def __init__(self, avoid_s: float) -> None:
        self._avoid_s = avoid_s
        self._streaks: Counter[str] = Counter()
        self._until: dict[str, float] = {}

    def succeeded(self, node: str | None) -> None:
        """Note an attempt that ended well."""
        if node is not None:
            self._streaks[node] = 0

    def failed(self, node: str | None) -> None:
        """Note an attempt or a job for whose failure the node may be to blame."""
        if node is not None:
            self._streaks[node] += 1
            if self._streaks[node] >= FAILURES:
                self._until[node] = time.monotonic() + self._avoid_s
                self._streaks[node] = 0

    def avoided(self) -> set[str]:
        """Return the nodes that are to be given no work now."""
        now = time.monotonic()
        self._until = {node: until for node, until in self._until.items() if until > now}
        return set(self._until)
