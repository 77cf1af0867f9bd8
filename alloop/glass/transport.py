"""Diffusion of an element along a trajectory: unwrapping, drift, MSD, D with its interval, C D and conductivity.

**Unwrapping.** Scaled coordinates are followed from frame to frame by their nearest images, and what an atom has
travelled in them is turned into Å with the mean cell of the frames. Wrapped and unwrapped positions (wrapped plus
whole cell vectors of their own frame) so give the same answer, and a cell that breathes, shears or is strained
moves nobody: only motion relative to the cell counts, and a barostat cannot add to D however long the run.

**D** is from the line MSD(t) = 6 D t + c through all lags of a window, by ordinary least squares; c takes up the
ballistic and the cage part. Weights from the covariance of Brownian motion would use little but the first lags of the
window, where the later ones only repeat them, and measure the slope there instead of in the window.

**The 95 % interval of D** uses no residuals of the line, because the MSD at neighbouring lags is the same data. D is
the mean over atoms of the same line fitted to each atom's own MSD, so that the scatter s of these single-atom D holds
all correlations in time. What it cannot see is atoms that move together. That is seen in time: the trajectory is cut
into segments, and R is the variance over segments of the squared displacement summed over the atoms, over the sum of
its variances for each atom: 1 for independent atoms, m if they move in groups of m. The rule:

- the larger of R and 1 is used: N atoms count as N / R independent ones;
- variance of D = s^2 (R / N) (N - 1) / (N - R), because common motion has reduced s^2 by the last factor;
- Student's t with N - 1 degrees of freedom, but if R > 1 with those of the N / R atoms and of the R of M
  displacements together: 1 / nu = 1 / (N / R - 1) + 1 / (M - 1);
- single-atom D are skewed (few atoms travel far), so the t statistic is transformed by the cubic of P. Hall, J. R.
  Stat. Soc. B 54 (1992) 221, with the skewness of the mean of N / R values; the interval reaches farther up than down.

If all atoms move as one, the interval is infinite. It speaks of the motion that was seen: hops so rare that the
trajectory has none of them are in no interval made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from scipy import constants, fft, stats

from .neighbours import check_positions, periodic_cell

Array = NDArray[np.float64]

DRIFTS = ("network", "all", "none")

# As in the work that gave Table 1 of composition.py its glasses: 300 ps at 500 K.
DEFAULT_WINDOW_PS = (50.0, 150.0)
DEFAULT_DROP_PS = 50.0

CONFIDENCE = 0.95

_LARGEST_STEP = 1 / 3  # of the smallest cell height; from 1/2 on the nearest image may be the wrong one
_SEGMENTS = 24  # segments that show collective motion in a short run; a longer one has one per start of the window
_NUMBERS_AT_ONCE = 2**21  # coordinates whose Fourier transforms are held at one time
_STILL_A = 1e-8  # atoms that move less are at rest up to rounding
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95 % confidence interval; the bounds may be infinite and may include zero."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """The same estimate in other units, for a positive factor."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Diffusion:
    """Diffusion of the `n_atoms` atoms of an element, of one trajectory or of several together."""

    element: str
    D_A2_ps: Estimate
    number_density_A3: float  # atoms of the element per Å^3, mean over frames
    window_ps: tuple[float, float]
    dropped_ps: float
    drift: str  # one of DRIFTS
    n_atoms: int  # of the element in each trajectory
    n_frames: int  # used, in all trajectories
    n_trajectories: int
    lags_ps: Array  # (n_lags,), from 0 to the length of the (shortest) trajectory
    msd_A2: Array  # (n_lags,), mean over atoms and time origins, sum over the three directions

    @property
    def D_cm2_s(self) -> Estimate:
        """D in cm^2/s (1 Å^2/ps = 1e-4 cm^2/s)."""
        return self.D_A2_ps.times(1e-4)

    @property
    def intercept_A2(self) -> float:
        """The constant c of the fitted line 6 D t + c, in Å^2."""
        chosen = _in_window(len(self.lags_ps), self.lags_ps[1], self.window_ps)
        return float(np.mean(self.msd_A2[chosen] - 6 * self.D_A2_ps.value * self.lags_ps[chosen]))

    @property
    def C_times_D_per_m_s(self) -> Estimate:
        """Number density times D in 1/(m s) (1 Å^-1 ps^-1 = 1e22 m^-1 s^-1)."""
        return self.D_A2_ps.times(self.number_density_A3 * 1e22)

    @property
    def C_times_D_per_cm_s(self) -> Estimate:
        """Number density times D in 1/(cm s), which goes as the conductivity over glasses at one temperature."""
        return self.C_times_D_per_m_s.times(1e-2)

    def conductivity_S_cm(self, temperature_K: float, charge_e: float = 1.0) -> Estimate:
        """Nernst-Einstein conductivity n q^2 D / (k_B T) in S/cm, for ions of `charge_e` elementary charges.

        Ions are taken to move independently (a Haven ratio of 1). ValueError for a temperature that is not positive
        or a charge of zero.
        """
        if not (0 < temperature_K < np.inf):
            raise ValueError(f"the temperature is {temperature_K} K; give that of the trajectory, which is > 0")
        if not (np.isfinite(charge_e) and charge_e != 0):
            raise ValueError(f"the ion's charge is {charge_e} e; give its formal charge, e.g. 1 for Li")
        siemens_m = (charge_e * constants.e) ** 2 / (constants.k * temperature_K)
        return self.C_times_D_per_m_s.times(siemens_m * 1e-2)


class Unwrapper:
    """Follows one element through periodic frames that come one at a time.

    Kept are the scaled coordinates of that element in each frame, and of all atoms in the last one only.
    """

    def __init__(self, symbols: Sequence[str], *, element: str = "Li", drift: str = "network") -> None:
        """Atoms have these symbols in every frame; ValueError for no such atom or nothing to take a drift from."""
        if drift not in DRIFTS:
            raise ValueError(f"{drift!r} is not a drift that can be removed; use one of {', '.join(DRIFTS)}")
        self.symbols = tuple(symbols)
        self._chosen = np.array([symbol == element for symbol in self.symbols], dtype=bool)
        if not self._chosen.any():
            there = ", ".join(sorted(set(self.symbols))) or "no atoms"
            raise ValueError(f"there is no {element} atom in the frames, which hold {there}; choose one of these")
        masses = np.array([atomic_masses[atomic_numbers[symbol]] for symbol in self.symbols])
        carriers = {"network": ~self._chosen, "all": np.ones_like(self._chosen), "none": np.zeros_like(self._chosen)}
        if drift == "network" and self._chosen.all():
            raise ValueError(f"all atoms are {element}, there is no network to take the drift from; use drift='all'")
        weights = masses * carriers[drift]
        self._weights = weights / weights.sum() if drift != "none" else weights
        self._kept: list[Array] = []
        self._last = np.empty((0, 3))
        self._travelled = np.zeros((len(self.symbols), 3))
        self._cell_sum = np.zeros((3, 3))
        self._inverse_volumes = 0.0

    @property
    def n_frames(self) -> int:
        """Frames added so far."""
        return len(self._kept)

    def add(self, positions_A: Array, cell_A: Array) -> None:
        """Add the next frame: positions (n_atoms, 3), wrapped or not, and the cell (3, 3) whose rows repeat it.

        ValueError for another number of atoms, numbers that are not finite, a flat cell, or an atom that moved
        farther than a third of the smallest height of the cell since the frame before: its image is not certain.
        """
        if np.shape(positions_A) != self._travelled.shape or not np.isfinite(positions_A).all():
            raise ValueError(
                f"used frame {self.n_frames} has positions of shape {np.shape(positions_A)}; expected "
                f"{self._travelled.shape}, all finite: give frames of the same atoms from a run that did not break down"
            )
        volume = abs(float(np.linalg.det(cell_A)))
        if not volume > 1e-6 * np.linalg.norm(cell_A, axis=1).prod():
            raise ValueError(
                f"used frame {self.n_frames} has the cell {np.asarray(cell_A).tolist()}; give three vectors"
            )
        inverse = np.linalg.inv(cell_A)
        scaled = positions_A @ inverse
        if self._kept:
            step = scaled - self._last
            step -= np.rint(step)
            self._check_step(step @ cell_A, float(1 / np.linalg.norm(inverse, axis=0).max()))
            self._travelled += step
        self._last = scaled
        self._kept.append(self._travelled[self._chosen] - self._weights @ self._travelled)
        self._cell_sum += cell_A
        self._inverse_volumes += 1 / volume

    def _check_step(self, step_A: Array, height_A: float) -> None:
        squared = np.einsum("ij,ij->i", step_A, step_A)
        atom = int(np.argmax(squared))
        if squared[atom] > (_LARGEST_STEP * height_A) ** 2:
            raise ValueError(
                f"the frames are too far apart to unwrap: atom {atom} ({self.symbols[atom]}) is "
                f"{squared[atom] ** 0.5:.2f} Å away in used frame {self.n_frames} from its place before, more than "
                f"a third of the smallest cell height ({height_A:.2f} Å); write frames more often, of one unbroken run"
            )

    def positions_A(self) -> Array:
        """Displacements (n_frames, n, 3) in Å of the element's atoms since the first frame, without the drift."""
        return np.stack(self._kept) @ (self._cell_sum / self.n_frames)

    def number_density_A3(self) -> float:
        """Atoms of the element per Å^3, mean over the frames (one or more)."""
        return float(self._chosen.sum() * self._inverse_volumes / self.n_frames)


def mean_squared_displacement_A2(positions_A: Array) -> Array:
    """MSD (n_frames, n_atoms) in Å^2 of each atom at lags of 0, 1, ... frames over all time origins.

    `positions_A` (n_frames, n_atoms, 3) are unwrapped; the squares of the three directions are summed. The products of
    two times come from a Fourier transform in O(n log n), the squares from running sums.
    """
    n = len(positions_A)
    centred = positions_A - positions_A.mean(axis=0)
    length = fft.next_fast_len(2 * n - 1, real=True)
    spectrum = fft.rfft(centred, length, axis=0)
    products = fft.irfft((spectrum.real**2 + spectrum.imag**2).sum(axis=2), length, axis=0)[:n]
    squares = np.einsum("tij,tij->ti", centred, centred)
    from_start = np.cumsum(squares, axis=0)[::-1]  # lag k: first n - k frames
    to_end = np.cumsum(squares[::-1], axis=0)[::-1]  # lag k: frames from k on
    msd = (from_start + to_end - 2 * products) / (n - np.arange(n))[:, None]
    msd[0] = 0.0
    return msd


def _in_window(n_frames: int, time_step_ps: float, window_ps: tuple[float, float]) -> NDArray[np.int64]:
    """Lags in frames within the window, both ends included."""
    first = max(1, int(np.ceil(window_ps[0] / time_step_ps - _ROUNDING)))
    last = int(np.floor(window_ps[1] / time_step_ps + _ROUNDING))
    return np.arange(first, min(last, n_frames - 1) + 1)


def _check_times(time_step_ps: float, window_ps: tuple[float, float], drop_ps: float) -> None:
    if not (0 < time_step_ps < np.inf):
        raise ValueError(f"the time between frames is {time_step_ps} ps; give a positive number")
    if not (0 <= window_ps[0] < window_ps[1] < np.inf):
        raise ValueError(f"the window of lags is {window_ps} ps; give two times, the earlier first")
    if not (0 <= drop_ps < np.inf):
        raise ValueError(f"{drop_ps} ps are to be dropped at the start; give 0 or a positive time")


def _check_length(n_frames: int, time_step_ps: float, window_ps: tuple[float, float], drop_ps: float) -> None:
    """ValueError if `n_frames` frames after the dropped ones do not reach to the end of the window."""
    used_ps = (n_frames - 1) * time_step_ps
    if used_ps < window_ps[1] - _ROUNDING * time_step_ps:
        raise ValueError(
            f"the trajectory is too short: {max(used_ps, 0):g} ps after {drop_ps:g} ps dropped at its start, but "
            f"lags to {window_ps[1]:g} ps need at least that, so {drop_ps + window_ps[1]:g} ps in all (better twice as "
            "long); run longer or choose an earlier window"
        )
    if len(_in_window(n_frames, time_step_ps, window_ps)) < 2:
        raise ValueError(
            f"frames every {time_step_ps:g} ps have fewer than two lags from {window_ps[0]:g} to {window_ps[1]:g} ps; "
            "write frames more often or choose a wider window"
        )


def _fit(positions_A: Array, time_step_ps: float, window_ps: tuple[float, float]) -> tuple[Array, Array]:
    """Single-atom D (n_atoms,) in Å^2/ps from the line through the window, and the mean MSD (n_frames,)."""
    n_frames, n_atoms = positions_A.shape[:2]
    lags = _in_window(n_frames, time_step_ps, window_ps)
    from_middle_ps = (lags - lags.mean()) * time_step_ps
    weights = from_middle_ps / (6 * from_middle_ps @ from_middle_ps)
    single = np.empty(n_atoms)
    total = np.zeros(n_frames)
    at_once = max(1, _NUMBERS_AT_ONCE // (6 * n_frames))
    for start in range(0, n_atoms, at_once):
        msd = mean_squared_displacement_A2(positions_A[:, start : start + at_once])
        single[start : start + at_once] = weights @ msd[lags]
        total += msd.sum(axis=1)
    return single, total / n_atoms


def _common_motion(positions_A: Array, frames_per_segment: int) -> tuple[float, int]:
    """R of the module's rule, between 1 and the number of atoms, and the number of displacements it was found from.

    Displacements are those of the mean positions of following segments, in which most of the rattling has averaged
    out. ValueError if nothing moves.
    """
    n_segments = len(positions_A) // frames_per_segment
    used = positions_A[: n_segments * frames_per_segment]
    means = used.reshape(n_segments, frames_per_segment, *used.shape[1:]).mean(axis=1)
    moved = np.diff(means, axis=0)
    squared = np.einsum("tij,tij->ti", moved, moved)
    if squared.max() < _STILL_A**2:
        raise ValueError("none of the atoms moves; check that the frames are not copies of one frame")
    together, separate = float(squared.sum(axis=1).var(ddof=1)), float(squared.var(axis=0, ddof=1).sum())
    return max(1.0, together / separate) if separate > 0 else float(squared.shape[1]), n_segments - 1


def _mean_of_atoms(single: Array, common: float, n_displacements: int) -> Estimate:
    """Mean of single-atom values with its interval by the module's rule."""
    n, mean = len(single), float(single.mean())
    if common > n * (1 - _ROUNDING):
        return Estimate(mean, -np.inf, np.inf)
    independent = n / common
    freedom = n - 1.0
    if common > 1:
        freedom = 1 / (1 / (independent - 1) + 1 / (n_displacements - 1))
    error = np.sqrt(single.var(ddof=1) / independent * (n - 1) / (n - common))
    t = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.array([1.0, -1.0])
    skew = float(stats.skew(single)) / np.sqrt(independent) if error > 0 else 0.0
    if abs(skew) > 1e-6:
        t = 3 / skew * (np.cbrt(1 + skew * (t - skew / 6)) - 1)
    low, high = mean - error * t
    return Estimate(mean, float(low), float(high))


def _estimate(positions_A: Array, time_step_ps: float, window_ps: tuple[float, float]) -> tuple[Estimate, Array]:
    """D with its interval, and the mean MSD; ValueError for fewer than two atoms."""
    n_frames, n_atoms = positions_A.shape[:2]
    if n_atoms < 2:
        raise ValueError(
            f"{n_atoms} atom cannot show how far D may be off; give a cell with two or more of them, or fit the mean "
            "of mean_squared_displacement_A2 yourself"
        )
    single, msd = _fit(positions_A, time_step_ps, window_ps)
    segment_ps = min(window_ps[0], n_frames * time_step_ps / _SEGMENTS)
    common, n_displacements = _common_motion(positions_A, max(1, int(segment_ps / time_step_ps + _ROUNDING)))
    return _mean_of_atoms(single, common, n_displacements), msd


def diffusion_coefficient_A2_ps(
    positions_A: Array, *, time_step_ps: float, window_ps: tuple[float, float] = DEFAULT_WINDOW_PS
) -> Estimate:
    """D in Å^2/ps with its 95 % interval (see the module) of unwrapped positions (n_frames, n_atoms, 3) without drift.

    Nothing is dropped. ValueError if they do not reach to the end of the window, fewer than two lags lie in it,
    there are fewer than two atoms, or none of them moves.
    """
    positions_A = np.asarray(positions_A, dtype=float)
    if positions_A.ndim != 3 or positions_A.shape[2] != 3 or not np.isfinite(positions_A).all():
        raise ValueError(f"positions have the shape {positions_A.shape}; give (frames, atoms, 3) finite numbers in Å")
    _check_times(time_step_ps, window_ps, 0.0)
    _check_length(len(positions_A), time_step_ps, window_ps, 0.0)
    return _estimate(positions_A, time_step_ps, window_ps)[0]


def diffusion(
    frames: Iterable[Atoms],
    *,
    time_step_ps: float,
    element: str = "Li",
    drift: str = "network",
    window_ps: tuple[float, float] = DEFAULT_WINDOW_PS,
    drop_ps: float = DEFAULT_DROP_PS,
) -> Diffusion:
    """Diffusion of an element in one trajectory of frames every `time_step_ps`, read one at a time (see the module).

    `drift` says whose mean motion is subtracted: of the "network" (all atoms but the element's), of "all" atoms (D
    then lacks the part of the element in it), or "none". Lags in `window_ps` are fitted, frames before `drop_ps` are
    not used at all. ValueError for frames without a full periodic cell, with other atoms or in another order than
    the first, too far apart to unwrap, or too few for the window; for fewer than two atoms of the element; and for
    unknown options.
    """
    _check_times(time_step_ps, window_ps, drop_ps)
    first_used = int(np.ceil(drop_ps / time_step_ps - _ROUNDING))
    unwrapper: Unwrapper | None = None
    for number, atoms in enumerate(islice(frames, first_used, None), start=first_used):
        check_positions(atoms)
        unwrapper = unwrapper or Unwrapper(atoms.get_chemical_symbols(), element=element, drift=drift)
        _check_frame(atoms, number, unwrapper.symbols)
        unwrapper.add(atoms.positions, atoms.cell.array)
    n_frames = unwrapper.n_frames if unwrapper else 0
    _check_length(n_frames, time_step_ps, window_ps, drop_ps)
    assert unwrapper is not None  # or it would have been too short
    positions_A = unwrapper.positions_A()
    estimate, msd = _estimate(positions_A, time_step_ps, window_ps)
    return Diffusion(
        element=element,
        D_A2_ps=estimate,
        number_density_A3=unwrapper.number_density_A3(),
        window_ps=window_ps,
        dropped_ps=drop_ps,
        drift=drift,
        n_atoms=positions_A.shape[1],
        n_frames=n_frames,
        n_trajectories=1,
        lags_ps=time_step_ps * np.arange(n_frames, dtype=np.float64),
        msd_A2=msd,
    )


def _check_frame(atoms: Atoms, number: int, symbols: tuple[str, ...]) -> None:
    if not periodic_cell(atoms)[1].all():
        raise ValueError(
            f"frame {number} is not periodic in all three directions, so that the element has no density; "
            "give frames with a full cell and pbc"
        )
    if tuple(atoms.get_chemical_symbols()) != symbols:
        raise ValueError(
            f"frame {number} ({atoms.symbols}) has other atoms, or the same in another order, than the first used one; "
            "atoms are followed by their index, so sort the frames by atom id first"
        )


def combine_trajectories(results: Sequence[Diffusion]) -> Diffusion:
    """D of the mean over replicas of one glass; Student's t interval from the scatter between them only.

    With two replicas the interval is 12.7 standard errors wide to each side; four give 3.2. The MSD is the mean at
    the lags all have, the number density the mean. ValueError for fewer than two results, for results that are
    combined already, or that differ in element, number of atoms, window, dropped time, drift or time step.
    """
    if len(results) < 2:
        raise ValueError(f"{len(results)} trajectory was given; the scatter between trajectories needs two or more")
    if any(result.n_trajectories != 1 for result in results):
        raise ValueError("one of the results is combined already; give the single trajectories together")
    same = [(r.element, r.n_atoms, r.window_ps, r.dropped_ps, r.drift, float(r.lags_ps[1])) for r in results]
    if len(set(same)) > 1:
        raise ValueError(
            "the trajectories differ in (element, atoms, window, dropped time, drift, time step): "
            f"{' and '.join(map(str, sorted(set(same))))}; analyse replicas of one glass in one way"
        )
    values = np.array([result.D_A2_ps.value for result in results])
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    shortest = min(results, key=lambda result: len(result.lags_ps))
    return replace(
        shortest,
        D_A2_ps=Estimate(mean, mean - half, mean + half),
        number_density_A3=float(np.mean([result.number_density_A3 for result in results])),
        n_frames=sum(result.n_frames for result in results),
        n_trajectories=n,
        msd_A2=np.mean([result.msd_A2[: len(shortest.msd_A2)] for result in results], axis=0),
    )
