"""Structures and labelled structures as plain records: what enters keys, task files and data sets.

A structure record is JSON: ``{"symbols": [...], "cell_A": 3x3, "positions_A": Nx3}``, always fully periodic.
Floats are written with Python's shortest exact repr, so a record read back is bit for bit the one written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # keys need neither
    import numpy as np
    from ase import Atoms

Record = dict[str, Any]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, NaN refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def to_record(atoms: Atoms) -> Record:
    """Return the structure record of periodic atoms, positions wrapped into the cell."""
    return {
        "symbols": atoms.get_chemical_symbols(),
        "cell_A": atoms.cell.array.tolist(),
        "positions_A": atoms.get_positions(wrap=True, pbc=True).tolist(),
    }


def from_record(record: Record) -> Atoms:
    """Return the periodic atoms of a structure record."""
    from ase import Atoms

    return Atoms(record["symbols"], positions=record["positions_A"], cell=record["cell_A"], pbc=True)


@dataclass(frozen=True)
class LabeledFrame:
    """One labelled structure.

    energy_eV: total energy; forces_eV_A: (N, 3); virial_eV: (3, 3), minus stress times volume, DeePMD's sign.
    """

    atoms: Atoms
    energy_eV: float
    forces_eV_A: np.ndarray
    virial_eV: np.ndarray
