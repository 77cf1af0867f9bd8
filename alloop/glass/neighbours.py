"""Periodic neighbour lists and element pairs: the ground under every structural analysis and event check.

One method serves all sizes. Atoms are wrapped into the cell, the images within one cutoff of it are made, and two
k-d trees (`scipy.spatial.cKDTree`) are searched against each other. Nothing assumes that a cell is orthogonal or wide
compared to the cutoff, so an atom may be bonded to several images of another one, or of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_MARGIN = 1e-9  # widening of the search in Å and in cell fractions; the exact distance decides afterwards


@dataclass(frozen=True)
class NeighbourList:
    """All ordered pairs of atoms closer than `cutoff_A`, each pair in both directions.

    Pair p says that atom `second[p]`, moved by `shifts[p]` cell vectors, lies at `vectors_A[p]` from atom `first[p]`:
    ``vectors_A = positions[second] + shifts @ cell - positions[first]``, for the positions as they were given
    (wrapped or not). `elements` are the symbols in the frame by atomic number, `species[i]` the index of
    atom i among them.
    """

    cutoff_A: float
    elements: tuple[str, ...]
    species: NDArray[np.int64]  # (n_atoms,)
    first: NDArray[np.int64]  # (n_pairs,)
    second: NDArray[np.int64]  # (n_pairs,)
    shifts: NDArray[np.int64]  # (n_pairs, 3)
    vectors_A: NDArray[np.float64]  # (n_pairs, 3)
    distances_A: NDArray[np.float64]  # (n_pairs,)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the frame, with or without neighbours."""
        return len(self.species)

    def is_element(self, symbol: str) -> NDArray[np.bool_]:
        """Mask (n_atoms,) of the atoms of one element; all False for an element that is absent."""
        if symbol not in self.elements:
            return np.zeros(self.n_atoms, dtype=bool)
        return self.species == self.elements.index(symbol)

    def bonds(self, centre: str, ligand: str, cutoff_A: float) -> NDArray[np.int64]:
        """Indices of the pairs that go from a `centre` to a `ligand` atom and are shorter than `cutoff_A`.

        ValueError if the list does not reach that far, because its answer would be too small without any sign of it.
        """
        self.require_reach(cutoff_A)
        between = self.is_element(centre)[self.first] & self.is_element(ligand)[self.second]
        return np.flatnonzero(between & (self.distances_A < cutoff_A))

    def require_reach(self, cutoff_A: float) -> None:
        """ValueError if `cutoff_A` is beyond the cutoff this list was built with."""
        if cutoff_A > self.cutoff_A:
            raise ValueError(
                f"a cutoff of {cutoff_A:g} Å was asked of a neighbour list built for {self.cutoff_A:g} Å; "
                f"build it with neighbour_list(atoms, {cutoff_A:g})"
            )


def periodic_cell(atoms: Atoms) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cell (3, 3) in Å, filled up to an invertible one, and along which of its vectors the frame really repeats.

    A direction is periodic if the frame says so and the cell vector is not zero; a frame without a cell is a cluster.
    ValueError if the given vectors lie in a plane or are not finite.
    """
    given = np.asarray(atoms.cell.array, dtype=float)
    if not np.isfinite(given).all():
        raise ValueError(f"the cell holds numbers that are not finite: {given.tolist()}; check the frame's source")
    present = given.any(axis=1)
    cell = complete_cell(given)
    lengths = np.linalg.norm(cell, axis=1)
    if abs(np.linalg.det(cell)) < 1e-6 * lengths.prod():
        raise ValueError(f"the cell vectors {given.tolist()} lie in one plane; give three independent ones or none")
    return cell, present & np.asarray(atoms.pbc, dtype=bool)


def check_positions(atoms: Atoms) -> None:
    """ValueError if the frame is empty, or naming the first atom whose position is not finite."""
    if len(atoms) == 0:
        raise ValueError("the frame holds no atoms; check the file or the selection it came from")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        atom = int(bad[0])
        raise ValueError(
            f"atom {atom} ({atoms.symbols[atom]}) has the position {atoms.positions[atom].tolist()}; {len(bad)} of "
            f"{len(atoms)} atoms are not finite: the run that wrote this frame broke down, use an earlier frame"
        )


def _images_around_cell(
    fractional: NDArray[np.float64], reach: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Atom indices (n,) and shifts (n, 3) of every image within `reach` (fractions per axis) of the wrapped atoms."""
    index = np.arange(len(fractional))
    shifts = np.zeros((len(fractional), 3), dtype=np.int64)
    for axis in np.flatnonzero(periodic):
        most = int(np.ceil(reach[axis]))  # wrapped fractions differ by less than 1, so |shift| < reach + 1
        steps = np.arange(-most, most + 1)
        column = fractional[:, axis]
        moved = column[index][:, None] + steps
        low, high = column.min() - reach[axis], column.max() + reach[axis]
        source, step = np.nonzero((moved >= low) & (moved <= high))
        index, shifts = index[source], shifts[source]
        shifts[:, axis] = steps[step]
    return index, shifts


def neighbour_list(atoms: Atoms, cutoff_A: float) -> NeighbourList:
    """Every pair of atoms, images included, closer than `cutoff_A` in Å; any cell, any mixture of periodic axes.

    Both directions of a pair are present with exactly opposite vectors. Atoms on top of each other are a pair at
    distance 0. ValueError for an empty frame, a position or cell that is not finite, a flat cell, or a cutoff
    that is not a positive number.
    """
    if not (np.isfinite(cutoff_A) and cutoff_A > 0):
        raise ValueError(f"the neighbour cutoff is {cutoff_A} Å; it must be a positive number")
    check_positions(atoms)
    cell, periodic = periodic_cell(atoms)
    inverse = np.linalg.inv(cell)
    positions = np.asarray(atoms.positions, dtype=float)
    fractional = positions @ inverse
    wraps = np.where(periodic, np.floor(fractional), 0.0).astype(np.int64)
    fractional -= wraps
    wrapped = fractional @ cell

    # The distance between the planes of cell vector k is 1 / |column k of the inverse cell|.
    reach = (cutoff_A + _MARGIN) * np.linalg.norm(inverse, axis=0) + _MARGIN
    image_atom, image_shift = _images_around_cell(fractional, reach, periodic)
    images = wrapped[image_atom] + image_shift @ cell
    found = cKDTree(wrapped).sparse_distance_matrix(cKDTree(images), cutoff_A + _MARGIN, output_type="ndarray")
    first = found["i"].astype(np.int64)
    second = image_atom[found["j"]]
    from_first = image_shift[found["j"]]

    # Measure each pair once and mirror it, so that a pair at the cutoff is in both directions or in neither.
    ahead = first < second
    ahead |= (first == second) & (np.sign(from_first) @ np.array([9, 3, 1]) > 0)  # one of each self-image pair
    first, second = first[ahead], second[ahead]
    shifts = from_first[ahead] + wraps[first] - wraps[second]
    vectors = positions[second] + shifts @ cell - positions[first]
    distances = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    near = distances < cutoff_A
    first, second, shifts, vectors, distances = (x[near] for x in (first, second, shifts, vectors, distances))
    elements, species = _species(atoms)
    return NeighbourList(
        cutoff_A=float(cutoff_A),
        elements=elements,
        species=species,
        first=np.concatenate([first, second]),
        second=np.concatenate([second, first]),
        shifts=np.concatenate([shifts, -shifts]),
        vectors_A=np.concatenate([vectors, -vectors]),
        distances_A=np.concatenate([distances, distances]),
    )


def _species(atoms: Atoms) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    numbers, species = np.unique(atoms.numbers, return_inverse=True)
    return tuple(chemical_symbols[number] for number in numbers), species.astype(np.int64)


def as_neighbour_list(atoms: Atoms | NeighbourList, cutoff_A: float) -> NeighbourList:
    """The list itself if it reaches `cutoff_A` (ValueError if it does not), or a new one for a frame."""
    if isinstance(atoms, NeighbourList):
        atoms.require_reach(cutoff_A)
        return atoms
    return neighbour_list(atoms, cutoff_A)


def pair_name(one: str, other: str) -> str:
    """The one name of an element pair: alphabetical, oxygen last ("B-O", "Li-Si", "Si-O")."""
    a, b = sorted((one, other), key=lambda symbol: (symbol == "O", symbol))
    return f"{a}-{b}"


def parse_pair(text: str) -> str:
    """Canonical name of a pair written in either order ("O-B" -> "B-O"); ValueError if it names no two elements."""
    parts = [part.strip() for part in text.split("-")]
    if len(parts) != 2 or any(part == "X" or part not in atomic_numbers for part in parts):
        raise ValueError(f"{text!r} is not a pair of elements; write it as two symbols and a hyphen, e.g. 'B-O'")
    return pair_name(*parts)


def canonical_lengths_A(lengths_A: Mapping[str, float], what: str) -> dict[str, float]:
    """Lengths in Å by canonical pair name. ValueError if one is no positive number or two spellings disagree."""
    canonical: dict[str, float] = {}
    for text, value in lengths_A.items():
        name = parse_pair(text)
        store_length_A(canonical, name, value, what)
    return canonical


def store_length_A(lengths_A: dict[str, float], name: str, value: float, what: str) -> None:
    """Put a length under its canonical name; ValueError if it is no positive number or differs from one there."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ValueError(f"the {what} of {name} is {value!r}; it must be a positive length in Å, e.g. 1.9")
    if lengths_A.setdefault(name, float(value)) != value:
        raise ValueError(f"the {what} of {name} is given twice, {lengths_A[name]:g} and {value:g} Å; keep one")


def pair_minima_A(neighbours: NeighbourList) -> dict[str, float]:
    """Shortest distance in Å of each element pair in the list; a pair without a contact in its reach is absent."""
    n = len(neighbours.elements)
    shortest = np.full(n * n, np.inf)
    kind = neighbours.species[neighbours.first] * n + neighbours.species[neighbours.second]
    np.minimum.at(shortest, kind, neighbours.distances_A)
    names = {
        pair_name(neighbours.elements[k // n], neighbours.elements[k % n]): float(shortest[k])
        for k in np.flatnonzero(np.isfinite(shortest))
    }
    return dict(sorted(names.items()))
