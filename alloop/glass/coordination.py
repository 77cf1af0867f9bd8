"""Coordination by oxygen, oxygen classes, Qn species and closest contacts of a borosilicate structure.

Everything counts bonds, and a bond is a pair closer than its cutoff; numbers of different works compare only at equal
cutoffs. The count of five-coordinated silicon is sensitive to the Si-O cutoff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .neighbours import (
    NeighbourList,
    canonical_lengths_A,
    neighbour_list,
    pair_minima_A,
    pair_name,
    periodic_cell,
)

# Near the first minimum of the partial g(r) of borosilicate melts and glasses; usual ranges in the literature are
# B-O 1.9-2.0, Si-O 2.0-2.2 and Li-O 2.6-2.7 Å.
DEFAULT_CUTOFFS_A: dict[str, float] = {"B-O": 1.9, "Si-O": 2.0, "Li-O": 2.6}

FORMERS = ("B", "Si")

_CONTACT_SEARCH_A = 3.5  # first radius of the search for closest contacts; it grows where a pair is farther apart


def resolve_cutoffs_A(overrides_A: Mapping[str, float] | None = None) -> dict[str, float]:
    """Bond cutoffs in Å by canonical pair: the defaults, replaced or extended by `overrides_A` (any spelling order).

    ValueError for something that is not a pair of elements or not a positive length.
    """
    return DEFAULT_CUTOFFS_A | canonical_lengths_A(overrides_A or {}, "bond cutoff")


def oxygen_cutoff_A(element: str, cutoffs_A: Mapping[str, float]) -> float:
    """Cutoff of the element's bond to oxygen; ValueError with the remedy if none is known."""
    name = pair_name(element, "O")
    if name not in cutoffs_A:
        raise ValueError(f"no {name} bond cutoff is known; give one, e.g. cutoffs_A={{'{name}': 2.0}}")
    return cutoffs_A[name]


def coordination_numbers(neighbours: NeighbourList, centre: str, ligand: str, cutoff_A: float) -> NDArray[np.int64]:
    """Number of `ligand` atoms within `cutoff_A` of each `centre` atom, in the order of the frame (n_centre,)."""
    bonds = neighbours.bonds(centre, ligand, cutoff_A)
    counts = np.bincount(neighbours.first[bonds], minlength=neighbours.n_atoms)
    return counts[neighbours.is_element(centre)]


def histogram(values: NDArray[np.int64]) -> dict[str, int]:
    """How often each value occurs, by the value as a string, ascending; {} for no values."""
    found, counts = np.unique(values, return_counts=True)
    return {str(value): int(count) for value, count in zip(found, counts, strict=True)}


def coordination(neighbours: NeighbourList, cutoffs_A: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Histogram of coordination numbers by oxygen of every element with an X-O cutoff; absent elements are omitted.

    A frame without oxygen gives coordination 0 to all of them.
    """
    return {
        element: histogram(coordination_numbers(neighbours, element, "O", cutoffs_A[pair_name(element, "O")]))
        for element in neighbours.elements
        if element != "O" and pair_name(element, "O") in cutoffs_A
    }


def fraction_with(histogram_by_number: Mapping[str, int] | None, number: int) -> float | None:
    """Fraction of a coordination histogram at one number (4B: boron at 4, 5Si: silicon at 5); None without atoms."""
    if not histogram_by_number:
        return None
    return histogram_by_number.get(str(number), 0) / sum(histogram_by_number.values())


def former_counts(
    neighbours: NeighbourList, cutoffs_A: Mapping[str, float], formers: Sequence[str] = FORMERS
) -> NDArray[np.int64]:
    """Number of formers bonded to each atom (n_atoms,), 0 for every atom that is not oxygen."""
    counts = np.zeros(neighbours.n_atoms, dtype=np.int64)
    for element in formers:
        bonds = neighbours.bonds("O", element, oxygen_cutoff_A(element, cutoffs_A))
        counts += np.bincount(neighbours.first[bonds], minlength=neighbours.n_atoms)
    return counts


def oxygen_by_formers(neighbours: NeighbourList, cutoffs_A: Mapping[str, float]) -> dict[str, int]:
    """Number of oxygen atoms by how many formers {B, Si} they are bonded to.

    "0" free oxygen, "1" non-bridging, "2" bridging, "3" tricluster. These four keys are always there, higher ones
    where such an atom exists; the counts add up to the number of oxygen atoms.
    """
    found = histogram(former_counts(neighbours, cutoffs_A)[neighbours.is_element("O")])
    return {str(n): 0 for n in range(4)} | found


def qn_species(neighbours: NeighbourList, cutoffs_A: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Histogram of n in Qn for B and Si; an absent element is omitted.

    n is the number of bonded oxygen atoms that are shared with at least one more former.
    """
    shared = former_counts(neighbours, cutoffs_A) >= 2
    result = {}
    for element in FORMERS:
        centres = neighbours.is_element(element)
        if centres.any():
            bonds = neighbours.bonds(element, "O", oxygen_cutoff_A(element, cutoffs_A))
            bridging = neighbours.first[bonds[shared[neighbours.second[bonds]]]]
            result[element] = histogram(np.bincount(bridging, minlength=neighbours.n_atoms)[centres])
    return result


def min_distances_A(atoms: Atoms, neighbours: NeighbourList | None = None) -> dict[str, float]:
    """Shortest distance in Å of every element pair of the frame, by canonical pair name.

    Images count: the only Si of a periodic cell has its own image as nearest Si. A pair that cannot exist (one atom
    of an element in a cluster) is omitted. `neighbours` may be a list already built for this frame; what it does
    not reach is searched for with growing cutoffs among the two elements concerned.
    """
    neighbours = neighbours if neighbours is not None else neighbour_list(atoms, _CONTACT_SEARCH_A)
    shortest = pair_minima_A(neighbours)
    periodic = bool(periodic_cell(atoms)[1].any())
    n_of = np.bincount(neighbours.species)
    for a, one in enumerate(neighbours.elements):
        for b, other in enumerate(neighbours.elements[: a + 1]):
            possible = a != b or n_of[a] > 1 or periodic
            if possible and pair_name(one, other) not in shortest:
                chosen = atoms[np.isin(neighbours.species, [a, b])]
                shortest[pair_name(one, other)] = _growing_search_A(chosen, one, other, neighbours.cutoff_A)
    return dict(sorted(shortest.items()))


def _growing_search_A(atoms: Atoms, one: str, other: str, beyond_A: float) -> float:
    """Shortest distance of a pair that exists but has no contact within `beyond_A`."""
    name = pair_name(one, other)
    found: dict[str, float] = {}
    while name not in found:
        beyond_A *= 1.5
        found = pair_minima_A(neighbour_list(atoms, beyond_A))
    return found[name]
