"""Any ASE calculator as a labeler, named by its import path ``package.module:Class``."""

from __future__ import annotations

import ast
import importlib
import re
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from alloop.structure import LabeledFrame

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class AseLabeler:
    """Labels with one ASE calculator, made once and used for every structure."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        module, _, name = path.partition(":")
        try:
            self.calculator = getattr(importlib.import_module(module), name)(**options)
        except (ImportError, AttributeError, TypeError) as error:
            raise ValueError(
                f"labeler {path} cannot be made with options {options}: {type(error).__name__}: {error}; "
                "correct label.labeler or label.options in param.json"
            ) from error

    def label(self, atoms: Atoms) -> LabeledFrame:
        """Return energy, forces and virial (-stress times volume) of periodic atoms.

        Raises ValueError for a calculator without stress, and whatever else the calculator raises.
        """
        atoms = atoms.copy()
        atoms.calc = self.calculator
        try:
            stress_eV_A3 = voigt_6_to_full_3x3_stress(atoms.get_stress())
        except PropertyNotImplementedError as error:
            raise ValueError(
                f"{type(self.calculator).__name__} gives no stress, and models are trained on virials too; "
                "choose another labeler, or options with which it gives stress"
            ) from error
        energy_eV = float(atoms.get_potential_energy())
        forces_eV_A = np.array(atoms.get_forces(), dtype=float)
        atoms.calc = None
        return LabeledFrame(atoms, energy_eV, forces_eV_A, -stress_eV_A3 * atoms.get_volume())


def check_import(labeler: str, path: str) -> str | None:
    """Return why the calculator cannot be imported, or None. Nothing is imported: the files are looked for."""
    if not _IMPORT_PATH.fullmatch(path):
        return f"labeler {labeler!r} is neither built in nor an import path like package.module:Calculator"
    module, _, name = path.partition(":")
    package = module.partition(".")[0]
    if find_spec(package) is None:
        extra = " (pip install 'alloop[quickstart]')" if package == "sevenn" else f" (pip install {package})"
        return f"labeler {labeler!r} needs the package {package!r}, which is not installed{extra}"
    spec = _find_without_import(module)
    if spec is None:
        return f"labeler {labeler!r}: the package {package!r} is installed, but has no module {module!r}"
    if not _may_define(spec, name):
        return f"labeler {labeler!r}: module {module!r} has no {name!r}"
    return None


def _find_without_import(module: str) -> ModuleSpec | None:
    """Return the spec of a module without importing its parents, which may be heavy."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{spec.name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _may_define(spec: ModuleSpec, name: str) -> bool:
    """Tell whether a module's source defines or imports a name; True where that cannot be told from the source."""
    if spec.origin is None or not spec.origin.endswith(".py"):
        return True
    source = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    if "sys.modules" in source:
        return True
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return bool(found & {name, "*", "__getattr__"})
