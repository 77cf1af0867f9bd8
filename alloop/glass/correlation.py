"""Partial and total radial distribution functions, averaged over frames that are read one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from .neighbours import NeighbourList, neighbour_list, pair_name, parse_pair, periodic_cell

_SMOOTHING_A, _PEAK_SHARE = 0.04, 0.1


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) averaged over `n_frames` frames.

    `partial` and `total` are means over the spherical shell of each bin; `edges_A` has the n_bins + 1 shell radii.
    """

    edges_A: NDArray[np.float64]  # (n_bins + 1,)
    partial: dict[str, NDArray[np.float64]]  # canonical pair name -> (n_bins,)
    total: NDArray[np.float64]  # (n_bins,)
    mean_density_A3: dict[str, float]  # element -> atoms per Å^3
    n_frames: int

    @property
    def r_A(self) -> NDArray[np.float64]:
        """Bin centres (n_bins,) in Å."""
        return 0.5 * (self.edges_A[1:] + self.edges_A[:-1])

    def running_coordination(self, centre: str, ligand: str) -> NDArray[np.float64]:
        """Mean number of `ligand` atoms around a `centre` atom out to the upper edge of each bin (n_bins,).

        Exact for frames of one volume; with a fluctuating volume the mean density is used. ValueError if the frames
        hold no such pair.
        """
        name = parse_pair(f"{centre}-{ligand}")
        if name not in self.partial:
            raise ValueError(f"the frames hold no {name} pair; they hold {', '.join(self.partial)}")
        return np.cumsum(self.partial[name] * self.mean_density_A3[ligand] * _shells_A3(self.edges_A))

    def first_minimum_A(self, pair: str) -> float:
        """Return where the partial g(r) of a pair is lowest between its first two peaks, a usual bond cutoff, in Å.

        g is smoothed with a Gaussian of 0.04 Å; a peak stands out by a tenth of the highest. Of a stretch that is
        equally low, such as a gap, the middle is returned. ValueError if there is no such pair or no second peak.
        """
        name = parse_pair(pair)
        if name not in self.partial:
            raise ValueError(f"the frames hold no {name} pair; they hold {', '.join(self.partial)}")
        smooth = gaussian_filter1d(self.partial[name], _SMOOTHING_A / np.diff(self.edges_A).mean())
        peaks, _ = find_peaks(smooth, prominence=_PEAK_SHARE * smooth.max())
        if len(peaks) < 2:
            raise ValueError(
                f"g(r) of {name} has no minimum between two peaks below {self.edges_A[-1]:g} Å, in {self.n_frames} "
                "frames; give a length in Å"
            )
        between = smooth[peaks[0] : peaks[1]]
        lowest = np.flatnonzero(between <= between.min() + 1e-6 * smooth.max())
        return float(self.r_A[peaks[0] + lowest].mean())

    def write_csv(self, path: Path) -> None:
        """Write r (Å), total and all partial g(r) as columns with a header."""
        names = sorted(self.partial)
        columns = np.column_stack([self.r_A, self.total, *(self.partial[name] for name in names)])
        np.savetxt(path, columns, fmt="%.6g", delimiter=",", header=",".join(["r_A", "total", *names]), comments="")


def _shells_A3(edges_A: NDArray[np.float64]) -> NDArray[np.float64]:
    return 4 / 3 * np.pi * np.diff(edges_A**3)


def _ordered_counts(neighbours: NeighbourList, edges_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ordered pairs by species of the two atoms and bin, (n_species, n_species, n_bins)."""
    n, n_bins = len(neighbours.elements), len(edges_A) - 1
    kind = neighbours.species[neighbours.first] * n + neighbours.species[neighbours.second]
    into = np.minimum((neighbours.distances_A / edges_A[-1] * n_bins).astype(np.int64), n_bins - 1)
    return np.bincount(kind * n_bins + into, minlength=n * n * n_bins).reshape(n, n, n_bins).astype(float)


def check_bulk_frame(atoms: Atoms, number: int, counted: Counter[str], composition: Counter[str]) -> None:
    """ValueError, naming the frame by its number, if it is not fully periodic or not of the first one's composition."""
    if not periodic_cell(atoms)[1].all():
        raise ValueError(
            f"frame {number} is not periodic in all three directions, so that it has no density to refer to; "
            "give frames with a full cell and pbc"
        )
    if counted != composition:
        raise ValueError(
            f"frame {number} is {dict(counted)} but the first one is {dict(composition)}; "
            "average over frames of one composition"
        )


def _frame_g(
    atoms: Atoms, neighbours: NeighbourList, edges_A: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """g of one frame by species of the two atoms and bin, and the volume in Å^3."""
    volume = float(atoms.cell.volume)
    n_of = np.bincount(neighbours.species).astype(float)
    expected = np.outer(n_of, n_of)[:, :, None] * _shells_A3(edges_A) / volume
    return _ordered_counts(neighbours, edges_A) / expected, volume


def radial_distribution(
    frames: Iterable[Atoms], *, r_max_A: float = 10.0, bin_width_A: float = 0.05
) -> RadialDistribution:
    """Partial g_ab(r) = n_ab(r) / (4 pi r^2 dr N_b / V) and total g(r) = sum_ab c_a c_b g_ab(r) of periodic frames.

    n_ab is the mean number of b atoms in the shell around an a atom, c the atomic fractions. Works for any cell
    and any `r_max_A`: beyond half the cell, images of an atom count like other atoms. The density includes the atom
    itself, so that an ideal gas of N atoms tends to 1 - 1/N for equal species, and running coordination numbers
    are exact. The bins divide `r_max_A` evenly and are `bin_width_A` wide or a little narrower.
    `frames` may be a generator; one frame is held at a time. ValueError for no frames, frames that are not
    periodic in all three directions, frames of different composition, or lengths that are not positive.
    """
    if not (0 < bin_width_A <= r_max_A < np.inf):
        raise ValueError(f"g(r) to {r_max_A} Å in bins of {bin_width_A} Å: give 0 < bin width <= r_max")
    edges = np.linspace(0.0, r_max_A, int(np.ceil(r_max_A / bin_width_A - 1e-9)) + 1)
    composition: Counter[str] = Counter()
    elements: tuple[str, ...] = ()
    sum_g: NDArray[np.float64] = np.zeros(0)
    sum_per_volume = 0.0
    n_frames = 0
    for atoms in frames:
        counted = Counter(atoms.symbols)
        composition = composition or counted
        check_bulk_frame(atoms, n_frames, counted, composition)
        neighbours = neighbour_list(atoms, r_max_A)
        g, volume = _frame_g(atoms, neighbours, edges)
        elements = neighbours.elements
        sum_g = sum_g + g if n_frames else g
        sum_per_volume += 1.0 / volume
        n_frames += 1
    if n_frames == 0:
        raise ValueError("no frames were given; check the file and the frame selection")
    g = sum_g / n_frames
    fractions = np.array([composition[element] for element in elements]) / composition.total()
    partial = {
        pair_name(elements[a], elements[b]): g[a, b] for a in range(len(elements)) for b in range(a, len(elements))
    }
    return RadialDistribution(
        edges_A=edges,
        partial=dict(sorted(partial.items())),
        total=np.einsum("a,b,abk->k", fractions, fractions, g),
        mean_density_A3={element: composition[element] * sum_per_volume / n_frames for element in elements},
        n_frames=n_frames,
    )
