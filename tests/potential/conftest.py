"""A small real ensemble shared by the session: random LBS frames labelled by an analytic pair potential."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from alloop.structure import LabeledFrame

TYPE_MAP = ("Li", "B", "O", "Si")
CHARGE_e = {"Li": 0.6, "B": 1.8, "O": -1.2, "Si": 2.4}
RADIUS_A = {"Li": 0.85, "B": 0.45, "O": 1.1, "Si": 0.65}
COULOMB_eV_A = 14.399645
CUTOFF_A = 5.0


def pair_label(atoms: Atoms) -> LabeledFrame:
    """Born-Mayer repulsion and screened charges, cut smoothly at 5 Å (both energy and force vanish there)."""
    i, j, d, D = neighbor_list("ijdD", atoms, CUTOFF_A)
    charge = np.array([CHARGE_e[s] for s in atoms.get_chemical_symbols()])
    radius = np.array([RADIUS_A[s] for s in atoms.get_chemical_symbols()])
    repulsion = 8.0 * np.exp((radius[i] + radius[j] - d) / 0.25)
    coulomb = COULOMB_eV_A * charge[i] * charge[j] * np.exp(-d / 2.0) / d
    smooth = (1 - (d / CUTOFF_A) ** 2) ** 2
    smooth_slope = -4 * d / CUTOFF_A**2 * (1 - (d / CUTOFF_A) ** 2)
    energy = (repulsion + coulomb) * smooth
    slope = (-repulsion / 0.25 - coulomb * (0.5 + 1 / d)) * smooth + (repulsion + coulomb) * smooth_slope
    force_ij = (slope / d)[:, None] * D
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, force_ij)
    return LabeledFrame(atoms, 0.5 * float(energy.sum()), forces, -0.5 * np.einsum("ia,ib->ab", D, force_ij))


def random_glass(counts: dict[str, int], seed: int, volume_per_atom_A3: float = 10.5, steps: int = 150) -> Atoms:
    """Random atoms in a slightly sheared cell, pushed apart downhill on the pair potential."""
    rng = np.random.default_rng(seed)
    symbols = [symbol for symbol, count in counts.items() for _ in range(count)]
    side = (len(symbols) * volume_per_atom_A3) ** (1 / 3)
    cell = side * (np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3))))
    atoms = Atoms(symbols, cell=cell, pbc=True, scaled_positions=rng.random((len(symbols), 3)))
    for _ in range(steps):
        forces = pair_label(atoms).forces_eV_A
        length = np.linalg.norm(forces, axis=1, keepdims=True)
        atoms.positions += forces / np.maximum(length, 1e-9) * np.minimum(0.02 * length, 0.1)
    atoms.wrap()
    return atoms


def labelled_frames(counts: dict[str, int], n_frames: int, seed: int) -> list[LabeledFrame]:
    """Rattled copies of a few random glasses."""
    rng = np.random.default_rng(seed)
    bases = [random_glass(counts, seed + 1000 * k) for k in range(3)]
    frames = []
    for number in range(n_frames):
        atoms = bases[number % 3].copy()
        strain = np.eye(3) * (1 + rng.uniform(-0.02, 0.02))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames.append(pair_label(atoms))
    return frames


LBS_36 = {"Li": 4, "B": 8, "O": 20, "Si": 4}
LBS_48 = {"Li": 8, "B": 8, "O": 26, "Si": 6}
