"""Crystals of the Li2O-B2O3-SiO2 system as starting structures, with supercells and perturbed copies.

Sources of the coordinates: B2O3-I, Crystallography Open Database 1510796; Li2Si2O5, AFLOW prototype library;
alpha-quartz, Levien, Prewitt and Weidner, Am. Mineral. 65, 920 (1980); alpha-cristobalite at 10 K, Pluth, Smith and
Faber, J. Appl. Phys. 57, 1045 (1985); all others, PBE-relaxed cells of the Materials Project as distributed
with matminer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal as from_spacegroup

_Cell = Sequence[Sequence[float]]
_SPACEGROUP: dict[str, tuple[int, tuple[float, ...], dict[str, tuple[float, float, float]]]] = {
    "B2O3-I": (
        152,
        (4.3358, 4.3358, 8.3397, 90, 90, 120),
        {"B1": (0.3954, 0.2299, 0.2244), "O1": (0.6009, 0.1477, 0.1282), "O2": (0.1607, 0, 1 / 3)},
    ),
    "Li2O": (225, (4.6515, 4.6515, 4.6515, 90, 90, 90), {"Li1": (0.25, 0.25, 0.25), "O1": (0, 0, 0)}),
    "Li2Si2O5": (
        37,
        (5.80716, 14.58244, 4.77313, 90, 90, 90),
        {
            "Li1": (0.654, 0.0584, 0.0469),
            "Si1": (0.1552, 0.14836, 0.0571),
            "O1": (0.25, 0.25, 0),
            "O2": (0.6705, 0.0718, 0.471),
            "O3": (0.0932, 0.1377, 0.4004),
        },
    ),
    "alpha-quartz": (
        154,
        (4.916, 4.916, 5.4054, 90, 90, 120),
        {"Si1": (0.4697, 0, 2 / 3), "O1": (0.4135, 0.2669, 0.1191 - 1 / 3)},
    ),
    "alpha-cristobalite": (
        92,
        (4.957, 4.957, 6.8903, 90, 90, 90),
        {"Si1": (0.3047, 0.3047, 0), "O1": (0.2381, 0.1109, 0.1826)},
    ),
}
_PRIMITIVE: dict[str, tuple[_Cell, str, _Cell]] = {
    "B2O3-II": (
        ((4.172137, 0, 0), (0, 4.016338, -2.202914), (0, 0.005920, 4.580804)),
        "B4O6",
        (
            (0.567537, 0.323535, 0.992822),
            (0.067537, 0.676465, 0.007178),
            (0.067537, 0.007178, 0.676465),
            (0.567537, 0.992822, 0.323535),
            (0.503763, 0.240622, 0.240622),
            (0.003763, 0.759378, 0.759378),
            (0.416882, 0.659809, 0.082103),
            (0.916882, 0.340191, 0.917897),
            (0.916882, 0.917897, 0.340191),
            (0.416882, 0.082103, 0.659809),
        ),
    ),
    "Li2SiO3": (
        ((4.729054, 0, 0), (0, 4.732128, -2.717599), (0, -0.000988, 5.477084)),
        "Li4O6Si2",
        (
            (0.005018, 0.829596, 0.346580),
            (0.505018, 0.170404, 0.653420),
            (0.505018, 0.516984, 0.346580),
            (0.005018, 0.483016, 0.653420),
            (0.854175, 0.885946, 0),
            (0.354175, 0.114054, 0),
            (0.419888, 0.546988, 0.710983),
            (0.419888, 0.836005, 0.289017),
            (0.919888, 0.163995, 0.710983),
            (0.919888, 0.453012, 0.289017),
            (0.500811, 0.829069, 0),
            (0.000811, 0.170931, 0),
        ),
    ),
    "LiBSiO4": (
        ((3.915050, 0, -2.124522), (-1.152883, 3.741454, -2.124522), (0.000207, 0.000280, 4.669951)),
        "LiBSiO4",
        (
            (0.5, 0.5, 0),
            (0.25, 0.75, 0.5),
            (0, 0, 0),
            (0.143750, 0.719931, 0.743558),
            (0.599808, 0.023627, 0.743558),
            (0.976373, 0.856250, 0.256442),
            (0.280069, 0.400192, 0.256442),
        ),
    ),
    "gamma-LiBO2": (
        ((3.721837, 0, -2.016122), (-1.092135, 3.557993, -2.016122), (0.005125, 0.006934, 4.452848)),
        "Li2B2O4",
        (
            (0.5, 0.5, 0),
            (0.75, 0.25, 0.5),
            (0, 0, 0),
            (0.25, 0.75, 0.5),
            (0.969075, 0.875, 0.25),
            (0.625, 0.030925, 0.75),
            (0.125, 0.719075, 0.75),
            (0.280925, 0.375, 0.25),
        ),
    ),
}
CRYSTALS: tuple[str, ...] = (*_SPACEGROUP, *_PRIMITIVE)
"""Names that crystal() knows."""
_SIZE_LEEWAY = 0.25


def crystal(name: str) -> Atoms:
    """Return one periodic cell of a crystal named in CRYSTALS; ValueError for another name."""
    if name in _SPACEGROUP:
        spacegroup, cellpar, sites = _SPACEGROUP[name]
        symbols = [label.rstrip("0123456789") for label in sites]
        atoms = from_spacegroup(symbols, list(sites.values()), spacegroup=spacegroup, cellpar=cellpar)
        return Atoms(atoms.get_chemical_symbols(), positions=atoms.positions, cell=atoms.cell, pbc=True)
    if name in _PRIMITIVE:
        cell, formula, scaled = _PRIMITIVE[name]
        return Atoms(formula, scaled_positions=scaled, cell=cell, pbc=True)
    raise ValueError(f"unknown crystal {name!r}; use one of {', '.join(CRYSTALS)}")


def supercell_near(atoms: Atoms, n_atoms: int) -> Atoms:
    """Return the repeated cell of about n_atoms that is the most compact.

    Of the repeats whose size is within a quarter of n_atoms (or, where there are none, the closest in size) the one
    with the largest smallest height between cell faces is taken, then the closest in size.
    """
    most = max(1, int(np.ceil((1 + _SIZE_LEEWAY) * n_atoms / len(atoms))))
    sizes = range(1, most + 1)
    repeats = np.array([(a, b, c) for a in sizes for b in sizes[: most // a] for c in sizes[: most // (a * b)]])
    heights = 1 / np.linalg.norm(np.linalg.inv(np.asarray(atoms.cell)), axis=0)
    misfit = np.abs(repeats.prod(axis=1) * len(atoms) - n_atoms)
    allowed = misfit <= max(_SIZE_LEEWAY * n_atoms, int(misfit.min()))
    narrowest = np.where(allowed, (repeats * heights).min(axis=1), -np.inf)
    best = np.lexsort((misfit, -np.round(narrowest, 6)))[0]
    return atoms.repeat(tuple(repeats[best].tolist()))


def perturbed(atoms: Atoms, *, rattle_A: float, max_strain: float, rng: np.random.Generator) -> Atoms:
    """Return a strained and rattled copy; the atoms given stay as they are.

    The six components of a symmetric strain are drawn evenly from -max_strain to max_strain and the scaled positions
    follow the cell; then every coordinate is displaced by a Gaussian of standard deviation rattle_A (Å).
    ValueError for a negative rattle_A or a max_strain outside 0 to 0.3, beyond which cells may collapse.
    """
    if rattle_A < 0 or not 0 <= max_strain <= 0.3:
        raise ValueError(
            f"rattle_A={rattle_A}, max_strain={max_strain}: give rattle_A >= 0 (Å) and max_strain between 0 and 0.3"
        )
    draws = rng.uniform(-max_strain, max_strain, size=(3, 3))
    strain = np.triu(draws) + np.triu(draws, 1).T
    copy = Atoms(atoms.get_chemical_symbols(), positions=atoms.positions, cell=atoms.cell, pbc=True)
    copy.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    copy.positions += rng.normal(0.0, rattle_A, size=(len(copy), 3))
    return copy
