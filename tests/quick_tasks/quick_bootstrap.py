"""Double of a bootstrap: atoms on a shaken grid, of the right composition and density. Other sources are true."""

from __future__ import annotations

import importlib

import numpy as np
from ase import Atoms
from quick_settings import begin

from alloop.attempt import Context
from alloop.frames import write_frames
from alloop.glass.composition import cell_length_A
from alloop.store import write_json


def run(context: Context) -> None:
    begin("bootstrap", context)
    spec = context.spec
    if spec["source"] != "melt-quench":
        importlib.import_module("alloop.tasks.bootstrap").run(context)
        return
    schedule, rng = spec["schedule"], np.random.default_rng(spec["seed"])
    snapshots, strained = schedule["n_snapshots"], spec["strained_copies"]
    temperatures = np.linspace(schedule["melt_temperature_K"], schedule["final_temperature_K"], snapshots)
    temperatures = np.concatenate([temperatures, rng.choice(temperatures, strained)])
    frames = [grid(spec["counts"], spec["glass"]["density_g_cm3"], rng) for _ in temperatures]
    columns = {"temperature_K": temperatures, "strained": np.arange(len(frames)) >= snapshots}
    write_frames(context.out / "frames.npz", frames, **columns)
    write_json(context.out / "summary.json", {"source": spec["source"], "frames": len(frames), "labelled": False})


def grid(counts: dict[str, int], density_g_cm3: float, rng: np.random.Generator) -> Atoms:
    """Atoms in random order on a shaken cubic grid; counts: atoms of each element."""
    symbols = [symbol for symbol, count in counts.items() for _ in range(count)]
    edge_A, points = cell_length_A(counts, density_g_cm3), int(np.ceil(len(symbols) ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(points)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = rng.permutation(len(sites))[: len(symbols)]
    positions = (sites[chosen] + rng.uniform(-0.1, 0.1, (len(symbols), 3)) + 0.5) * edge_A / points
    return Atoms(symbols, positions=positions, cell=[edge_A] * 3, pbc=True)
