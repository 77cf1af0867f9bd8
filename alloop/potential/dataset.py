"""Labelled frames as DeePMD training systems (the ``deepmd/npy`` layout)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from alloop.structure import LabeledFrame


def composition(atoms: Atoms, type_map: Sequence[str]) -> str:
    """Return the formula in the order of the type map, such as ``Li8B24O48Si4``; elements not held are left out."""
    counts = Counter(atoms.get_chemical_symbols())
    return "".join(f"{symbol}{counts[symbol]}" for symbol in type_map if counts[symbol])


def type_indices(atoms: Atoms, type_map: Sequence[str]) -> np.ndarray:
    """Return each atom's index into the type map, (N,) int; ValueError names the elements it lacks."""
    index = {symbol: number for number, symbol in enumerate(type_map)}
    unknown = sorted(set(atoms.get_chemical_symbols()) - set(index))
    if unknown:
        raise ValueError(
            f"atoms of {', '.join(unknown)} are not in the type map {' '.join(type_map)}; "
            "add the elements to the type map or drop the frames"
        )
    return np.array([index[symbol] for symbol in atoms.get_chemical_symbols()], dtype=int)


def write_systems(frames: Sequence[LabeledFrame], directory: Path, type_map: Sequence[str]) -> list[Path]:
    """Write one system per stoichiometry below `directory` and return their folders, sorted by name.

    Within a system the atoms of every frame are put in one order, by type (stable), positions, forces alike;
    frames keep the order given. Arrays are float64: energy (F,), coord and force (F, 3N), box and
    virial (F, 9). `type_map.raw` holds the whole type map. Existing systems of the same name are overwritten.
    Raises ValueError for no frames, an element outside the type map, or a label that is not finite.
    """
    if not frames:
        raise ValueError("no labelled frames to write; a training set needs at least one")
    groups: dict[str, list[LabeledFrame]] = defaultdict(list)
    for frame in frames:
        type_indices(frame.atoms, type_map)
        groups[composition(frame.atoms, type_map)].append(frame)
    return [_write_system(groups[name], directory / name, type_map) for name in sorted(groups)]


def _write_system(frames: Sequence[LabeledFrame], folder: Path, type_map: Sequence[str]) -> Path:
    orders = [np.argsort(type_indices(frame.atoms, type_map), kind="stable") for frame in frames]
    arrays = {
        "box": np.array([frame.atoms.cell.array.ravel() for frame in frames]),
        "coord": np.array([f.atoms.get_positions()[order].ravel() for f, order in zip(frames, orders, strict=True)]),
        "energy": np.array([frame.energy_eV for frame in frames]),
        "force": np.array([f.forces_eV_A[order].ravel() for f, order in zip(frames, orders, strict=True)]),
        "virial": np.array([np.asarray(frame.virial_eV).ravel() for frame in frames]),
    }
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{folder.name}: {name} has values that are not finite; drop these frames first")
    set_folder = folder / "set.000"
    set_folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(set_folder / f"{name}.npy", values.astype(np.float64))
    types = type_indices(frames[0].atoms, type_map)[orders[0]]
    (folder / "type.raw").write_text("".join(f"{t}\n" for t in types))
    (folder / "type_map.raw").write_text("".join(f"{symbol}\n" for symbol in type_map))
    return folder
