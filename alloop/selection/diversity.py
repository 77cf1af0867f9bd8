"""How new an environment is: its distance to what is known, and choosing the farthest first.

An environment is an element and a vector that describes what surrounds an atom of it; environments of different
elements are never compared. Distances are in units of a fixed :class:`Scale`: two environments drawn at random from
the reference set are about the square root of two apart, whatever the number of dimensions. For scale: in borosilicate
melts described by a trained model, atoms that all move at random by 0.01 Å along each axis end up 0.05 from where they
were, by 0.1 Å 0.5. Beside 100 labels of two trajectories of a glass of 72 atoms (300 to 3500 K, rehearsal force field,
a network at random) the atoms of a third were 0.03 to 0.4 away (5 to 95 %, half of them 0.12), at most 0.35 to 0.4 in
the most familiar frame. Vectors that are not finite describe nothing and are passed over.

Farthest-first choice is the greedy 2-approximation of T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985); distances
to what is known only shrink as more becomes known, so that old ones are bounds and only the best few need to be
brought up to date (M. Minoux, Optimization Techniques, Springer 1978, p. 234).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-3
"""Environments closer than this are the same: above the rounding of float32, far below one step of dynamics."""
CAPACITY = 4096
"""Environments of an element that stand for all of its training data."""
_FLOOR = 0.01
_BLOCK = 2**19


@dataclass(frozen=True)
class Environments:
    """elements (n,) int16, atomic numbers; vectors (n, dimensions) float32. ValueError where they do not fit."""

    elements: np.ndarray
    vectors: np.ndarray

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.elements.shape != self.vectors.shape[:1]:
            raise ValueError(
                f"elements have shape {self.elements.shape}, vectors {self.vectors.shape}; expected (n,) and (n, d)"
            )

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, rows: Any) -> Environments:
        return Environments(self.elements[rows], self.vectors[rows])

    @classmethod
    def together(cls, parts: Iterable[Environments]) -> Environments:
        """Return all environments of some parts, at least one, in order."""
        found = list(parts)
        return cls(np.concatenate([p.elements for p in found]), np.concatenate([p.vectors for p in found]))

    def finite(self) -> Environments:
        """Return those that are described by numbers."""
        good = np.isfinite(self.vectors).all(axis=1)
        return self if good.all() else self[good]


@dataclass(frozen=True)
class Scale:
    """What distances are measured in: per element the mean and the spread of a reference set.

    elements (E,) ascending; means, spreads (E, d). Where a number hardly varies in the reference its spread is one
    hundredth of the element's root mean square, lest rounding look like novelty. An element that is missing there,
    or of which all are equal, has the average spread of the others, 1 if there is none.
    """

    elements: np.ndarray
    means: np.ndarray
    spreads: np.ndarray

    @classmethod
    def fit(cls, reference: Environments) -> Scale:
        """Return the scale of a reference set, in any order."""
        reference = reference.finite()
        elements = np.unique(reference.elements)
        width = reference.vectors.shape[1]
        means, spreads = np.zeros((len(elements) + 1, width)), np.zeros((len(elements) + 1, width))
        for row, element in enumerate(elements.tolist()):
            own = reference.vectors[reference.elements == element].astype(np.float64)
            means[row], deviation = own.mean(axis=0), own.std(axis=0)
            spreads[row] = np.maximum(deviation, _FLOOR * np.sqrt(np.square(deviation).mean()))
        varies = spreads[:-1].any(axis=1)
        fallback = spreads[:-1][varies].mean(axis=0) if varies.any() else np.ones(width)
        spreads[~np.append(varies, False)] = fallback
        return cls(elements.astype(np.int16), means.astype(np.float32), spreads.astype(np.float32))

    def __post_init__(self) -> None:
        if self.means.shape != self.spreads.shape or len(self.means) != len(self.elements) + 1:
            raise ValueError("a scale has one row of means and spreads per element, and one more for all others")
        if not (self.spreads > 0).all():
            raise ValueError("a scale's spreads must be positive")

    def apply(self, environments: Environments) -> np.ndarray:
        """Return the vectors (n, d) float32 in which distances are plain Euclidean ones."""
        row = np.searchsorted(self.elements, environments.elements)
        found = row < len(self.elements)
        found[found] = self.elements[row[found]] == environments.elements[found]
        row[~found] = len(self.elements)
        width = np.float32(np.sqrt(self.means.shape[1]))
        return (environments.vectors - self.means[row]) / (self.spreads[row] * width)


def extended(points: np.ndarray) -> np.ndarray:
    """Return points (n, d + 1) float64, each followed by minus half its square: ready for `least_distances`."""
    points = np.asarray(points, dtype=np.float64)
    return np.concatenate([points, -0.5 * np.square(points).sum(axis=1, keepdims=True)], axis=1)


def least_distances(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance (q,) of each query (q, d) to the nearest of the `extended` points; infinite for none.

    |q - p|² = |q|² - 2 (q·p - |p|²/2): one matrix product per block; its error is that of a float64 square root.
    """
    found = np.full(len(queries), np.inf)
    if len(points) == 0:
        return found
    rows = max(1, _BLOCK // len(points))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows].astype(np.float64)
        squares = np.square(block).sum(axis=1)
        block = np.concatenate([block, np.ones((len(block), 1))], axis=1)
        squares -= 2 * (block @ points.T).max(axis=1)
        found[start : start + rows] = np.sqrt(np.maximum(squares, 0))
    return found


def farthest_points(points: np.ndarray, count: int, tolerance: float = 0.0) -> tuple[np.ndarray, float]:
    """Return (indices, radius): at most `count` points (n, d), each the farthest from those before it.

    The first is the one farthest from the origin, of equals the first. All others lie within `radius` of a chosen
    one; choosing ends early where that is at most `tolerance`, so that equal points are chosen once.
    """
    if len(points) == 0 or count < 1:
        return np.zeros(0, dtype=int), np.inf if len(points) else 0.0
    far = extended(points)
    squares = -2 * far[:, -1]
    chosen = [int(np.argmax(squares))]
    least = np.full(len(points), np.inf)
    while True:
        centre = np.append(far[chosen[-1], :-1], 1.0)
        np.minimum(least, squares[chosen[-1]] + squares - 2 * (far[:, :-1] @ centre[:-1]), out=least)
        least[chosen[-1]] = 0.0
        following = int(np.argmax(least))
        radius = float(np.sqrt(max(least[following], 0.0)))
        if len(chosen) == count or radius <= max(tolerance, 1e-7):
            return np.array(chosen), radius
        chosen.append(following)


class _Log:
    """Points (n, d + 1) of one element that became known one after the other."""

    def __init__(self, width: int) -> None:
        self._points = np.zeros((16, width + 1))
        self.count = 0

    def extend(self, points: np.ndarray) -> None:
        wanted = self.count + len(points)
        if wanted > len(self._points):
            grown = np.zeros((max(wanted, 2 * len(self._points)), self._points.shape[1]))
            grown[: self.count] = self._points[: self.count]
            self._points = grown
        self._points[self.count : wanted] = points
        self.count = wanted

    def since(self, count: int) -> np.ndarray:
        return self._points[count : self.count]


class Known:
    """The environments of training data, of labels in flight, and of frames already chosen.

    Those of training data (`cover`) are thinned farthest-first to `capacity` per element, so that a campaign of any
    length fits: beyond it a training environment is told apart to `radius` only, which grows. Those of frames asked
    for (`add`) are few per label and kept exactly. How new an environment is: its distance to the nearest of either.
    """

    def __init__(self, scale: Scale, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; expected 1 or more environments per element")
        self.scale, self.capacity = scale, capacity
        self._cover: dict[int, np.ndarray] = {}
        self._radius: dict[int, float] = {}
        self._log: dict[int, _Log] = {}
        self.version = 0

    @property
    def width(self) -> int:
        """Return the number of dimensions of a vector."""
        return int(self.scale.means.shape[1])

    def radius(self, element: int) -> float:
        """Return to within which distance training environments of an element are told apart, 0 for exactly."""
        return self._radius.get(element, 0.0)

    def count(self, element: int) -> int:
        """Return how many environments of an element were added one by one."""
        log = self._log.get(element)
        return log.count if log else 0

    def cover(self, environments: Environments) -> None:
        """Take in environments of training data; of one call, in any order.

        As long as an element has no more than `capacity` different ones all are kept; then only those farther than
        `radius` from the rest, and as they double the capacity they are thinned again (the idea of M. Charikar et
        al., SIAM J. Comput. 33, 1417 (2004), for centres of a stream). Not for use while a `Frontier` stands.
        """
        environments = environments.finite()
        scaled = self.scale.apply(environments)
        for element in np.unique(environments.elements).tolist():
            own = scaled[environments.elements == element]
            own = np.unique(own, axis=0)
            for start in range(0, len(own), self.capacity):
                self._cover_block(element, own[start : start + self.capacity])
            if len(self._cover[element]) > self.capacity:
                self._thin(element)

    def _cover_block(self, element: int, block: np.ndarray) -> None:
        held = self._cover.get(element, np.zeros((0, block.shape[1] + 1)))
        new = block[least_distances(block, held) > max(self.radius(element), TOLERANCE / 10)]
        self._cover[element] = np.concatenate([held, extended(new)])
        if len(self._cover[element]) >= 2 * self.capacity:
            self._thin(element)

    def _thin(self, element: int) -> None:
        held = self._cover[element]
        chosen, radius = farthest_points(held[:, :-1], self.capacity)
        self._cover[element] = held[chosen]
        self._radius[element] = max(self.radius(element), radius)

    def add(self, environments: Environments) -> None:
        """Take in the environments of a frame that was asked for, exactly."""
        environments = environments.finite()
        points = extended(self.scale.apply(environments))
        for element in np.unique(environments.elements).tolist():
            log = self._log.setdefault(element, _Log(points.shape[1] - 1))
            log.extend(points[environments.elements == element])
        self.version += len(environments)

    def distances(self, elements: np.ndarray, points: np.ndarray, since: np.ndarray | None = None) -> np.ndarray:
        """Return how new environments are, (n,); infinite where nothing of the element is known.

        points: (n, d) as `scale.apply` gives them. since (n,): only of those added later than so many of the element.
        """
        found = np.full(len(elements), np.inf)
        for element in np.unique(elements).tolist():
            rows = np.flatnonzero(elements == element)
            first = 0
            if since is None:
                found[rows] = least_distances(points[rows], self._cover.get(element, np.zeros((0, 1))))
            else:
                rows = rows[since[rows] < self.count(element)]
                first = int(since[rows].min()) if len(rows) else 0
            if len(rows) and self.count(element) > first:
                added = least_distances(points[rows], self._log[element].since(first))
                found[rows] = np.minimum(found[rows], added)
        return found

    def novelty(self, environments: Environments) -> np.ndarray:
        """Return how new environments are, (n,): NaN where not described, infinite for an element not known at all."""
        good = np.isfinite(environments.vectors).all(axis=1)
        found = np.full(len(environments), np.nan)
        found[good] = self.distances(environments.elements[good], self.scale.apply(environments[good]))
        return found

    def mark(self) -> tuple[int, dict[int, int]]:
        """Return what `cut` needs to forget all that is added from now on."""
        return self.version, {element: log.count for element, log in self._log.items()}

    def cut(self, mark: tuple[int, dict[int, int]]) -> None:
        """Forget what was added since a mark."""
        self.version = mark[0]
        for element, log in self._log.items():
            log.count = mark[1].get(element, 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scale and training data as named arrays for ``.npz``; what was added one by one is not among them."""
        elements = sorted(self._cover)
        points = [self._cover[element][:, :-1] for element in elements]
        return {
            "scale_elements": self.scale.elements,
            "scale_means": self.scale.means,
            "scale_spreads": self.scale.spreads,
            "capacity": np.array(self.capacity),
            "elements": np.array(elements, dtype=np.int16),
            "radii": np.array([self.radius(element) for element in elements]),
            "counts": np.array([len(own) for own in points], dtype=int),
            "points": np.concatenate([np.zeros((0, self.width)), *points]).astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Any) -> Known:
        """Return what `arrays` told, read back."""
        scale = Scale(arrays["scale_elements"], arrays["scale_means"], arrays["scale_spreads"])
        known = cls(scale, int(arrays["capacity"]))
        parts = np.split(arrays["points"], np.cumsum(arrays["counts"])[:-1])
        for element, radius, points in zip(arrays["elements"].tolist(), arrays["radii"].tolist(), parts, strict=False):
            known._cover[element], known._radius[element] = extended(points), radius
        return known
