"""A person's own structures and labelled data: reading, checking, hashing by content."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from alloop.potential.checkpoints import backend_named
from alloop.structure import LabeledFrame

_LEAST_VOLUME_A3 = 1e-6  # a cell with less is none
_OCCUPANCY_ROUNDING = 1e-6


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names in it; no path enters it."""
    if path.is_file():
        return _sha256(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listing = "".join(f"{_sha256(file)} {name}\n" for name, file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def checkpoint_hash(prefix: Path, backend: str) -> str:
    """Return the SHA-256 of all files of a DeePMD checkpoint; ValueError names those that are missing."""
    files = backend_named(backend).files(prefix)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise ValueError(f"{prefix} is no checkpoint of backend {backend}: {', '.join(missing)} missing")
    listing = "".join(f"{file_hash(file)} {file.name.removeprefix(prefix.name)}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_structures_file(path: Path) -> list[Atoms]:
    """Return all frames of a file ASE can read, made periodic; ValueError says what is wrong with it."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {found}; expected a structure file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; expected a structure in any format ASE reads")
    try:
        frames = read(path, index=":", do_not_split_by_at_sign=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a structure: {type(error).__name__}: {error}") from None
    if not frames:
        raise ValueError(f"{path} holds no structure")
    for number, atoms in enumerate(frames):
        if len(atoms) == 0:
            raise ValueError(f"{path}, frame {number}: no atoms; remove the frame")
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        if bad.size:
            raise ValueError(f"{path}, frame {number}: position of atom {bad[0]} is not finite; mend or remove it")
        if not np.isfinite(np.asarray(atoms.cell)).all() or atoms.cell.volume < _LEAST_VOLUME_A3:
            raise ValueError(f"{path}, frame {number}: no cell; the models are trained on periodic structures")
        if shared := _shared_site(atoms):
            raise ValueError(
                f"{path}, frame {number}: {shared}; give an ordered structure, with every site taken by one element "
                "(in a supercell if need be), or leave the file out"
            )
        atoms.pbc = True
        atoms.calc = None
    return list(frames)


def _shared_site(atoms: Atoms) -> str | None:
    """Return which site of a structure from a CIF file is occupied in part, or by several elements; None if none is.

    ASE takes the element that is there most, everywhere, and keeps the occupancies apart.
    """
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    found = atoms.info.get("occupancy")
    for kind, shares in found.items() if isinstance(found, dict) else ():
        told = ", ".join(f"{element} {share}" for element, share in shares.items())
        if not any(isinstance(share, float | int) and share < 1 - _OCCUPANCY_ROUNDING for share in shares.values()):
            continue
        place = atoms.get_scaled_positions()[np.flatnonzero(kinds == int(kind))[:1]].ravel()
        return f"site {int(kind) + 1}, at {' '.join(f'{x:.4f}' for x in place)} of the cell, is occupied by {told}"
    return None


def read_labelled(path: Path, data_format: str) -> list[LabeledFrame]:
    """Return all frames of labelled data in a dpdata format; ValueError says what is wrong with it."""
    import dpdata  # a second of imports that only campaigns with data of their own need

    if not path.exists():
        raise ValueError(f"{path} does not exist; expected labelled data in format {data_format}")
    known = _formats()
    if data_format not in known:
        near = difflib.get_close_matches(data_format, known, n=3, cutoff=0.5) or ["vasp/outcar", "deepmd/npy"]
        raise ValueError(f"format {data_format!r} is none of dpdata's labelled ones; did you mean {' or '.join(near)}?")
    try:
        data = dpdata.LabeledSystem(str(path), fmt=data_format).data
    except Exception as error:  # every reader of dpdata has its own exceptions
        raise ValueError(f"{path} cannot be read as {data_format}: {type(error).__name__}: {error}") from None
    if len(data.get("energies", ())) == 0:
        raise ValueError(f"{path} holds no labelled frame in format {data_format}")
    if "virials" not in data:
        raise ValueError(
            f"{path} has no virials; alloop trains on energy, forces and virial (write stress in your runs)"
        )
    symbols = [data["atom_names"][kind] for kind in data["atom_types"]]
    frames = []
    for index, energy_eV in enumerate(data["energies"]):
        arrays = (data["coords"][index], data["cells"][index], data["forces"][index], data["virials"][index])
        if not all(np.isfinite(array).all() for array in (*arrays, energy_eV)):
            raise ValueError(f"{path}, frame {index}: a number is not finite; remove the frame")
        atoms = Atoms(symbols, positions=arrays[0], cell=arrays[1], pbc=True)
        if data.get("nopbc", False) or atoms.cell.volume < _LEAST_VOLUME_A3:
            raise ValueError(f"{path}, frame {index}: no cell; the models are trained on periodic structures")
        frames.append(LabeledFrame(atoms, float(energy_eV), arrays[2], arrays[3]))
    return frames


def _formats() -> list[str]:
    """Return the formats from which dpdata can read energies and forces."""
    from dpdata.format import Format

    cannot = Format.from_labeled_system
    return sorted(name for name, kind in Format.get_formats().items() if kind.from_labeled_system is not cannot)
