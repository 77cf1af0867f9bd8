"""A person's own structures and labelled data: reading, checking, hashing by content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from alloop.structure import LabeledFrame


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names; no path enters it."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_structures_file(path: Path) -> list[Atoms]:
    """Return all frames of a file ASE can read, made periodic; ValueError says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected a structure file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; expected a structure in any format ASE reads")
    try:
        frames = read(path, index=":")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a structure: {type(error).__name__}: {error}") from None
    if not frames:
        raise ValueError(f"{path} holds no structure")
    for number, atoms in enumerate(frames):
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        if bad.size:
            raise ValueError(f"{path}, frame {number}: position of atom {bad[0]} is not finite; mend or remove it")
        if not np.isfinite(np.asarray(atoms.cell)).all() or abs(atoms.cell.volume) < 1e-6:
            raise ValueError(f"{path}, frame {number}: no cell; the models are trained on periodic structures")
        atoms.pbc = True
        atoms.calc = None
    return list(frames)


def read_labelled(path: Path, data_format: str) -> list[LabeledFrame]:
    """Return all frames of labelled data in a dpdata format; ValueError says what is wrong with it."""
    import dpdata  # a second of imports that only campaigns with data of their own need

    if not path.exists():
        raise ValueError(f"{path} does not exist; expected labelled data in format {data_format}")
    try:
        system = dpdata.LabeledSystem(str(path), fmt=data_format)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as {data_format}: {type(error).__name__}: {error}") from None
    data = system.data
    if "virials" not in data:
        raise ValueError(
            f"{path} has no virials; alloop trains on energy, forces and virial (write stress in your runs)"
        )
    symbols = [data["atom_names"][kind] for kind in data["atom_types"]]
    frames = []
    for index in range(len(data["energies"])):
        arrays = (data["coords"][index], data["cells"][index], data["forces"][index], data["virials"][index])
        if not all(np.isfinite(array).all() for array in arrays) or not np.isfinite(data["energies"][index]):
            raise ValueError(f"{path}, frame {index}: a number is not finite; remove the frame")
        atoms = Atoms(symbols, positions=arrays[0], cell=arrays[1], pbc=True)
        frames.append(LabeledFrame(atoms, float(data["energies"][index]), arrays[2], arrays[3]))
    if not frames:
        raise ValueError(f"{path} holds no frame")
    return frames
