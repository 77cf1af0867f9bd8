"""The classical force fields that starting structures are made with, by name or as a person's own pair tables."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from alloop.glass.bmp import BmpPotential, d_bo
from alloop.glass.force_field import TeterParameters, a_bo
from alloop.glass.pair_potential import PairPotential
from alloop.glass.shik import shik_potential
from alloop.glass.user_table import read_user_table

SEED_FORCE_FIELDS = ("teter", "bmp-shrm", "shik")
"""Names of those that are built in; another text is the file of a `alloop.glass.user_table`."""


def seed_potential(name: str, counts: Mapping[str, int], table: Path | None = None) -> PairPotential:
    """Return the potential of a name, or of the settings of tables, for cells of a composition.

    counts: element -> number of atoms, or any multiple. ValueError for elements or a composition without parameters,
    tables that `read_user_table` refuses, or a name that is none; OSError for files that cannot be read.
    """
    if table is not None:
        return read_user_table(table, counts)
    potential = _built_in(name, counts)
    potential.check_elements(counts)
    return potential


def _built_in(name: str, counts: Mapping[str, int]) -> PairPotential:
    if name == "shik":
        return shik_potential(counts)
    boron = counts.get("B", 0)
    # R = [Li2O]/[B2O3] and K = [SiO2]/[B2O3]
    ratios = (counts.get("Li", 0) / boron, 2 * counts.get("Si", 0) / boron) if boron else None
    if name == "teter":
        return TeterParameters(None if ratios is None else a_bo(*ratios))
    if name == "bmp-shrm":
        return BmpPotential(None if ratios is None else d_bo(*ratios))
    raise ValueError(unknown_force_field(name))


def unknown_force_field(name: str) -> str:
    """Say that a text names neither a built-in force field nor a file, with the nearest name."""
    near = difflib.get_close_matches(name, SEED_FORCE_FIELDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name!r} is neither one of {', '.join(SEED_FORCE_FIELDS)} nor a file of pair tables{hint}"
