from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal


def _b2o3_ii() -> Atoms:
    boron = [(0.567537, 0.323535, 0.992822), (0.067537, 0.676465, 0.007178)]
    boron += [(0.067537, 0.007178, 0.676465), (0.567537, 0.992822, 0.323535)]
    oxygen = [(0.503763, 0.240622, 0.240622), (0.003763, 0.759378, 0.759378), (0.416882, 0.659809, 0.082103)]
    oxygen += [(0.916882, 0.340191, 0.917897), (0.916882, 0.917897, 0.340191), (0.416882, 0.082103, 0.659809)]
    cell = [[4.172137, 0, 0], [0, 4.016338, -2.202914], [0, 0.005920, 4.580804]]
    return Atoms("B4O6", scaled_positions=boron + oxygen, cell=cell, pbc=True)


def _crystals() -> dict[str, Atoms]:
    hexagonal = [90, 90, 120]
    return {
        "alpha_quartz": crystal(
            ["Si", "O"],
            [(0.4699, 0, 1 / 3), (0.413, 0.2668, 0.214)],
            spacegroup=152,
            cellpar=[4.914, 4.914, 5.406, *hexagonal],
        ),
        "alpha_cristobalite": crystal(
            ["Si", "O"],
            [(0.3047, 0.3047, 0), (0.2381, 0.1109, 0.1826)],
            spacegroup=92,
            cellpar=[4.957, 4.957, 6.8903, 90, 90, 90],
        ),
        "B2O3_I": crystal(  # Crystallography Open Database 1510796
            ["B", "O", "O"],
            [(0.3954, 0.2299, 0.2244), (0.6009, 0.1477, 0.1282), (0.1607, 0, 1 / 3)],
            spacegroup=152,
            cellpar=[4.3358, 4.3358, 8.3397, *hexagonal],
        ),
        "B2O3_II": _b2o3_ii(),
        "Li2O": crystal(
            ["Li", "O"],
            [(0.25, 0.25, 0.25), (0, 0, 0)],
            spacegroup=225,
            cellpar=[4.6515, 4.6515, 4.6515, 90, 90, 90],
        ),
    }


@pytest.fixture(scope="session")
def crystals() -> dict[str, Atoms]:
    return _crystals()


def ring_of_boron(n: int, *, pucker_A: float = 0.0) -> Atoms:
    """n boron in a circle bridged by n O, each boron with one O pointing out; 1.37 Å bonds in the hexagon of n = 3."""
    angle = np.pi * np.arange(2 * n) / n
    radius = 1.37 / (2 * np.sin(np.pi / (2 * n)))
    flat = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(2 * n)])
    ring = radius * flat
    ring[:, 2] = pucker_A * (-1.0) ** np.arange(2 * n)
    outer = ring[::2] + 1.37 * flat[::2]
    return Atoms(f"B{n}O{n}O{n}", positions=np.vstack([ring[::2], ring[1::2], outer]))


@pytest.fixture(scope="session")
def boron_ring():
    return ring_of_boron
