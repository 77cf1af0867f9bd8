"""Bond angle distributions of oxide glasses: O-X-O by the coordination of X, X-O-Y by the two elements.

A bond is an X-O pair closer than its cutoff, as in `alloop.glass.coordination`. An angle is named by its three atoms:
"O-B3-O" and "O-B4-O" have boron with three and four oxygen atoms in the middle, "O-B-O" all boron; "B-O-Si" has
oxygen in the middle and the two other elements in alphabetical order. With `boroxol`, "B-O-B" also appears in two
parts, "B-O-B in boroxol" and "B-O-B elsewhere".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .coordination import FORMERS, oxygen_cutoff_A, resolve_cutoffs_A
from .neighbours import NeighbourList, neighbour_list
from .rings import find_boroxol

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def angle_pairs(centres: Indices) -> tuple[Indices, Indices]:
    """Every two bonds of one centre, as two rows of indices (n_angles,) into `centres`, the centre of each bond.

    A centre with n bonds gives n (n - 1) / 2 angles; a centre with one bond gives none.
    """
    order = np.argsort(centres, kind="stable")
    _, starts, counts = np.unique(centres[order], return_index=True, return_counts=True)
    one: list[Indices] = [np.zeros(0, dtype=np.int64)]
    other = list(one)
    for n in np.unique(counts):
        bonds = order[starts[counts == n][:, None] + np.arange(n)]
        i, j = np.triu_indices(n, 1)
        one.append(bonds[:, i].ravel())
        other.append(bonds[:, j].ravel())
    return np.concatenate(one), np.concatenate(other)


def _angles_deg(u: Array, v: Array) -> Array:
    """Angles (n,) in degrees between the rows of two (n, 3) arrays; exact to rounding at 0 and 180, too."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), np.einsum("ij,ij->i", u, v)))


def bond_angles(
    atoms: Atoms,
    *,
    elements: Sequence[str] = FORMERS,
    cutoffs_A: Mapping[str, float] | None = None,
    boroxol: bool = True,
) -> dict[str, Array]:
    """All bond angles of a frame in degrees by name, each (n_angles,); names without an angle are absent.

    `elements` are the X and Y of O-X-O and X-O-Y; add "Li" for the angles of lithium, too. `cutoffs_A` overrides the
    bond cutoffs by pair. With `boroxol` the B-O-B are also split by whether the oxygen is in a boroxol ring of
    `alloop.glass.rings.find_boroxol`; every oxygen of such a ring has two formers, so that its one angle is the
    ring's. Images count as other atoms do, so that any cell serves, and a frame without a cell is a cluster.
    ValueError for an element without an X-O cutoff, oxygen among the elements, an empty frame or a bad position.
    """
    if isinstance(elements, str) or not elements or "O" in elements or len(set(elements)) != len(elements):
        raise ValueError(f"the elements are {elements!r}; give distinct elements other than O, e.g. ('B', 'Si')")
    cutoffs = resolve_cutoffs_A(cutoffs_A)
    reach = max(oxygen_cutoff_A(element, cutoffs) for element in (*elements, *(FORMERS if boroxol else ())))
    listed = neighbour_list(atoms, reach)
    bonds = np.concatenate([listed.bonds("O", element, oxygen_cutoff_A(element, cutoffs)) for element in elements])
    found = _around_formers(listed, bonds, elements)
    one, other = angle_pairs(listed.first[bonds])
    one, other = bonds[one], bonds[other]
    angles = _angles_deg(listed.vectors_A[one], listed.vectors_A[other])
    is_x = {element: listed.is_element(element) for element in elements}
    for x, y in combinations_with_replacement(sorted(elements), 2):
        chosen = is_x[x][listed.second[one]] & is_x[y][listed.second[other]]
        chosen |= is_x[y][listed.second[one]] & is_x[x][listed.second[other]]
        found[f"{x}-O-{y}"] = angles[chosen]
        if boroxol and x == y == "B":
            in_ring = np.zeros(listed.n_atoms, dtype=bool)
            rings = find_boroxol(atoms, cutoffs_A=cutoffs, neighbours=listed).rings
            in_ring[[oxygen for ring in rings for oxygen in ring.oxygens]] = True
            ring_angle = in_ring[listed.first[one]]
            found["B-O-B in boroxol"] = angles[chosen & ring_angle]
            found["B-O-B elsewhere"] = angles[chosen & ~ring_angle]
    return {name: values for name, values in found.items() if len(values)}


def _around_formers(listed: NeighbourList, bonds: Indices, elements: Sequence[str]) -> dict[str, Array]:
    """O-X-O of all X and by their number of oxygen atoms, from bonds that go from O to X."""
    one, other = angle_pairs(listed.second[bonds])
    angles = _angles_deg(listed.vectors_A[bonds[one]], listed.vectors_A[bonds[other]])
    centre = listed.second[bonds[one]]
    coordination = np.bincount(listed.second[bonds], minlength=listed.n_atoms)[centre]
    found = {}
    for element in elements:
        chosen = listed.is_element(element)[centre]
        found[f"O-{element}-O"] = angles[chosen]
        for n in np.unique(coordination[chosen]):
            found[f"O-{element}{n}-O"] = angles[chosen & (coordination == n)]
    return found


@dataclass(frozen=True)
class AngleDistributions:
    """Histograms of bond angles over `n_frames` frames, in bins of equal width from 0 to 180 degrees.

    `mean_deg` and `std_deg` are of the angles themselves, not of the bins.
    """

    edges_deg: Array  # (n_bins + 1,)
    counts: dict[str, NDArray[np.int64]]  # angle name -> (n_bins,)
    mean_deg: dict[str, float]
    std_deg: dict[str, float]
    n_frames: int

    @property
    def angle_deg(self) -> Array:
        """Bin centres (n_bins,) in degrees."""
        return 0.5 * (self.edges_deg[1:] + self.edges_deg[:-1])

    def per_degree(self, name: str) -> Array:
        """P(theta) (n_bins,) in 1/degree, the share of angles per degree: its integral over degrees is 1.

        ValueError for a name that did not occur.
        """
        if name not in self.counts:
            raise ValueError(f"no angle {name} occurs; there are {', '.join(self.counts) or 'none at all'}")
        return self.counts[name] / self.counts[name].sum() / np.diff(self.edges_deg)

    def per_solid_angle(self, name: str) -> Array:
        """P(theta) / sin(theta) (n_bins,), normalised so that bonds in random directions give 1 everywhere.

        Each bin is divided by its share of the sphere, (cos(lower edge) - cos(upper edge)) / 2, so that the bins at 0
        and 180 degrees are finite. ValueError for a name that did not occur.
        """
        sphere = -np.diff(np.cos(np.radians(self.edges_deg))) / 2
        return self.per_degree(name) * np.diff(self.edges_deg) / sphere

    def write_csv(self, path: Path) -> None:
        """Write the bin centres (degrees) and P(theta) (1/degree) of every name as columns with a header."""
        columns = np.column_stack([self.angle_deg, *(self.per_degree(name) for name in self.counts)])
        header = ",".join(["angle_deg", *self.counts])
        np.savetxt(path, columns, fmt="%.6g", delimiter=",", header=header, comments="")


@dataclass
class _Tally:
    """Histogram of one name so far, with its number, mean and sum of squared deviations."""

    n_bins: int
    counts: NDArray[np.int64] = field(init=False)
    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.n_bins, dtype=np.int64)

    def add(self, angles_deg: Array) -> None:
        """Update with at least one angle; moments are merged after Chan, Golub and LeVeque (1979)."""
        into = np.minimum((angles_deg / 180.0 * self.n_bins).astype(np.int64), self.n_bins - 1)
        self.counts += np.bincount(into, minlength=self.n_bins)
        n, mean = len(angles_deg), float(angles_deg.mean())
        self.squares += float(((angles_deg - mean) ** 2).sum()) + (mean - self.mean) ** 2 * self.n * n / (self.n + n)
        self.mean += (mean - self.mean) * n / (self.n + n)
        self.n += n


def angle_distributions(
    frames: Iterable[Atoms],
    *,
    bin_width_deg: float = 1.0,
    elements: Sequence[str] = FORMERS,
    cutoffs_A: Mapping[str, float] | None = None,
    boroxol: bool = True,
) -> AngleDistributions:
    """Histograms of the `bond_angles` of frames that are read one at a time; options and errors as there.

    The bins divide 180 degrees evenly and are `bin_width_deg` wide or a little narrower; an angle of exactly 180
    is in the last one. Frames may differ in cell and composition. ValueError also for no frames or a bin width
    outside 0 to 180.
    """
    if not 0 < bin_width_deg <= 180:
        raise ValueError(f"the bin width is {bin_width_deg} degrees; give more than 0 and at most 180, e.g. 1")
    n_bins = int(np.ceil(180.0 / bin_width_deg - 1e-9))
    tallies: dict[str, _Tally] = {}
    n_frames = 0
    for atoms in frames:
        for name, angles in bond_angles(atoms, elements=elements, cutoffs_A=cutoffs_A, boroxol=boroxol).items():
            tallies.setdefault(name, _Tally(n_bins)).add(angles)
        n_frames += 1
    if n_frames == 0:
        raise ValueError("no frames were given; check the file and the frame selection")
    names = sorted(tallies)
    return AngleDistributions(
        edges_deg=np.linspace(0.0, 180.0, n_bins + 1),
        counts={name: tallies[name].counts for name in names},
        mean_deg={name: tallies[name].mean for name in names},
        std_deg={name: (tallies[name].squares / tallies[name].n) ** 0.5 for name in names},
        n_frames=n_frames,
    )
