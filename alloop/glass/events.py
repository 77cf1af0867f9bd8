"""Events in one frame of an exploration run: atoms about to overlap, five-coordinated silicon, a lost structure.

Meant to be called every few MD steps: `frame_events` builds one neighbour list and answers everything from it.

Distances to watch are mappings from a pair to a length in Å. A pair is two elements in any order ("B-O"), an element
with anything ("Li-X") or every pair ("any"). Two elements take precedence over "X", "X" over "any"; where two
"X" entries meet ("Li-X" and "Na-X" for Li and Na), the longer one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from .coordination import DEFAULT_CUTOFFS_A, coordination_numbers
from .neighbours import (
    NeighbourList,
    as_neighbour_list,
    neighbour_list,
    pair_minima_A,
    pair_name,
    parse_pair,
    store_length_A,
)

# Below these distances a structure is lost: no label of it helps, and the run has to go back to an earlier frame. Usual
# guards of melt-quench runs: potentials without a short-range wall are known to collapse from about 2000 K on. The
# shortest contacts of melts at 3500 K come within 0.1 Å of them. Two lithium ions get below 1.2 Å there under force
# fields with partial charges and no Li-Li repulsion; give "Li-Li" a gate of its own for such.
HARD_GATES_A: dict[str, float] = {"B-O": 1.0, "Si-O": 1.2, "O-O": 1.7, "Li-X": 1.2, "any": 0.8}

# Between the gates and what a sound melt does. Measured on classical NVT melts of 20Li2O-60B2O3-20SiO2 (84 atoms) and
# 40Li2O-40B2O3-20SiO2 (76 atoms), 600 frames 20 fs apart, with the pair terms of the Bertani-Menziani-Pedone force
# field: no frame of either has a shorter contact at 2000 K, 2 % and 5 % have one at 3500 K. Larger cells have more.
NEAR_OVERLAP_A: dict[str, float] = {"B-O": 1.15, "Si-O": 1.30, "O-O": 1.85, "Li-X": 1.30, "any": 1.50}


@dataclass(frozen=True)
class FrameEvents:
    """What `frame_events` saw in one frame.

    `min_distance_A` has the shortest distance of each element pair within the reach of the search, `overlap_atoms`
    and `five_coordinated_Si_atoms` are sorted atom indices, `lost_reason` is a sentence or None.
    """

    min_distance_A: dict[str, float]
    overlap_atoms: NDArray[np.int64]
    five_coordinated_Si_atoms: NDArray[np.int64]
    lost_reason: str | None


def _limit_A(one: str, other: str, limits_A: Mapping[str, float]) -> float:
    """The limit of one pair by the precedence of this module, 0 where none applies."""
    if (exact := limits_A.get(pair_name(one, other))) is not None:
        return exact
    wildcards = [limits_A[f"{element}-X"] for element in (one, other) if f"{element}-X" in limits_A]
    return max(wildcards) if wildcards else limits_A.get("any", 0.0)


def _canonical_limits_A(limits_A: Mapping[str, float]) -> dict[str, float]:
    """Limits by canonical key ("B-O", "Li-X", "any"). ValueError for a key that is none or a length not positive."""
    canonical: dict[str, float] = {}
    for key, value in limits_A.items():
        one, _, other = key.partition("-")
        if key == "any":
            name = key
        elif "X" in (one, other):
            element = other if one == "X" else one
            if element == "X" or element not in atomic_numbers:
                raise ValueError(f"{key!r} names no pair; write 'B-O', 'Li-X' (Li with anything) or 'any'")
            name = f"{element}-X"
        else:
            name = parse_pair(key)
        store_length_A(canonical, name, value, "distance limit")
    return canonical


def pair_limits_A(elements: Sequence[str], limits_A: Mapping[str, float]) -> NDArray[np.float64]:
    """Matrix (n_elements, n_elements) in Å of the limit that applies to each pair of elements, 0 where none does.

    ValueError for a key that is no pair, or a length that is not positive.
    """
    limits = _canonical_limits_A(limits_A)
    return np.array([[_limit_A(one, other, limits) for other in elements] for one in elements])


def _too_close(neighbours: NeighbourList, limits_A: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the pairs closer than the limit of their two species."""
    limit_A = limits_A[neighbours.species[neighbours.first], neighbours.species[neighbours.second]]
    return np.flatnonzero(neighbours.distances_A < limit_A)


def near_overlap(atoms: Atoms | NeighbourList, thresholds_A: Mapping[str, float] = NEAR_OVERLAP_A) -> NDArray[np.int64]:
    """Sorted indices of the atoms that have a partner closer than the threshold of their pair.

    ValueError for a threshold that is no pair or no length, positions that are not finite, or a list too short.
    """
    neighbours = as_neighbour_list(atoms, _reach_A(thresholds_A))
    return np.unique(neighbours.first[_too_close(neighbours, pair_limits_A(neighbours.elements, thresholds_A))])


def over_coordinated(
    atoms: Atoms | NeighbourList,
    centre: str = "Si",
    ligand: str = "O",
    cutoff_A: float = DEFAULT_CUTOFFS_A["Si-O"],
    n_min: int = 5,
) -> NDArray[np.int64]:
    """Sorted indices of the `centre` atoms with at least `n_min` `ligand` atoms closer than `cutoff_A`.

    The default is five-coordinated silicon, an artefact of potentials that learned too little about silicon between
    lithium atoms; melts above about 2000 K hold some of it as a matter of course. Empty if an element is absent.
    """
    neighbours = as_neighbour_list(atoms, cutoff_A)
    counts = coordination_numbers(neighbours, centre, ligand, cutoff_A)
    return np.flatnonzero(neighbours.is_element(centre))[counts >= n_min]


def lost(atoms: Atoms | NeighbourList, gates_A: Mapping[str, float] = HARD_GATES_A) -> str | None:
    """Why the structure is lost, or None: a position that is not finite, or a pair closer than its hard gate.

    Of several pairs the sentence names the one that is closest in proportion to its gate. ValueError for a gate that
    is no pair or no length, an empty frame, or a list that is too short.
    """
    if isinstance(atoms, Atoms) and (broken := _not_finite(atoms)):
        return broken
    neighbours = as_neighbour_list(atoms, _reach_A(gates_A))
    gates = pair_limits_A(neighbours.elements, gates_A)
    pairs = _too_close(neighbours, gates)
    if not len(pairs):
        return None
    first, second = neighbours.first[pairs], neighbours.second[pairs]
    species = neighbours.species
    worst = int(np.argmin(neighbours.distances_A[pairs] / gates[species[first], species[second]]))
    i, j = int(first[worst]), int(second[worst])
    one, other = neighbours.elements[species[i]], neighbours.elements[species[j]]
    return (
        f"{one} {i} and {other} {j} are {neighbours.distances_A[pairs[worst]]:.2f} Å apart, "
        f"closer than the hard gate of {gates[species[i], species[j]]:.2f} Å"
    )


def _not_finite(atoms: Atoms) -> str | None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    return f"{atoms.symbols[bad[0]]} {bad[0]} has a position that is not finite" if len(bad) else None


def _reach_A(limits_A: Mapping[str, float]) -> float:
    if not limits_A:
        raise ValueError("no distance limits are given; give at least one, e.g. {'any': 0.8}")
    return max(_canonical_limits_A(limits_A).values())


def frame_events(
    atoms: Atoms,
    *,
    gates_A: Mapping[str, float] = HARD_GATES_A,
    near_overlap_A: Mapping[str, float] = NEAR_OVERLAP_A,
    si_o_cutoff_A: float = DEFAULT_CUTOFFS_A["Si-O"],
    reach_A: float = 3.0,
) -> FrameEvents:
    """All events of one frame from one neighbour list.

    `reach_A` is how far closest distances are looked for; a pair without a contact in it is absent from
    `min_distance_A`. A frame with a position that is not finite is lost and has no other events: a broken run is an
    answer, not an error.

    A melt at 3500 K comes close to the gates and now and then below the near-overlap thresholds without being wrong.
    Take a near-overlap there as a frame worth a label, not as a failure, and limit how many are taken. ValueError
    for limits that are no pairs or no lengths, or an empty frame.
    """
    if broken := _not_finite(atoms):
        nobody = np.zeros(0, dtype=np.int64)
        return FrameEvents({}, nobody, nobody, broken)
    neighbours = neighbour_list(atoms, max(_reach_A(gates_A), _reach_A(near_overlap_A), si_o_cutoff_A, reach_A))
    return FrameEvents(
        min_distance_A=pair_minima_A(neighbours),
        overlap_atoms=near_overlap(neighbours, near_overlap_A),
        five_coordinated_Si_atoms=over_coordinated(neighbours, cutoff_A=si_o_cutoff_A),
        lost_reason=lost(neighbours, gates_A),
    )
