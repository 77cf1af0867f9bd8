"""How many neighbours of each type an atom can have: the descriptor's ``sel``.

DeePMD keeps at most ``sel[t]`` neighbours of type t, the nearest ones. Too few cuts environments off, too many
costs time in every training batch (the lists are padded to ``sel``), and a model can only be warm-started from
one of the same ``sel``. So it is best fixed once, from all structures a campaign starts with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from alloop.potential.dataset import type_indices

SAMPLED_FRAMES = 40


def neighbour_counts(atoms: Atoms, type_map: Sequence[str], cutoff_A: float) -> np.ndarray:
    """Return the largest number of neighbours of each type any atom has within the cutoff, (types,) int.

    All images of the fully periodic cell are counted, so cells smaller than the cutoff are right too.
    """
    of_type = np.eye(len(type_map), dtype=int)[type_indices(atoms, type_map)]
    cell = atoms.cell.array
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    images = [np.arange(-n, n + 1) for n in np.ceil(cutoff_A / heights).astype(int)]
    positions = atoms.get_positions(wrap=True, pbc=True)
    separations = positions[None] - positions[:, None]
    counts = -of_type  # an atom is not its own neighbour
    for shift in np.stack(np.meshgrid(*images), axis=-1).reshape(-1, 3) @ cell:
        near = np.square(separations + shift).sum(axis=-1) < cutoff_A**2
        counts = counts + near.astype(int) @ of_type
    return counts.max(axis=0)


def adequate_sel(
    structures: Iterable[Atoms],
    type_map: Sequence[str],
    cutoff_A: float,
    *,
    compression: float = 0.04,
    margin: float = 1.15,
) -> list[int]:
    """Return a ``sel`` that suffices for these structures, for denser ones and for thermal crowding.

    The largest counts over the structures within cutoff / (1 - compression), which is what a cell shrunk by that
    fraction along each axis has within the cutoff, times `margin`, rounded up to a multiple of four, at least four.
    A neighbour beyond `sel` is the farthest of its type, where the descriptor's weight is close to zero.
    ValueError for no structures.
    """
    counts = [neighbour_counts(atoms, type_map, cutoff_A / (1 - compression)) for atoms in structures]
    if not counts:
        raise ValueError("no structures to count neighbours in; give at least one")
    largest = np.max(counts, axis=0)
    return [max(4, 4 * int(np.ceil(count * margin / 4))) for count in largest]


def sampled_structures(systems: Sequence[Path]) -> list[Atoms]:
    """Return up to `SAMPLED_FRAMES` structures of each ``deepmd/npy`` system, evenly spread over its frames."""
    structures = []
    for system in systems:
        names = (system / "type_map.raw").read_text().split()
        symbols = [names[int(t)] for t in (system / "type.raw").read_text().split()]
        for folder in sorted(system.glob("set.*")):
            boxes, coords = np.load(folder / "box.npy"), np.load(folder / "coord.npy")
            chosen = np.unique(np.linspace(0, len(boxes) - 1, SAMPLED_FRAMES).astype(int))
            structures += [
                Atoms(symbols, cell=boxes[k].reshape(3, 3), positions=coords[k].reshape(-1, 3), pbc=True)
                for k in chosen
            ]
    return structures
