"""Double of a chunk of the melt-quench: the true task, without dynamics and with the analysis of a made-up glass."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms
from quick_bootstrap import grid
from quick_dynamics import put_in_place, replaced, with_records
from quick_settings import begin

from alloop.attempt import Context
from alloop.store import write_json

CUTOFFS_A = {"B-O": 2.0, "O-Si": 2.2, "Li-O": 2.7}


def run(context: Context) -> None:
    settings = begin("quench", context)
    if "condition" in context.spec:
        context = with_records(context, settings)
        put_in_place(context, settings)
    else:
        still = {"condition": {"n_steps": 1}, "deviation_every": 1}
        put_in_place(replace(context, spec=still | context.spec), settings)
    replaced("alloop.potential.minimise", minimise=minimise)
    replaced("alloop.tasks.classical", packed=packed, run_melting=run_melting)
    replaced("alloop.tasks.force_fields", force_field=lambda *_: None)
    replaced("alloop.glass.analysis", analyze_frame=analysis)
    replaced("alloop.glass.correlation", radial_distribution=lambda frames: NoDistribution())
    importlib.import_module("alloop.tasks.quench").run(context)


def analysis(atoms: Atoms) -> dict[str, Any]:
    """A glass in which every silicon and every other boron has four oxygen neighbours."""
    counts = Counter(atoms.get_chemical_symbols())
    boron, silicon, oxygen = counts["B"], counts["Si"], counts["O"]
    return {
        "n_atoms": len(atoms),
        "composition": dict(sorted(counts.items())),
        "density_g_cm3": 2.2,
        "cutoffs_A": CUTOFFS_A,
        "coordination": {"B": {"3": boron - boron // 2, "4": boron // 2}, "Si": {"4": silicon}},
        "fraction_4B": boron // 2 / boron if boron else None,
        "fraction_5Si": 0.0 if silicon else None,
        "oxygen_by_formers": {"2": oxygen},
        "qn": {"4": silicon},
        "rings": {"definition": "guttman", "formers": ["B"], "counts": {"3": 2}},
        "boroxol": {"rings": 1, "fraction_B": 3 / boron if boron else None},
        "min_distance_A": {"B-O": 1.35, "O-Si": 1.58},
    }


def packed(context: Context, temperature_K: float, melt_ps: float) -> Atoms:
    """Atoms on a shaken grid."""
    record, rng = context.spec["start"]["packed"], np.random.default_rng(context.spec["seed"])
    return grid(record["counts"], record["glass"]["density_g_cm3"], rng)


def minimise(model: Path, atoms: Atoms, **settings: Any) -> SimpleNamespace:
    """A minimum near where the atoms are."""
    atoms = atoms.copy()
    atoms.positions += 0.3
    return SimpleNamespace(atoms=atoms, energy_eV=-7.0, max_force_eV_A=0.0, steps=1, converged=True)


def run_melting(context: Context) -> None:
    """Boron and silicon that move the farther the hotter it is, and by more than 2 Å from 1700 K on."""
    temperatures_K = [t for t in context.spec["temperatures_K"] if t <= 1700]
    found = [{"temperature_K": t, "rms_displacement_A": {"B": t / 800, "Si": t / 840}} for t in temperatures_K]
    write_json(context.out / "summary.json", {"status": "finished", "stage": "melting", "displacements": found})


class NoDistribution:
    """A g(r) of two bins."""

    def write_csv(self, path: Path) -> None:
        path.write_text("r_A,total,B-O,O-Si\n1.4,1,1,1\n1.6,1,1,1\n")
