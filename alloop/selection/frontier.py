"""Frames that wait, by how new what they show is: the best of them at any moment, brought up to date lazily.

An *ask* is a frame with one reason to label it; it is as new as the newest of its offending atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alloop.selection.diversity import TOLERANCE, Environments, Known

_BLOCK = 8192
"""Environments that are scaled and compared at once: some ten megabytes."""


class Column:
    """A growing array; the first part is taken over as it is, without a copy, and must not be changed elsewhere."""

    def __init__(self) -> None:
        self._data: np.ndarray | None = None
        self.count = 0

    def extend(self, part: np.ndarray) -> None:
        """Add entries at the end."""
        if self._data is None or self.count == 0:
            self._data, self.count = part, len(part)
            return
        wanted = self.count + len(part)
        if wanted > len(self._data):
            grown = np.empty((max(wanted, 2 * len(self._data)), *self._data.shape[1:]), dtype=self._data.dtype)
            grown[: self.count] = self._data[: self.count]
            self._data = grown
        self._data[self.count : wanted] = part
        self.count = wanted

    def all(self) -> np.ndarray:
        """Return what is there, not to be changed."""
        return self[: self.count] if self._data is not None else np.zeros(0)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        assert self._data is not None
        return self._data[rows]

    def __setitem__(self, rows: np.ndarray | slice, values: np.ndarray) -> None:
        assert self._data is not None
        self._data[rows] = values


class Frontier:
    """The environments of asks, each with its distance to what was known when it was last looked at.

    Asks are numbered in the order they are put. While `journal` is a list, changes are noted in it and `undo` takes
    them back.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self.journal: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None
        self._elements, self._vectors = Column(), Column()
        self._row, self._distance, self._seen = Column(), Column(), Column()
        self._first = Column()
        self._first.extend(np.zeros(1, dtype=np.int64))

    def put(self, table: Environments, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Take in asks and return how new each is, (asks,); NaN for one without a described atom.

        rows: of the table, ask after ask, counts (asks,) of them each.
        """
        described = np.isfinite(table.vectors).all(axis=1)[rows]
        if not described.all():
            ask = np.repeat(np.arange(len(counts)), counts)
            rows, counts = rows[described], np.bincount(ask[described], minlength=len(counts))
        base, first = self._elements.count, self._row.count
        self._elements.extend(table.elements)
        self._vectors.extend(table.vectors)
        distance, seen = self._look(table, rows)
        self._row.extend((rows + base).astype(np.int32))
        self._distance.extend(distance)
        self._seen.extend(seen)
        self._first.extend(first + np.cumsum(counts))
        return _newest(distance, counts)

    def _look(self, table: Environments, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return distances to all that is known, and how many were added of the element, block by block."""
        distance, seen = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.int32)
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            block = table[rows[part]]
            distance[part] = self.known.distances(block.elements, self.known.scale.apply(block))
            seen[part] = self._counts(block.elements)
        return distance, seen

    def _counts(self, elements: np.ndarray) -> np.ndarray:
        counts = np.zeros(len(elements), dtype=np.int32)
        for element in np.unique(elements).tolist():
            counts[elements == element] = self.known.count(element)
        return counts

    def novelty(self, asks: Sequence[int]) -> np.ndarray:
        """Return how new asks are by now, (asks,), NaN for those without a described atom."""
        slots, counts = self._slots(np.asarray(asks, dtype=np.int64))
        block = self._table(slots)
        before, seen = self._distance[slots], self._seen[slots]
        if self.journal is not None:
            self.journal.append((slots, before.copy(), seen.copy()))
        now = np.minimum(before, self.known.distances(block.elements, self.known.scale.apply(block), seen))
        self._distance[slots] = now
        self._seen[slots] = self._counts(block.elements)
        return _newest(now, counts)

    def environments(self, ask: int) -> Environments:
        """Return the described offending atoms of an ask, perhaps none."""
        return self._table(self._slots(np.array([ask]))[0])

    def described(self, rows: np.ndarray) -> Environments:
        """Return rows of all tables that were put, counted through."""
        return Environments(self._elements[rows], self._vectors[rows])

    def undo(self) -> None:
        """Take back what was noted in the journal, and end it."""
        for slots, distance, seen in reversed(self.journal or []):
            self._distance[slots], self._seen[slots] = distance, seen
        self.journal = None

    def _slots(self, asks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = self._first[asks]
        counts = self._first[asks + 1] - first
        offsets = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts)
        return offsets + np.arange(len(offsets)), counts

    def _table(self, slots: np.ndarray) -> Environments:
        return self.described(self._row[slots])


def _newest(distances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the largest distance of each ask, NaN for one without any."""
    found = np.full(len(counts), np.nan)
    some = counts > 0
    if some.any():
        first = np.append(0, np.cumsum(counts)[:-1])
        found[some] = np.maximum.reduceat(distances, first[some])
    return found


def select_farthest(
    offending: Sequence[Environments], known: Known, count: int, tolerance: float = TOLERANCE
) -> list[int]:
    """Return the indices of at most `count` frames, each the newest beside what is known and chosen before it.

    offending: of each frame the environments it is judged by. A frame closer than `tolerance` to what is known, or
    without a described one, is never chosen; of equals the first is. What is chosen is added to `known`.
    """
    import heapq

    if not offending:
        return []
    frontier = Frontier(known)
    table = Environments.together(offending)
    bounds = frontier.put(table, np.arange(len(table)), np.array([len(own) for own in offending]))
    heap = [(-bound, index, known.version) for index, bound in enumerate(bounds.tolist()) if bound >= tolerance]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, index, seen = heapq.heappop(heap)
        if seen == known.version:
            chosen.append(index)
            known.add(frontier.environments(index))
            continue
        novelty = float(frontier.novelty([index])[0])
        if novelty >= tolerance:
            heapq.heappush(heap, (-novelty, index, known.version))
    return chosen
