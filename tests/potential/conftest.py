"""Random LBS frames labelled by an analytic potential, and one small real ensemble shared by the session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop.potential.environment import md_environment
from alloop.structure import LabeledFrame

TYPE_MAP = ("Li", "B", "O", "Si")
CHARGE_e = {"Li": 0.6, "B": 1.8, "O": -1.2, "Si": 2.4}
RADIUS_A = {"Li": 0.85, "B": 0.45, "O": 1.1, "Si": 0.65}
COULOMB_eV_A = 14.399645
CUTOFF_A = 5.0
IMAGES = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)


def pair_label(atoms: Atoms) -> LabeledFrame:
    """Born-Mayer repulsion and screened charges, cut smoothly at 5 Å (both energy and force vanish there)."""
    symbols, cell = atoms.get_chemical_symbols(), atoms.cell.array
    positions = atoms.get_positions(wrap=True, pbc=True)
    vectors = positions[None, :, None] + (IMAGES @ cell)[None, None] - positions[:, None, None]
    distances = np.linalg.norm(vectors, axis=-1)
    i, j, image = np.nonzero((distances < CUTOFF_A) & (distances > 0))
    d, D = distances[i, j, image], vectors[i, j, image]
    charge = np.array([CHARGE_e[s] for s in symbols])
    radius = np.array([RADIUS_A[s] for s in symbols])
    repulsion = 8.0 * np.exp((radius[i] + radius[j] - d) / 0.25)
    coulomb = COULOMB_eV_A * charge[i] * charge[j] * np.exp(-d / 2.0) / d
    smooth = (1 - (d / CUTOFF_A) ** 2) ** 2
    smooth_slope = -4 * d / CUTOFF_A**2 * (1 - (d / CUTOFF_A) ** 2)
    slope = (-repulsion / 0.25 - coulomb * (0.5 + 1 / d)) * smooth + (repulsion + coulomb) * smooth_slope
    pulls = (slope / d)[:, None] * D
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pulls)
    energy = 0.5 * float(((repulsion + coulomb) * smooth).sum())
    return LabeledFrame(atoms, energy, forces, -0.5 * np.einsum("ia,ib->ab", D, pulls))


def random_glass(counts: dict[str, int], seed: int) -> Atoms:
    """Random atoms in a slightly sheared cell, pushed apart downhill on the pair potential."""
    rng = np.random.default_rng(seed)
    symbols = [symbol for symbol, count in counts.items() for _ in range(count)]
    rng.shuffle(symbols)
    cell = (len(symbols) * 10.5) ** (1 / 3) * (np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3))))
    atoms = Atoms(symbols, cell=cell, pbc=True, scaled_positions=rng.random((len(symbols), 3)))
    for _ in range(120):
        forces = pair_label(atoms).forces_eV_A
        length = np.linalg.norm(forces, axis=1, keepdims=True)
        atoms.positions += forces / np.maximum(length, 1e-9) * np.minimum(0.02 * length, 0.1)
    return atoms


def labelled_frames(counts: dict[str, int], n_frames: int, seed: int) -> list[LabeledFrame]:
    """Rattled and strained copies of a random glass."""
    rng = np.random.default_rng(seed)
    base = random_glass(counts, seed)
    frames = []
    for _ in range(n_frames):
        atoms = base.copy()
        atoms.set_cell(atoms.cell.array * (1 + rng.uniform(-0.02, 0.02)), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames.append(pair_label(atoms))
    return frames


SCRIPT_HEAD = """
import json, sys
from pathlib import Path
import numpy as np
import ase.io
from alloop.potential.dataset import write_systems
from alloop.potential.engines import AseEngine, LammpsEngine, MdCondition, TrajectoryLost
from alloop.potential.ensemble import Ensemble
from alloop.potential.training import TrainRequest, train, usable_init_checkpoint
folder = Path(sys.argv[1])
TYPE_MAP = ["Li", "B", "O", "Si"]
TEMPLATE = {
    "model": {
        "descriptor": {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 0.5, "sel": "auto", "neuron": [4, 8],
                       "axis_neuron": 2, "type_one_side": True},
        "fitting_net": {"neuron": [16], "resnet_dt": True}},
    "learning_rate": {"type": "exp", "decay_steps": 20},
    "loss": {"type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1,
             "start_pref_v": 0.02, "limit_pref_v": 1},
    "training": {"disp_freq": 25},
}
def request(**changes):
    plain = dict(template=TEMPLATE, type_map=TYPE_MAP, training_systems=sorted((folder / "data").iterdir()),
                 n_steps=100, save_freq=50, seed=1, start_lr=5e-3, stop_lr=1e-5)
    return TrainRequest(**{**plain, **changes})
def models():
    return [folder / name / "model-compressed.pb" for name in ("first", "second")]
"""


class Script:
    """A Python script running in a process of its own, as DeePMD and LAMMPS need it."""

    def __init__(self, folder: Path, code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT_HEAD + textwrap.dedent(code), str(folder)],
            env={**os.environ, **md_environment(1)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Any:
        """Wait and return the JSON the script printed, alone, on stdout."""
        try:
            out, err = self._process.communicate(timeout=900)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, err
        return json.loads(out)


@pytest.fixture(scope="session")
def start_script() -> Callable[[Path, str], Script]:
    return Script


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two models trained in one process, the first once more in another, and what the trainings reported."""
    from alloop.potential.dataset import write_systems

    folder = tmp_path_factory.mktemp("ensemble")
    frames = labelled_frames({"Li": 4, "B": 8, "O": 20, "Si": 4}, 8, seed=7)
    frames += labelled_frames({"Li": 8, "B": 8, "O": 26, "Si": 6}, 8, seed=8)
    write_systems(frames, folder / "data", TYPE_MAP)
    tell = "print(json.dumps({k: str(v) for k, v in vars(result).items()}))"
    first = Script(folder, f"result = train(request(), folder / 'first')\n{tell}")
    pair = Script(
        folder,
        f"""
        again = train(request(), folder / "again")
        result = train(request(seed=2, validation_systems=request().training_systems), folder / "second")
        {tell}
        """,
    )
    return folder, {"first": first.result(), "second": pair.result()}
