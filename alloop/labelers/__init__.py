"""Labelers: who gives a structure its energy, forces and virial, behind one small interface."""

from __future__ import annotations

import difflib
import functools
import json
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from alloop.labelers.ase_calculator import AseLabeler, check_import
from alloop.structure import LabeledFrame

BUILT_IN: dict[str, tuple[str, dict[str, Any]]] = {
    "sevennet-0": ("sevenn.calculator:SevenNetCalculator", {"model": "7net-0", "device": "cpu"}),
    "chgnet": ("chgnet.model.dynamics:CHGNetCalculator", {"use_device": "cpu"}),
    "teter-rehearsal": ("alloop.glass.force_field:TeterCalculator", {}),
    "shik-rehearsal": ("alloop.glass.shik:ShikCalculator", {}),
    "bmp-rehearsal": ("alloop.glass.bmp:BmpCalculator", {}),
    "table-rehearsal": ("alloop.glass.user_table:UserTableCalculator", {}),
}
"""Names a person may write, the ASE calculator behind each, and its fixed options."""


class Labeler(Protocol):
    """Gives energy, forces and virial of one structure."""

    def label(self, atoms: Atoms) -> LabeledFrame:
        """Return the labelled structure; ValueError if the numbers cannot be trusted."""


def resolve(labeler: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return import path and keyword arguments of a labeler named in `param.json`."""
    path, fixed = BUILT_IN.get(labeler, (labeler, {}))
    return path, fixed | options


def problem(labeler: str) -> str | None:
    """Return why a labeler cannot be used here, with the remedy, or None; imports no heavy library."""
    path, _ = resolve(labeler, {})
    found = check_import(labeler, path)
    near = difflib.get_close_matches(labeler, BUILT_IN, n=1)
    return f"{found}; did you mean {near[0]!r}?" if found and near and labeler not in BUILT_IN else found


@functools.cache
def _load(path: str, options: str) -> Labeler:
    return AseLabeler(path, json.loads(options))


def load(labeler: str, options: dict[str, Any]) -> Labeler:
    """Return the labeler, loaded once per process."""
    path, keywords = resolve(labeler, options)
    return _load(path, json.dumps(keywords, sort_keys=True))


def judge(frame: LabeledFrame) -> str | None:
    """Return why a label cannot be trusted, or None: every number present, finite and of the right shape."""
    count = len(frame.atoms)
    if count == 0:
        return "no atoms"
    if frame.forces_eV_A.shape != (count, 3) or frame.virial_eV.shape != (3, 3):
        return f"forces {frame.forces_eV_A.shape} and virial {frame.virial_eV.shape} for {count} atoms"
    for name, values in (("energy", frame.energy_eV), ("forces", frame.forces_eV_A), ("virial", frame.virial_eV)):
        if not np.all(np.isfinite(values)):
            return f"{name} not finite"
    return None
