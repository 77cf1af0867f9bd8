"""Events: what is to be seen in a frame besides the deviation, which atoms show it, and when a frame is lost.

An event is declared as plain settings, a mapping with its `kind` and what that kind needs (lengths in Å):

- ``pair_distance``: `below_A`, `above_A`, `gate_A`, each from a pair to a length as in
  `alloop.selection.pair_lengths`. Atoms whose nearest partner is closer than `below_A`; atoms of the first-named
  species whose nearest partner of the second-named one is farther than `above_A`, entry by entry (none if the frame
  holds no such partner). A pair closer than its `gate_A` makes the frame lost;
- ``coordination``: atoms of `element` that have, of the species in `by` closer than `cutoff_A` (by species), at least
  `at_least` and at most `at_most` (None: no bound);
- ``edge_sharing``: two of the `formers` that share two or more atoms of species `by` closer than `cutoff_A`
  (by former); both formers and the shared atoms;
- ``ring``: the formers and oxygen atoms of every ring of `size` `formers`, by `definition`, see `alloop.glass.rings`;
- ``density``: outside `lowest_g_cm3` to `highest_g_cm3`, or farther from the density that the chunk began with
  than the fraction `relative_excursion` of it (None: no bound); all atoms;
- ``temperature``: farther than `excursion_K` from the thermostat's target, or not finite; all atoms.

All bounds on lengths, density and temperature are strict: what lies exactly at one is no event, and no bond.
`Watch` evaluates all declared events on one neighbour list per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from alloop.glass.analysis import density_g_cm3
from alloop.glass.neighbours import NeighbourList, neighbour_list, pair_minima_A, periodic_cell
from alloop.glass.rings import find_rings
from alloop.selection.pair_lengths import ANY, length_matrix_A, split_pair

Indices = NDArray[np.int64]
Settings = Mapping[str, Any]

CONTACTS_A = 3.0
"""How far nearest distances are looked for and recorded."""
_NOBODY: Indices = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Scene:
    """One frame as events see it; the temperatures and the first density are None where nothing is known of them."""

    atoms: Atoms
    neighbours: NeighbourList
    temperature_K: float | None = None
    target_temperature_K: float | None = None
    first_density_g_cm3: float | None = None

    @property
    def everyone(self) -> Indices:
        """Indices of all atoms."""
        return np.arange(self.neighbours.n_atoms)

    def of_species(self, symbol: str) -> NDArray[np.bool_]:
        """Mask (n_atoms,) of a species, or of all atoms for "X"."""
        everyone = np.ones(self.neighbours.n_atoms, dtype=bool)
        return everyone if symbol == ANY else self.neighbours.is_element(symbol)


@dataclass(frozen=True)
class FrameEvents:
    """What was seen in one frame.

    min_distance_A: shortest distance of each element pair closer than `CONTACTS_A`. offending: for every declared
    event the sorted indices of the atoms that show it, empty where it was not seen. lost_reason: why the frame is
    unphysical, or None.
    """

    min_distance_A: dict[str, float]
    offending: dict[str, Indices]
    lost_reason: str | None

    def seen(self, event: str) -> bool:
        """Tell whether an event was seen; KeyError for one that was not declared."""
        return len(self.offending[event]) > 0


class Event(Protocol):
    """One declared event: how far it needs neighbours, and who shows it."""

    @property
    def reach_A(self) -> float:
        """Cutoff that the neighbour list needs at least."""

    def offending(self, scene: Scene) -> Indices:
        """Sorted indices of the atoms that show the event."""


class Watch:
    """Watches frames for declared events.

    definitions: settings by name, as described on top of this module; start: the frame that the chunk begins with, if
    densities are to be compared with its own. ValueError if a definition is of no known kind, lacks a setting or has
    one too many.
    """

    def __init__(self, definitions: Mapping[str, Settings], start: Atoms | None = None) -> None:
        self._first_density_g_cm3 = None if start is None else density_g_cm3(start)
        self.events: dict[str, Event] = {name: _event(name, settings) for name, settings in definitions.items()}
        self._gates = [event.gates for event in self.events.values() if isinstance(event, PairDistance)]
        self._reach_A = max([CONTACTS_A, *(event.reach_A for event in self.events.values())])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the declared events, in their order."""
        return tuple(self.events)

    def look(
        self, atoms: Atoms, *, temperature_K: float | None = None, target_temperature_K: float | None = None
    ) -> FrameEvents:
        """Return all that is to be seen in a frame; without its temperatures no excursion of them is.

        A frame with a position or a cell that is not finite is lost and shows nothing else: a broken run is an
        answer, not an error. ValueError for a frame without atoms or with a flat cell.
        """
        if broken := _not_finite(atoms):
            return FrameEvents({}, dict.fromkeys(self.events, _NOBODY), broken)
        neighbours = neighbour_list(atoms, self._reach_A)
        scene = Scene(atoms, neighbours, temperature_K, target_temperature_K, self._first_density_g_cm3)
        nearest = {pair: length for pair, length in pair_minima_A(neighbours).items() if length < CONTACTS_A}
        offending = {name: event.offending(scene) for name, event in self.events.items()}
        return FrameEvents(nearest, offending, self._gate_broken(neighbours))

    def _gate_broken(self, neighbours: NeighbourList) -> str | None:
        """Name the pair that is closest in proportion to its gate, if any is closer than it."""
        if not self._gates:
            return None
        gates_A = np.max([_matrix_A(neighbours.elements, gates) for gates in self._gates], axis=0)
        pairs, limits_A = _closer_than(neighbours, gates_A)
        if not len(pairs):
            return None
        worst = int(np.argmin(neighbours.distances_A[pairs] / limits_A))
        i, j = (int(side[pairs[worst]]) for side in (neighbours.first, neighbours.second))
        one, other = (neighbours.elements[neighbours.species[atom]] for atom in (i, j))
        return (
            f"{one} {i} and {other} {j} are {neighbours.distances_A[pairs[worst]]:.2f} Å apart, "
            f"closer than the hard gate of {limits_A[worst]:.2f} Å"
        )


def _not_finite(atoms: Atoms) -> str | None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        return f"{atoms.symbols[bad[0]]} {bad[0]} has a position that is not finite"
    return None if np.isfinite(atoms.cell.array).all() else "the cell holds numbers that are not finite"


# ---------------------------------------------------------------------------------------- kinds of events

_Lengths = tuple[tuple[str, float], ...]


@lru_cache(maxsize=256)
def _matrix_A(species: tuple[str, ...], lengths: _Lengths) -> NDArray[np.float64]:
    return length_matrix_A(species, dict(lengths))


def _closer_than(neighbours: NeighbourList, limits_A: NDArray[np.float64]) -> tuple[Indices, NDArray[np.float64]]:
    """Return the pairs closer than the limit (n_species, n_species) of their two species, and those limits."""
    species, n = neighbours.species, len(neighbours.elements)
    limit_A = limits_A.ravel()[species[neighbours.first] * n + species[neighbours.second]]
    pairs = np.flatnonzero(neighbours.distances_A < limit_A)
    return pairs, limit_A[pairs]


def _per_species(neighbours: NeighbourList, lengths_A: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the length of each species in the frame, 0 for one that has none."""
    return np.array([lengths_A.get(symbol, 0.0) for symbol in neighbours.elements])


@dataclass(frozen=True)
class PairDistance:
    """Partners too close or too far; see the module. The gates are judged by `Watch`."""

    below: _Lengths
    above: _Lengths
    gates: _Lengths

    @property
    def reach_A(self) -> float:
        """The longest length; a little more for `above_A`, so that a partner exactly there is found."""
        far = [float(np.nextafter(length, np.inf)) for _, length in self.above]
        return max([*(length for _, length in self.below + self.gates), *far])

    def offending(self, scene: Scene) -> Indices:
        """Sorted indices of the atoms too close to, or too far from, their nearest partner."""
        neighbours = scene.neighbours
        close, _ = _closer_than(neighbours, _matrix_A(neighbours.elements, self.below))
        found = [neighbours.first[close], *(self._lonely(scene, pair, length) for pair, length in self.above)]
        return np.unique(np.concatenate(found))

    @staticmethod
    def _lonely(scene: Scene, pair: str, length_A: float) -> Indices:
        neighbours = scene.neighbours
        centre, partner = map(scene.of_species, split_pair(pair))
        met = centre[neighbours.first] & partner[neighbours.second] & (neighbours.distances_A <= length_A)
        lonely = centre.copy()
        lonely[neighbours.first[met]] = False
        if not periodic_cell(scene.atoms)[1].any():  # without images an atom is no partner of its own
            lonely &= partner.sum() > partner
        return np.flatnonzero(lonely) if partner.any() else _NOBODY


@dataclass(frozen=True)
class Coordination:
    """Atoms with a number of neighbours between two bounds; see the module."""

    element: str
    cutoff_A: dict[str, float]
    at_least: int
    at_most: float

    @property
    def reach_A(self) -> float:
        """The longest bond."""
        return max(self.cutoff_A.values())

    def offending(self, scene: Scene) -> Indices:
        """Sorted indices of the atoms of the element whose number of bonds is within the bounds."""
        neighbours = scene.neighbours
        centre = neighbours.is_element(self.element)
        limit_A = _per_species(neighbours, self.cutoff_A)[neighbours.species[neighbours.second]]
        bonded = centre[neighbours.first] & (neighbours.distances_A < limit_A)
        count = np.bincount(neighbours.first[bonded], minlength=neighbours.n_atoms)
        return np.flatnonzero(centre & (count >= self.at_least) & (count <= self.at_most))


@dataclass(frozen=True)
class EdgeSharing:
    """Two formers joined by two or more ligands; see the module."""

    by: str
    cutoff_A: dict[str, float]

    @property
    def reach_A(self) -> float:
        """The longest bond."""
        return max(self.cutoff_A.values())

    def offending(self, scene: Scene) -> Indices:
        """Sorted indices of the formers that share an edge, and of the ligands that make it.

        A former is met with the lattice vector of its image: one bridge to an atom and another one to an image of
        it are no shared edge, two bridges to the same image of itself are one.
        """
        neighbours = scene.neighbours
        limit_A = _per_species(neighbours, self.cutoff_A)[neighbours.species[neighbours.second]]
        is_bond = neighbours.is_element(self.by)[neighbours.first] & (neighbours.distances_A < limit_A)
        bonds = np.flatnonzero(is_bond)
        bonds = bonds[np.argsort(neighbours.first[bonds], kind="stable")]
        ligand, former = neighbours.first[bonds], neighbours.second[bonds]
        one, other = _pairs_within_groups(ligand)
        code = former[one] * neighbours.n_atoms + former[other]
        _, inverse, count = np.unique(code, return_inverse=True, return_counts=True)
        maybe = count[inverse] >= 2  # most formers share one ligand or none, and need no look at lattice vectors
        if not maybe.any():
            return _NOBODY
        one, other = one[maybe], other[maybe]
        shift = neighbours.shifts[bonds]
        link = np.column_stack([former[one], former[other], shift[other] - shift[one]])
        _, inverse, count = np.unique(link, axis=0, return_inverse=True, return_counts=True)
        shared = count[inverse.ravel()] >= 2
        return np.unique(np.concatenate([former[one[shared]], ligand[one[shared]]]))


def _pairs_within_groups(group: Indices) -> tuple[Indices, Indices]:
    """Return all ordered pairs of different positions of equal value in a sorted array."""
    _, start, size = np.unique(group, return_index=True, return_counts=True)
    partners = np.repeat(size, size)  # by position, itself included
    one = np.repeat(np.arange(len(group)), partners)
    within = np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    other = np.repeat(np.repeat(start, size), partners) + within
    different = one != other
    return one[different], other[different]


@dataclass(frozen=True)
class Rings:
    """Rings of one size; see the module."""

    formers: tuple[str, ...]
    size: int
    definition: str
    cutoff_A: dict[str, float]

    @property
    def reach_A(self) -> float:
        """The longest bond."""
        return max(self.cutoff_A.values())

    def offending(self, scene: Scene) -> Indices:
        """Sorted indices of the formers and oxygen atoms of the rings."""
        cutoffs_A = {f"{former}-O": length for former, length in self.cutoff_A.items()}
        options: dict[str, Any] = {"formers": self.formers, "definition": self.definition, "max_ring": self.size}
        rings = find_rings(scene.neighbours, cutoffs_A=cutoffs_A, **options)
        members = [ring.formers + ring.oxygens for ring in rings if ring.size == self.size]
        return np.unique(np.array(members, dtype=np.int64))


@dataclass(frozen=True)
class Density:
    """A density out of bounds; see the module."""

    lowest_g_cm3: float
    highest_g_cm3: float
    relative_excursion: float
    reach_A: float = 0.0

    def offending(self, scene: Scene) -> Indices:
        """All atoms or none; none for a frame without a volume."""
        density, first = density_g_cm3(scene.atoms), scene.first_density_g_cm3
        if density is None:
            return _NOBODY
        out = not self.lowest_g_cm3 <= density <= self.highest_g_cm3
        far = first is not None and abs(density - first) > self.relative_excursion * first
        return scene.everyone if out or far else _NOBODY


@dataclass(frozen=True)
class Temperature:
    """A temperature far from the thermostat's target; see the module."""

    excursion_K: float
    reach_A: float = 0.0

    def offending(self, scene: Scene) -> Indices:
        """All atoms or none; none where either temperature is unknown."""
        if scene.temperature_K is None or scene.target_temperature_K is None:
            return _NOBODY
        near = abs(scene.temperature_K - scene.target_temperature_K) <= self.excursion_K
        return _NOBODY if near else scene.everyone


# ---------------------------------------------------------------------------------------- from settings


def _lengths(settings: Settings, key: str) -> _Lengths:
    return tuple(sorted(settings.get(key, {}).items()))


def _bound(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _pair_distance(settings: Settings) -> Event:
    below, above, gates = (_lengths(settings, key) for key in ("below_A", "above_A", "gate_A"))
    if not below + above + gates:
        raise ValueError("no below_A, above_A or gate_A is given")
    length_matrix_A((), dict(below)), length_matrix_A((), dict(gates))  # no pair is wrong or there twice
    return PairDistance(below, above, gates)


def _coordination(settings: Settings) -> Event:
    cutoff_A = {symbol: float(settings["cutoff_A"][symbol]) for symbol in settings["by"]}
    at_most = _bound(settings.get("at_most"), np.inf)
    return Coordination(settings["element"], cutoff_A, int(_bound(settings.get("at_least"), 0)), at_most)


def _edge_sharing(settings: Settings) -> Event:
    return EdgeSharing(settings["by"], _of_formers(settings))


def _ring(settings: Settings) -> Event:
    return Rings(tuple(settings["formers"]), settings["size"], settings["definition"], _of_formers(settings))


def _of_formers(settings: Settings) -> dict[str, float]:
    return {symbol: float(settings["cutoff_A"][symbol]) for symbol in settings["formers"]}


def _density(settings: Settings) -> Event:
    lowest, highest = _bound(settings.get("lowest_g_cm3"), 0.0), _bound(settings.get("highest_g_cm3"), np.inf)
    return Density(lowest, highest, _bound(settings.get("relative_excursion"), np.inf))


def _temperature(settings: Settings) -> Event:
    return Temperature(settings["excursion_K"])


_KINDS: dict[str, tuple[Callable[[Settings], Event], Sequence[str]]] = {
    "pair_distance": (_pair_distance, ("below_A", "above_A", "gate_A")),
    "coordination": (_coordination, ("element", "by", "cutoff_A", "at_least", "at_most")),
    "edge_sharing": (_edge_sharing, ("formers", "by", "cutoff_A")),
    "ring": (_ring, ("formers", "size", "definition", "cutoff_A")),
    "density": (_density, ("lowest_g_cm3", "highest_g_cm3", "relative_excursion")),
    "temperature": (_temperature, ("excursion_K",)),
}
KINDS = tuple(_KINDS)


def _event(name: str, settings: Settings) -> Event:
    kind = settings.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"event {name!r} is of kind {kind!r}; use one of {', '.join(KINDS)}")
    make, known = _KINDS[kind]
    unknown = sorted(settings.keys() - {"kind", *known})
    if unknown:
        raise ValueError(f"event {name!r} of kind {kind} has no {', '.join(unknown)}; it takes {', '.join(known)}")
    try:
        return make(settings)
    except KeyError as error:
        raise ValueError(f"event {name!r} of kind {kind} lacks {error}; it takes {', '.join(known)}") from None
    except ValueError as error:
        raise ValueError(f"event {name!r}: {error}") from None
