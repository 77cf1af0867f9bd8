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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from .coordination import coordination_numbers, former_counts, oxygen_cutoff_A, resolve_cutoffs_A
from .neighbours import NeighbourList, as_neighbour_list

Shift = tuple[int, int, int]
Path = list[tuple[int, int]]  # nodes after the start, each with the oxygen crossed to reach it
Cycle = tuple[int, ...]  # former, oxygen, former, oxygen, ... as image codes

_BASE = 2**20  # an image code holds three shifts as digits of this base; a cell index never comes near half of it

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


class FormerNetwork:
    """Formers linked by shared oxygen atoms, with the lattice vectors of the links.

    An image of an atom is one integer, ``atom + n_atoms * (shift as three digits)``, so that a lattice translation is
    an addition.
    """

    def __init__(self, neighbours: NeighbourList, cutoffs_A: Mapping[str, float], formers: Sequence[str]) -> None:
        """Bonds come from `neighbours` within the X-O cutoffs; ValueError if a former has none."""
        self.n_atoms = neighbours.n_atoms
        at_oxygen: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
        for element in formers:
            for bond in neighbours.bonds("O", element, oxygen_cutoff_A(element, cutoffs_A)):
                former = int(neighbours.second[bond])
                at_oxygen.setdefault(int(neighbours.first[bond]), []).append((former, neighbours.shifts[bond]))
        nodes = np.flatnonzero(np.any([neighbours.is_element(element) for element in formers], axis=0))
        # links[u]: (image of the linked former, image of the oxygen between), both seen from u in the home cell
        self.links: dict[int, list[tuple[int, int]]] = {int(node): [] for node in nodes}
        for oxygen, bonded in at_oxygen.items():
            for (u, shift_u), (v, shift_v) in combinations(bonded, 2):
                self.links[u].append((self.code(v, shift_v - shift_u), self.code(oxygen, -shift_u)))
                self.links[v].append((self.code(u, shift_u - shift_v), self.code(oxygen, -shift_v)))
        self._distances: dict[tuple[int, int], dict[int, int]] = {}

    def code(self, atom: int, shift: NDArray[np.int64]) -> int:
        """Code of an atom's image."""
        x, y, z = (int(component) for component in shift)
        return atom + self.n_atoms * (x + _BASE * (y + _BASE * z))

    def decode(self, code: int) -> tuple[int, Shift]:
        """Atom and shift of an image code."""
        rest, atom = divmod(code, self.n_atoms)
        shift = []
        for _ in range(3):
            digit = (rest + _BASE // 2) % _BASE - _BASE // 2
            shift.append(digit)
            rest = (rest - digit) // _BASE
        return atom, (shift[0], shift[1], shift[2])

    def neighbours_of(self, code: int) -> Iterator[tuple[int, int]]:
        """Linked images of an image, each with the oxygen image between."""
        base = code - code % self.n_atoms
        for node, oxygen in self.links[code % self.n_atoms]:
            yield base + node, base + oxygen

    def distances_from(self, former: int, within: int) -> dict[int, int]:
        """Links to every image at most `within` links away from a former in the home cell (kept for later)."""
        key = (former, within)
        if key not in self._distances:
            distances = {former: 0}
            frontier = [former]
            for depth in range(1, within + 1):
                reached = []
                for code in frontier:
                    for node, _ in self.neighbours_of(code):
                        if node not in distances:
                            distances[node] = depth
                            reached.append(node)
                frontier = reached
            self._distances[key] = distances
        return self._distances[key]

    def shortest_paths(
        self, start: int, goal: int, max_links: int, without: Collection[int], without_oxygens: Collection[int]
    ) -> list[Path]:
        """All shortest paths between two images that avoid some formers and oxygen atoms; [] if all are too long."""
        half = max_links // 2
        goal_atom = goal % self.n_atoms
        to_goal = self.distances_from(goal_atom, half)
        offset = goal - goal_atom
        before: dict[int, Path] = {start: []}
        frontier: Collection[int] = [start]
        left = max_links
        while frontier and goal not in before and left > 0:
            left -= 1
            reached: dict[int, Path] = {}
            for code in frontier:
                for node, oxygen in self.neighbours_of(code):
                    if node in before or node in without or oxygen in without_oxygens:
                        continue
                    if to_goal.get(node - offset, half + 1) <= left:
                        reached.setdefault(node, []).append((code, oxygen))
            before |= reached
            frontier = reached
        return list(_paths_back(before, goal)) if goal in before else []


def _paths_back(before: Mapping[int, Path], goal: int) -> Iterator[Path]:
    """Paths to `goal` through recorded predecessors, from the node without any."""
    if not before[goal]:
        yield []
        return
    for code, oxygen in before[goal]:
        for path in _paths_back(before, code):
            yield [*path, (goal, oxygen)]


def _canonical(cycle: Cycle, n_atoms: int) -> Cycle:
    """The one form of a cycle among its rotations, its two directions and its lattice translations."""
    lowest = min(code % n_atoms for code in cycle[::2])
    n = len(cycle)
    forms = []
    for start in range(0, n, 2):
        if cycle[start] % n_atoms == lowest:
            base = cycle[start] - lowest
            moved = [code - base for code in cycle]
            forms.append(tuple(moved[start:] + moved[:start]))
            forms.append(tuple(moved[(start - k) % n] for k in range(n)))
    return min(forms, key=lambda form: (form[::2], form[1::2]))


def _cycle(start: int, path: Path, closing_oxygen: int) -> Cycle:
    cycle = [start]
    for node, oxygen in path:
        cycle += [oxygen, node]
    return (*cycle, closing_oxygen)


def _guttman(network: FormerNetwork, max_ring: int) -> Iterator[Cycle]:
    for u, links in network.links.items():
        for v, oxygen in links:
            if v % network.n_atoms >= u:
                for path in network.shortest_paths(u, v, max_ring - 1, (), (oxygen,)):
                    yield _cycle(u, path, oxygen)


def _king(network: FormerNetwork, max_ring: int) -> Iterator[Cycle]:
    for u, links in network.links.items():
        for (a, oxygen_a), (b, oxygen_b) in combinations(links, 2):
            if oxygen_a != oxygen_b:
                for path in network.shortest_paths(a, b, max_ring - 2, (u,), (oxygen_a, oxygen_b)):
                    yield _cycle(u, [(a, oxygen_a), *path], oxygen_b)


def _primitive(network: FormerNetwork, max_ring: int) -> Iterator[Cycle]:
    """Two disjoint shortest paths from a root to one node, or to two linked ones, closed and checked for shortcuts.

    Only paths over formers not below the root are followed: every ring is found from its lowest former.
    """
    half = max_ring // 2
    for root in network.links:
        distances = network.distances_from(root, half)
        before: dict[int, Path] = {root: []}
        for code, depth in distances.items():  # in order of depth
            if code != root and code % network.n_atoms >= root:
                closer = [
                    (node, oxygen)
                    for node, oxygen in network.neighbours_of(code)
                    if node in before and distances[node] == depth - 1
                ]
                if closer:
                    before[code] = closer
        for cycle in _closed_at_root(network, root, before, distances, max_ring):
            if _without_shortcut(network, cycle, half):
                yield cycle


def _closed_at_root(
    network: FormerNetwork,
    root: int,
    before: Mapping[int, Path],
    distances: Mapping[int, int],
    max_ring: int,
) -> Iterator[Cycle]:
    """Simple cycles through the root made of two shortest paths that meet in a node or at a link."""
    paths = {code: list(_paths_back(before, code)) for code in before}
    for code, depth in ((code, distances[code]) for code in before if code != root):
        if 2 * depth <= max_ring:
            for one, other in combinations(paths[code], 2):
                if _disjoint(one[:-1], other[:-1]) and one[-1][1] != other[-1][1]:
                    yield _joined(root, one, other[:-1], other[-1][1])
        if 2 * depth + 1 <= max_ring:
            for node, oxygen in network.neighbours_of(code):
                if node > code and node in before and distances[node] == depth:
                    for one in paths[code]:
                        for other in paths[node]:
                            if _disjoint(one, other) and all(oxygen != o for _, o in one + other):
                                yield _joined(root, one, other, oxygen)


def _disjoint(one: Path, other: Path) -> bool:
    return {node for node, _ in one}.isdisjoint(node for node, _ in other) and {o for _, o in one}.isdisjoint(
        o for _, o in other
    )


def _joined(root: int, one: Path, other: Path, oxygen: int) -> Cycle:
    """Out along `one`, over `oxygen` to the end of `other`, back along it."""
    back: list[int] = []
    for node, crossed in reversed(other):
        back += [node, crossed]
    cycle = _cycle(root, one, oxygen)
    return (*cycle, *back)


def _without_shortcut(network: FormerNetwork, cycle: Cycle, within: int) -> bool:
    nodes = cycle[::2]
    n = len(nodes)
    for i, j in combinations(range(n), 2):
        atom = nodes[i] % network.n_atoms
        if network.distances_from(atom, within)[nodes[j] - nodes[i] + atom] < min(j - i, n - j + i):
            return False
    return True


_DEFINITIONS: dict[str, Callable[[FormerNetwork, int], Iterator[Cycle]]] = {
    "guttman": _guttman,
    "king": _king,
    "primitive": _primitive,
}
RING_DEFINITIONS = tuple(_DEFINITIONS)


def check_ring_options(formers: Sequence[str], definition: str, max_ring: int) -> None:
    """ValueError for an unknown definition, formers that are not distinct elements, or a maximum below 2."""
    if definition not in _DEFINITIONS:
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
    network = FormerNetwork(neighbours, cutoffs, formers)
    cycles = {_canonical(cycle, network.n_atoms) for cycle in _DEFINITIONS[definition](network, int(max_ring))}
    return [_ring(network, cycle) for cycle in sorted(cycles, key=lambda cycle: (len(cycle), cycle))]


def _ring(network: FormerNetwork, cycle: Cycle) -> Ring:
    images = [network.decode(code) for code in cycle]
    formers, former_shifts = zip(*images[::2], strict=True)
    oxygens, oxygen_shifts = zip(*images[1::2], strict=True)
    return Ring(formers, oxygens, former_shifts, oxygen_shifts)


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
