"""Structure factors of a glass: Faber-Ziman partials, and the totals that neutrons and X-rays measure.

The partials are S_ab(Q) = 1 + (1 / (N c_a c_b)) < sum over i of a, j of b, j not i, of exp(i q (r_j - r_i)) >, averaged
over the directions of q and over frames, with the atomic fractions c (T. E. Faber and J. M. Ziman, Phil. Mag. 11 (1965)
153). There are two ways to them:

- `structure_factors_direct` sums over the reciprocal lattice vectors of the cell. It is exact for a periodic box, has
  no cut-off and no ripples, but knows S only at these vectors: nothing below 2 pi / (largest height of the cell).
- `structure_factors_from_g` transforms g(r) up to r_max and gives S at every Q, blurred by the end of g(r).

Scattering lengths: V. F. Sears, Neutron News 3 (1992) no. 3, 26, the values NIST lists. Form factors: International
Tables for Crystallography C, table 6.1.1.4, neutral atoms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from scipy.special import spherical_jn

from .correlation import RadialDistribution, check_bulk_frame
from .neighbours import check_positions, pair_name, parse_pair

Array = NDArray[np.float64]

NEUTRON_LENGTHS_FM: dict[str, float] = {
    "Li": -1.90,
    "7Li": -2.22,
    "B": 5.30,
    "11B": 6.65,
    "O": 5.803,
    "Si": 4.1491,
}
"""Bound coherent scattering lengths in fm, the real part: that of natural boron has 4 % of it as imaginary part."""

# a1, b1, ..., a4, b4, c of f(s) = c + sum a exp(-b s^2), s = sin(theta) / lambda = Q / 4 pi in 1/Å, b in Å^2
_FORM_FACTORS: dict[str, tuple[float, ...]] = {
    "Li": (1.1282, 3.9546, 0.7508, 1.0524, 0.6175, 85.3905, 0.4653, 168.261, 0.0377),
    "B": (2.0545, 23.2185, 1.3326, 1.0210, 1.0979, 60.3498, 0.7068, 0.1403, -0.1932),
    "O": (3.0485, 13.2771, 2.2868, 5.7011, 1.5463, 0.3239, 0.8670, 32.9089, 0.2508),
    "Si": (6.2915, 2.4386, 3.0353, 32.3337, 1.9891, 0.6785, 1.5410, 81.6937, 1.1407),
}
XRAY_Q_MAX_PER_A = 8 * np.pi
"""Largest Q of the form factors: they were fitted to sin(theta) / lambda = 2 / Å."""

_LEAST_MEAN = 1e-3  # mean scattering length over its rms below which a total normalised by the mean has no meaning


def neutron_lengths_fm(
    elements: Iterable[str], *, isotopes: Collection[str] = (), lengths_fm: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Scattering length of each element in fm: natural, or of the isotope named in `isotopes`, e.g. ("7Li", "11B").

    `lengths_fm` overrides or extends by element, for other elements and partial enrichment. ValueError for an
    isotope or element without a known length, or two isotopes of one element.
    """
    chosen: dict[str, float] = {}
    for isotope in isotopes:
        element = isotope.lstrip("0123456789")
        if isotope not in NEUTRON_LENGTHS_FM or element == isotope:
            known = ", ".join(name for name in NEUTRON_LENGTHS_FM if name[0].isdigit())
            raise ValueError(f"{isotope!r} is not a known isotope; use {known}, or lengths_fm for a length of your own")
        if element in chosen:
            raise ValueError(f"two isotopes of {element} were given in {list(isotopes)}; keep one")
        chosen[element] = NEUTRON_LENGTHS_FM[isotope]
    known_fm = NEUTRON_LENGTHS_FM | chosen | dict(lengths_fm or {})
    elements = list(elements)
    missing = [element for element in elements if element not in known_fm]
    if missing:
        raise ValueError(
            f"no neutron scattering length of {', '.join(missing)} is known; "
            f"give it in fm, e.g. lengths_fm={{'{missing[0]}': 3.6}}"
        )
    return {element: known_fm[element] for element in elements}


def xray_form_factor(element: str, q_per_A: ArrayLike) -> Array:
    """Form factor of a free neutral atom in electrons, in the shape of `q_per_A` (1/Å).

    ValueError for an element other than Li, B, O, Si or a Q outside 0 to `XRAY_Q_MAX_PER_A`, where the fit ends.
    """
    if element not in _FORM_FACTORS:
        raise ValueError(f"no X-ray form factor of {element} is known; there are {', '.join(_FORM_FACTORS)}")
    q = np.asarray(q_per_A, dtype=float)
    if not ((q >= 0) & (q <= XRAY_Q_MAX_PER_A)).all():
        raise ValueError(
            f"X-ray form factors hold for Q from 0 to {XRAY_Q_MAX_PER_A:.2f}/Å; the Q given are {q.min():g} to "
            f"{q.max():g}/Å: shorten the range"
        )
    *pairs, constant = _FORM_FACTORS[element]
    squared = -((q / (4 * np.pi)) ** 2)
    return constant + sum((a * np.exp(b * squared) for a, b in zip(pairs[::2], pairs[1::2], strict=True)), 0.0 * q)


def _weights(fractions: Mapping[str, float], amplitudes: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Share of each pair in a total, (2 - delta_ab) c_a c_b f_a f_b / <f>^2; they add up to 1."""
    parts = {element: fractions[element] * np.asarray(amplitudes[element], dtype=float) for element in fractions}
    mean = np.asarray(sum(parts.values()))
    square = np.asarray(sum(parts[element] * np.asarray(amplitudes[element]) for element in fractions))
    if (np.abs(mean) < _LEAST_MEAN * np.sqrt(square)).any():
        raise ValueError(
            f"the mean scattering length of {dict(fractions)} is zero within 0.1 % of its rms, so that a total "
            "normalised by it has no meaning; use the partials, or other isotopes"
        )
    return {
        pair_name(a, b): (1 if a == b else 2) * parts[a] * parts[b] / mean**2
        for a, b in combinations_with_replacement(fractions, 2)
    }


@dataclass(frozen=True)
class StructureFactors:
    """Faber-Ziman partial structure factors on a common Q, and the totals made of them.

    `n_vectors` is the number of reciprocal lattice vectors (q and -q as one, all frames together) behind each Q of
    a direct sum, None for a transform of g(r).
    """

    q_per_A: Array  # (n_q,)
    partial: dict[str, Array]  # canonical pair name -> (n_q,)
    fractions: dict[str, float]  # element -> atomic fraction
    n_frames: int
    n_vectors: NDArray[np.int64] | None = None  # (n_q,)

    def pair(self, one: str, other: str) -> Array:
        """S_ab(Q) (n_q,) of two elements in either order; ValueError if the frames hold no such pair."""
        name = parse_pair(f"{one}-{other}")
        if name not in self.partial:
            raise ValueError(f"the frames hold no {name} pair; they hold {', '.join(self.partial)}")
        return self.partial[name]

    def neutron(self, *, isotopes: Collection[str] = (), lengths_fm: Mapping[str, float] | None = None) -> Array:
        """Total S(Q) (n_q,) of neutrons, 1 + sum_ab c_a c_b b_a b_b (S_ab - 1) / <b>^2; it tends to 1 at large Q.

        Options and errors as in `neutron_lengths_fm`. ValueError where <b> vanishes, which a negative length can cause.
        """
        lengths = neutron_lengths_fm(self.fractions, isotopes=isotopes, lengths_fm=lengths_fm)
        return self._total(_weights(self.fractions, lengths))

    def xray(self) -> Array:
        """Total S(Q) (n_q,) of X-rays, as for neutrons with the form factors f(Q) in place of b.

        ValueError for an element without a form factor or a Q beyond their range.
        """
        factors = {element: xray_form_factor(element, self.q_per_A) for element in self.fractions}
        return self._total(_weights(self.fractions, factors))

    def _total(self, weights: Mapping[str, Array]) -> Array:
        return 1.0 + np.sum([weights[name] * (s - 1.0) for name, s in self.partial.items()], axis=0)

    def write_csv(self, path: Path) -> None:
        """Write Q (1/Å) and all partials as columns with a header."""
        columns = np.column_stack([self.q_per_A, *self.partial.values()])
        np.savetxt(path, columns, fmt="%.6g", delimiter=",", header=",".join(["q_per_A", *self.partial]), comments="")


def lorch_window(r_A: ArrayLike, r_max_A: float) -> Array:
    """sin(pi r / r_max) / (pi r / r_max), 1 at r = 0 and 0 at r_max (E. Lorch, J. Phys. C 2 (1969) 229)."""
    return np.sinc(np.asarray(r_A, dtype=float) / r_max_A)


def structure_factors_from_g(g: RadialDistribution, q_per_A: ArrayLike, *, lorch: bool = True) -> StructureFactors:
    """S_ab(Q) = 1 + 4 pi rho integral of r^2 (g_ab(r) - 1) sin(Qr) / (Qr) w(r) dr from 0 to r_max, at any Q > 0 (1/Å).

    rho is the density of all atoms. w is 1, or with `lorch` the Lorch window, which takes away most of the ripples of
    wavelength 2 pi / r_max that the end of g(r) leaves. A sharp peak gets a width at half height of 5.4 / r_max with
    it and 3.8 / r_max without. g counts as constant within a bin, which damps S - 1 by sin(x) / x with x = Q bin / 2:
    for 1 % at Q = 20 / Å take bins of 0.02 Å. Below about 2 pi / r_max the result says nothing about the glass: g - 1
    of a finite box tends to a value of order 1/N, which the r^2 amplifies.

    An r_max beyond half the cell is allowed, since g(r) counts images; but what it adds is the order of the box, not of
    the glass: with growing r_max S(Q) turns into the Bragg peaks of the periodic box, which `structure_factors_direct`
    gives without blur. For a smooth S(Q) keep r_max at half the smallest height of the cell.
    ValueError for Q that are not one row of positive numbers.
    """
    q = np.atleast_1d(np.asarray(q_per_A, dtype=float))
    if q.ndim != 1 or not (np.isfinite(q) & (q > 0)).all():
        raise ValueError(f"Q must be a row of positive numbers in 1/Å; found shape {q.shape}, least {q.min():g}")
    window = lorch_window(g.r_A, g.edges_A[-1]) if lorch else np.ones(len(g.r_A))
    return StructureFactors(
        q_per_A=q,
        partial={name: 1.0 + _transform(g, values - 1.0, q, window) for name, values in g.partial.items()},
        fractions=_fractions(g),
        n_frames=g.n_frames,
    )


def _transform(g: RadialDistribution, h: Array, q: Array, window: Array) -> Array:
    """4 pi rho integral of r^2 h sin(qr) / (qr) w dr, (n_q,); h and w count as constant in each bin of g."""
    # integral of r^2 sin(qr) / (qr) from 0 to r is r^2 j_1(qr) / q
    below = g.edges_A**2 * spherical_jn(1, np.outer(q, g.edges_A)) / q[:, None]
    return 4 * np.pi * sum(g.mean_density_A3.values()) * np.diff(below, axis=1) @ (h * window)


def _fractions(g: RadialDistribution) -> dict[str, float]:
    density = sum(g.mean_density_A3.values())
    return {element: value / density for element, value in g.mean_density_A3.items()}


@dataclass(frozen=True)
class NeutronCorrelation:
    """Neutron-weighted correlation functions in the normalisation of D. A. Keen, J. Appl. Cryst. 34 (2001) 172.

    `g` = sum_ab c_a c_b b_a b_b g_ab / <b>^2 tends to 1; `T_per_A2` = 4 pi rho r g; `G_per_A2` = 4 pi rho r (g - 1).
    Times `mean_length_fm`^2 / 100 they are in barn / Å^2, as many neutron works print T(r) and D(r).
    """

    r_A: Array  # (n_bins,)
    g: Array
    T_per_A2: Array
    G_per_A2: Array
    density_A3: float
    mean_length_fm: float


def neutron_correlation(
    g: RadialDistribution, *, isotopes: Collection[str] = (), lengths_fm: Mapping[str, float] | None = None
) -> NeutronCorrelation:
    """Total T(r) and G(r) with the weights of `StructureFactors.neutron`; options and errors as there.

    Nothing is broadened: a measurement to Q_max shows these peaks at least 3.8 / Q_max wide.
    """
    fractions = _fractions(g)
    lengths = neutron_lengths_fm(fractions, isotopes=isotopes, lengths_fm=lengths_fm)
    weights = _weights(fractions, lengths)
    total = np.sum([weights[name] * values for name, values in g.partial.items()], axis=0)
    density = sum(g.mean_density_A3.values())
    surface = 4 * np.pi * density * g.r_A
    mean = sum(fractions[element] * lengths[element] for element in fractions)
    return NeutronCorrelation(g.r_A, total, surface * total, surface * (total - 1.0), density, mean)


def structure_factors_direct(
    frames: Iterable[Atoms], *, q_max_per_A: float = 20.0, bin_width_per_A: float = 0.05
) -> StructureFactors:
    """Partial S(Q) summed over all reciprocal lattice vectors of the cell up to `q_max_per_A`, averaged in shells.

    Exact for the periodic box, whatever its size and shape. A shell of `bin_width_per_A` holds the vectors of all
    frames in it; its Q is the mean length of them, and a shell without a vector is left out, so that a small
    cell gives few points at low Q. `frames` may be a generator; one frame is held at a time, and cells may differ.
    A frame takes a time proportional to n_atoms^2 q_max^3: 1000 atoms to 20 / Å about a second.
    ValueError for no frames, frames that are not periodic in all three directions or of different composition,
    lengths that are not positive, and a range below the shortest vector of every cell.
    """
    if not (0 < bin_width_per_A <= q_max_per_A < np.inf):
        raise ValueError(f"S(Q) to {q_max_per_A}/Å in shells of {bin_width_per_A}/Å: give 0 < shell width <= q_max")
    n_bins = int(np.ceil(q_max_per_A / bin_width_per_A - 1e-9))
    composition: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    n_frames = 0
    sums: Array = np.zeros((0, n_bins))
    for atoms in frames:
        check_positions(atoms)
        counted = Counter(atoms.symbols)
        if n_frames == 0:
            composition = counted
            pairs = list(combinations_with_replacement(sorted(composition), 2))
            sums = np.zeros((2 + len(pairs), n_bins))
        check_bulk_frame(atoms, n_frames, counted, composition)
        for length, products in _intensities(atoms, sorted(composition), q_max_per_A):
            into = np.minimum((length / bin_width_per_A).astype(np.int64), n_bins - 1)
            for row, values in enumerate((np.ones_like(length), length, *products)):
                sums[row] += np.bincount(into, weights=values, minlength=n_bins)
        n_frames += 1
    if n_frames == 0:
        raise ValueError("no frames were given; check the file and the frame selection")
    return _from_sums(sums, pairs, composition, n_frames, q_max_per_A)


def _from_sums(
    sums: Array, pairs: list[tuple[str, str]], composition: Counter[str], n_frames: int, q_max_per_A: float
) -> StructureFactors:
    """Partials from the number of vectors, the sum of lengths and of rho_a rho_b* by pair in each shell."""
    sums = sums[:, sums[0] > 0]
    if sums.shape[1] == 0:
        raise ValueError(f"no reciprocal lattice vector is shorter than {q_max_per_A:g}/Å; raise q_max_per_A")
    means = sums[1:] / sums[0]
    n_atoms = composition.total()
    partial = {
        pair_name(a, b): 1.0 + (mean - (composition[a] if a == b else 0)) * n_atoms / (composition[a] * composition[b])
        for (a, b), mean in zip(pairs, means[1:], strict=True)
    }
    return StructureFactors(
        q_per_A=means[0],
        partial=dict(sorted(partial.items())),
        fractions={element: count / n_atoms for element, count in composition.items()},
        n_frames=n_frames,
        n_vectors=np.rint(sums[0]).astype(np.int64),
    )


def _intensities(atoms: Atoms, elements: list[str], q_max_per_A: float) -> Iterator[tuple[Array, list[Array]]]:
    """Lengths (m,) of reciprocal lattice vectors and Re rho_a rho_b* (m,) of each element pair, in slices.

    Of each q and -q one is taken. rho_a(q) is a product of three phases per atom, summed over the atoms: a matrix
    product for each index along the first cell vector.
    """
    cell = np.asarray(atoms.cell.array, dtype=float)
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    most = np.floor(q_max_per_A * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)  # |n_k| <= q |a_k| / 2 pi
    first, second, third = np.arange(most[0] + 1), np.arange(-most[1], most[1] + 1), np.arange(-most[2], most[2] + 1)
    phase = 2j * np.pi * (atoms.positions @ np.linalg.inv(cell))
    symbols = np.array(atoms.get_chemical_symbols())
    by_element = [
        tuple(np.exp(np.outer(column, index)) for column, index in zip(part.T, (first, second, third), strict=True))
        for part in (phase[symbols == element] for element in elements)
    ]
    ahead = (second[:, None] > 0) | ((second[:, None] == 0) & (third > 0))
    plane = second[:, None, None] * reciprocal[1] + third[:, None] * reciprocal[2]
    for n in first:
        length = np.linalg.norm(n * reciprocal[0] + plane, axis=-1)
        chosen = (length <= q_max_per_A) & (ahead | (n > 0))
        rho = [((along[:, [n]] * across).T @ up)[chosen] for along, across, up in by_element]
        yield length[chosen], [(a * b.conj()).real for a, b in combinations_with_replacement(rho, 2)]
