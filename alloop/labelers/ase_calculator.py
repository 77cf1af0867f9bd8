"""Any ASE calculator as a labeler, named by its import path ``package.module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from alloop.structure import LabeledFrame


class AseLabeler:
    """Labels with one ASE calculator, made once and used for every structure."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        module, _, name = path.partition(":")
        self.calculator = getattr(importlib.import_module(module), name)(**options)

    def label(self, atoms: Atoms) -> LabeledFrame:
        """Return energy, forces and virial of periodic atoms; raises what the calculator raises."""
        atoms = atoms.copy()
        atoms.calc = self.calculator
        stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces(), dtype=float)
        atoms.calc = None
        return LabeledFrame(atoms, energy, forces, -stress * atoms.get_volume())


def check_import(labeler: str, path: str) -> str | None:
    """Return why the calculator cannot be imported, or None; only top-level packages are looked for."""
    module, separator, name = path.partition(":")
    if not separator or not name:
        return f"labeler {labeler!r} is neither built in nor an import path like package.module:Calculator"
    package = module.split(".")[0]
    if importlib.util.find_spec(package) is None:
        extra = " (pip install 'alloop[quickstart]')" if package == "sevenn" else f" (pip install {package})"
        return f"labeler {labeler!r} needs the package {package!r}, which is not installed{extra}"
    return None
