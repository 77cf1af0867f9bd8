"""Rings of network formers, counted on the unfolded network, and boroxol rings.

The graph has a node for each former (B, Si) and a link for each oxygen that bridges two of them. A node visited by a
search is a former *and* the lattice vector of its image, so a path that comes back to another image of its start
has not closed: cycles that wind through the periodic box are no rings. A ring may be larger than the cell, and a
crystal's unit cell gives the same rings per atom as any supercell. Ring size counts formers: a boroxol ring is 3, two
formers that share two oxygen atoms are a 2-ring.

Definitions (every shortest path counts, and equal rings count once):

- ``guttman``: shortest way back for each link (L. Guttman, J. Non-Cryst. Solids 116 (1990) 145);
- ``king``: shortest way between each two neighbours of a node, past the node (S. V. King, Nature 213 (1967) 1112);
- ``primitive``: no two formers of the ring are joined by a path shorter than both ways along the ring, also called
  shortest-path rings (D. S. Franzblau, Phys. Rev. B 44 (1991) 4925).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from .coordination import coordination_numbers, former_counts, oxygen_cutoff_A, resolve_cutoffs_A
from .neighbours import NeighbourList, as_neighbour_list

if TYPE_CHECKING:
    from .ring_search import Links

Shift = tuple[int, int, int]

_DIGIT = 14  # bits of each of the three shifts in an image code
_LARGEST_SHIFT = 2**9  # of a link; a ring adds up a few of them, which must stay well within a digit

# Largest rms distance in Å of the six atoms from their best plane for a ring to count as boroxol.
BOROXOL_PLANARITY_A = 0.15


@dataclass(frozen=True)
class Ring:
    """One closed ring; `oxygens[k]` bridges `formers[k]` and `formers[k + 1]` (cyclic).

    Atoms are indices into the frame; the shifts are the cell vectors that bring all atoms of the ring together.
    """

    formers: tuple[int, ...]
    oxygens: tuple[int, ...]
    former_shifts: tuple[Shift, ...]
    oxygen_shifts: tuple[Shift, ...]

    @property
    def size(self) -> int:
        """Number of formers."""
        return len(self.formers)

    def positions_A(self, atoms: Atoms) -> NDArray[np.float64]:
        """Positions (2 size, 3) of the formers, then the oxygen atoms, brought together through the periodic box."""
        shifts = np.array(self.former_shifts + self.oxygen_shifts)
        return atoms.positions[list(self.formers + self.oxygens)] + shifts @ atoms.cell.array


def former_links(neighbours: NeighbourList, cutoffs_A: Mapping[str, float], formers: Sequence[str]) -> Links:
    """Links between formers over shared oxygen atoms, both ways, from `neighbours` within the X-O cutoffs.

    ValueError for a former without a cutoff, or for atoms of one link that lie hundreds of cells apart.
    """
    from .ring_search import Links

    bonds = [neighbours.bonds("O", element, oxygen_cutoff_A(element, cutoffs_A)) for element in formers]
    bond = np.concatenate(bonds)
    bond = bond[np.argsort(neighbours.first[bond], kind="stable")]
    oxygen, former, shift = neighbours.first[bond], neighbours.second[bond], neighbours.shifts[bond]
    n_bonds = np.bincount(oxygen, minlength=neighbours.n_atoms)
    partners = n_bonds[oxygen]  # of each bond, itself included
    begin = (np.cumsum(n_bonds) - n_bonds)[oxygen]
    one = np.repeat(np.arange(len(bond)), partners)
    other = np.repeat(begin, partners) + np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    one, other = one[one != other], other[one != other]
    if len(shift) and np.abs(shift).max() > _LARGEST_SHIFT:
        raise ValueError("bonded atoms lie hundreds of cells apart; wrap the positions into the cell first")
    stride = 1 << int(neighbours.n_atoms).bit_length()
    node = former[other] + _code(shift[other] - shift[one], stride)
    across = oxygen[one] + _code(-shift[one], stride)
    order = np.lexsort((across, node, former[one]))
    n_links = np.bincount(former[one], minlength=neighbours.n_atoms)
    return Links(np.concatenate([[0], np.cumsum(n_links)]), node[order], across[order], stride)


def _code(shifts: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """Codes (...) of cell shifts (..., 3), to be added to an atom's index."""
    return stride * (shifts[..., 0] + (shifts[..., 1] << _DIGIT) + (shifts[..., 2] << 2 * _DIGIT))


def _decoded(codes: NDArray[np.int64], stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Atoms (...) and shifts (..., 3) of image codes."""
    atoms = codes & (stride - 1)
    rest = (codes - atoms) // stride
    shifts = np.empty((*codes.shape, 3), dtype=np.int64)
    for axis in range(3):
        digit = ((rest + (1 << _DIGIT - 1)) & ((1 << _DIGIT) - 1)) - (1 << _DIGIT - 1)
        shifts[..., axis] = digit
        rest = (rest - digit) >> _DIGIT
    return atoms, shifts


def _canonical(cycles: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """Distinct cycles (n, 2 size), each in one form of its rotations, directions and lattice translations, sorted."""
    size = cycles.shape[1] // 2
    formers, oxygens = cycles[:, ::2], cycles[:, 1::2]
    atoms = formers & (stride - 1)
    is_lowest = atoms == atoms.min(axis=1, keepdims=True)
    forms = [_forms(formers, oxygens, is_lowest.argmax(axis=1), stride)]
    for extra in range(1, int(is_lowest.sum(axis=1).max())):  # more images of the lowest atom in one ring
        place = (np.cumsum(is_lowest, axis=1) == extra + 1).argmax(axis=1)
        several = is_lowest.sum(axis=1) > extra
        forms.append(_forms(formers, oxygens, np.where(several, place, is_lowest.argmax(axis=1)), stride))
    candidates = np.concatenate(forms)  # (n_forms, n, 2 size), formers before oxygens
    best = candidates[0]
    for form in candidates[1:]:
        differs = form != best
        first = differs.argmax(axis=1)[:, None]
        smaller = np.take_along_axis(form, first, 1) < np.take_along_axis(best, first, 1)
        best = np.where(smaller, form, best)
    mixed = best.reshape(len(best), 2, size).transpose(0, 2, 1).reshape(len(best), 2 * size)
    return np.unique(mixed, axis=0)


def _forms(
    formers: NDArray[np.int64], oxygens: NDArray[np.int64], start: NDArray[np.int64], stride: int
) -> NDArray[np.int64]:
    """Both directions (2, n, 2 size) from one place in each cycle, that former in the home cell."""
    size = formers.shape[1]
    onward = (start[:, None] + np.arange(size)) % size
    back = (start[:, None] - np.arange(size)) % size
    first = np.take_along_axis(formers, start[:, None], 1)
    home = first - (first & (stride - 1))
    directions = [(onward, onward), (back, (back - 1) % size)]
    return np.stack(
        [
            np.hstack([np.take_along_axis(formers, f, 1), np.take_along_axis(oxygens, o, 1)]) - home
            for f, o in directions
        ]
    )


RING_DEFINITIONS = ("guttman", "king", "primitive")


def check_ring_options(formers: Sequence[str], definition: str, max_ring: int) -> None:
    """ValueError for an unknown definition, formers that are not distinct elements, or a maximum below 2."""
    if definition not in RING_DEFINITIONS:
        raise ValueError(f"{definition!r} is not a ring definition; use one of {', '.join(RING_DEFINITIONS)}")
    known = not isinstance(formers, str) and all(f in atomic_numbers and f not in ("X", "O") for f in formers)
    if not formers or not known or len(set(formers)) != len(formers):
        raise ValueError(f"ring formers are {formers!r}; give distinct elements other than O, e.g. ('B', 'Si')")
    if isinstance(max_ring, bool) or not isinstance(max_ring, int | np.integer) or max_ring < 2:
        raise ValueError(f"the largest ring is {max_ring!r}; it must be a whole number of formers, 2 or more")


def find_rings(
    atoms: Atoms | NeighbourList,
    *,
    formers: Sequence[str] = ("B",),
    definition: str = "guttman",
    max_ring: int = 12,
    cutoffs_A: Mapping[str, float] | None = None,
) -> list[Ring]:
    """All rings of up to `max_ring` formers in a frame, each once per periodic cell, sorted by size.

    Two rings are the same if they have the same formers, oxygen atoms and lattice vectors up to rotation, direction
    and translation. An oxygen atom shared by three formers is no ring: n formers have n different oxygen atoms.
    ValueError for unknown options, a former without an X-O cutoff, or a neighbour list that is too short.
    """
    check_ring_options(formers, definition, max_ring)
    cutoffs = resolve_cutoffs_A(cutoffs_A)
    neighbours = as_neighbour_list(atoms, max(oxygen_cutoff_A(former, cutoffs) for former in formers))
    from .ring_search import find_cycles

    links = former_links(neighbours, cutoffs, formers)
    found = find_cycles(links, definition, int(max_ring)) if len(links.node) else []
    return [ring for cycles in found for ring in _rings(_canonical(cycles, links.stride), links.stride)]


def _rings(cycles: NDArray[np.int64], stride: int) -> Iterator[Ring]:
    atoms, shifts = _decoded(cycles, stride)
    moves = [[tuple(shift) for shift in ring] for ring in shifts.tolist()]
    for ring, move in zip(atoms.tolist(), moves, strict=True):
        yield Ring(tuple(ring[::2]), tuple(ring[1::2]), tuple(move[::2]), tuple(move[1::2]))


def ring_counts(rings: Sequence[Ring]) -> dict[str, int]:
    """Number of rings by size as a string, ascending; sizes without a ring are absent."""
    counts = Counter(ring.size for ring in rings)
    return {str(size): counts[size] for size in sorted(counts)}


@dataclass(frozen=True)
class Boroxol:
    """Boroxol rings of a frame: `rings` are the planar B3O3 rings, `three_rings` all rings of three boron atoms.

    `fraction_B` is the fraction of boron atoms in at least one boroxol ring, None without boron.
    """

    rings: tuple[Ring, ...]
    three_rings: tuple[Ring, ...]
    fraction_B: float | None


def planarity_A(positions_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rms distance in Å of points (..., n, 3) from their best plane (smallest singular value over sqrt(n))."""
    centred = positions_A - positions_A.mean(axis=-2, keepdims=True)
    return np.linalg.svd(centred, compute_uv=False)[..., -1] / np.sqrt(positions_A.shape[-2])


def find_boroxol(
    atoms: Atoms, *, cutoffs_A: Mapping[str, float] | None = None, neighbours: NeighbourList | None = None
) -> Boroxol:
    """Boroxol rings: three B with three O neighbours each and three O bonded to no other former, in one plane.

    Planar means an rms distance below `BOROXOL_PLANARITY_A` from the best plane of the six atoms. Three-rings with
    four-coordinated boron (triborate and the like) or out of plane are in `three_rings` only. `neighbours` may
    be a list of this frame that reaches the B-O and Si-O cutoffs.
    """
    cutoffs = resolve_cutoffs_A(cutoffs_A)
    reach = max(cutoffs["B-O"], cutoffs["Si-O"])
    listed = as_neighbour_list(atoms if neighbours is None else neighbours, reach)
    boron = listed.is_element("B")
    if not boron.any():
        return Boroxol((), (), None)
    # In a 3-ring all formers are linked to each other, so that every one is primitive.
    rings = find_rings(listed, formers=("B",), definition="primitive", max_ring=3, cutoffs_A=cutoffs)
    three_rings = tuple(ring for ring in rings if ring.size == 3)
    if not three_rings:
        return Boroxol((), (), 0.0)
    n_oxygen = np.zeros(listed.n_atoms, dtype=np.int64)
    n_oxygen[boron] = coordination_numbers(listed, "B", "O", cutoffs["B-O"])
    formers = np.array([ring.formers for ring in three_rings])
    oxygens = np.array([ring.oxygens for ring in three_rings])
    chosen = (n_oxygen[formers] == 3).all(axis=1)
    chosen &= (former_counts(listed, cutoffs)[oxygens] == 2).all(axis=1)
    flatness = planarity_A(np.array([ring.positions_A(atoms) for ring in three_rings]))
    chosen &= flatness < BOROXOL_PLANARITY_A
    fraction = len(np.unique(formers[chosen])) / int(boron.sum())
    return Boroxol(tuple(three_rings[k] for k in np.flatnonzero(chosen)), three_rings, fraction)
