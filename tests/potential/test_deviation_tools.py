"""Deviations equal those of LAMMPS (``model_devi.out``) and ``dp model-devi`` on the same frames, to 1e-5 relative."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from alloop.selection.deviation import ModelDeviation, model_deviation

from .conftest import random_glass

pytestmark = pytest.mark.slow

LEVELS = {"force_level_eV_A": 0.7, "virial_level_eV": 0.4}

# Frames come from the engine at full precision; `dp model-devi` reads them from double-precision arrays.
RUNS = """
from deepmd.main import main
from alloop.potential.quiet import output_to
start = ase.io.read(folder / "sheared.extxyz")
class Relative(LammpsEngine):
    def _command(self, line):
        super()._command(line + (" relative 0.7 relative_v 0.4" if line.startswith("pair_style") else ""))
def record(engine, name):
    condition = MdCondition("nvt", 900, 900, 60, thermostat_fs=50)
    md = engine(models(), start, condition, seed=4, directory=folder / name, deviation_every=10)
    frames = [md.state().atoms]
    for _ in range(3):
        md.advance(10)
        frames.append(md.state().atoms)
    md.close()
    return frames, np.loadtxt(folder / name / "model_devi.out")
frames, absolute = record(LammpsEngine, "absolute")
again, relative = record(Relative, "relative")
assert all((one.positions == two.positions).all() for one, two in zip(frames, again, strict=True))
system = folder / "system"
(system / "set.000").mkdir(parents=True)
(system / "type_map.raw").write_text("\\n".join(TYPE_MAP))
(system / "type.raw").write_text("\\n".join(str(TYPE_MAP.index(symbol)) for symbol in start.symbols))
np.save(system / "set.000" / "coord.npy", [atoms.positions.ravel() for atoms in frames])
np.save(system / "set.000" / "box.npy", [atoms.cell.array.ravel() for atoms in frames])
tables = {"lammps": absolute.tolist(), "lammps relative": relative.tolist()}
for name, options in (("dp", []), ("dp relative", ["--relative", "0.7"])):
    out = folder / f"{name}.out"
    with output_to(folder / "dp.log"):
        main(["model-devi", "-m", *map(str, models()), "-s", str(system), "-o", str(out), "--atomic", *options])
    tables[name] = np.loadtxt(out).tolist()
streamed = [e for _, e in Ensemble(models()).evaluate_stream(iter(frames), max_atoms=80)]
tables["forces"] = np.stack([e.forces_eV_A for e in streamed], axis=1).tolist()
tables["virials"] = np.stack([e.virials_eV for e in streamed], axis=1).tolist()
print(json.dumps(tables))
"""


@pytest.fixture(scope="module")
def tables(trained: tuple[Path, Any], start_script: Callable[[Path, str], Any]) -> dict[str, np.ndarray]:
    """Columns of both tools on four frames of a run, and the two models' forces and virials on them."""
    folder, _ = trained
    ase.io.write(folder / "sheared.extxyz", random_glass({"Li": 4, "B": 8, "O": 20, "Si": 4}, seed=7))
    told = start_script(folder, RUNS).result()
    return {name: np.array(values) for name, values in told.items()}


@pytest.fixture(scope="module")
def ours(tables: dict[str, np.ndarray]) -> ModelDeviation:
    return model_deviation(tables["forces"], tables["virials"], **LEVELS)


def columns(summary: Any) -> np.ndarray:
    return np.stack([summary.maximum, summary.minimum, summary.mean], axis=-1)


@pytest.mark.parametrize("tool", ["lammps", "dp"])
def test_absolute_deviations(tables: dict[str, np.ndarray], ours: ModelDeviation, tool: str) -> None:
    table = tables[tool]
    assert table.shape[0] == 4 and ours.force_eV_A.maximum.min() > 0.01
    np.testing.assert_allclose(columns(ours.virial_eV), table[:, 1:4], rtol=1e-5)
    np.testing.assert_allclose(columns(ours.force_eV_A), table[:, 4:7], rtol=1e-5)
    np.testing.assert_allclose(ours.atoms_eV_A, table[:, -36:], rtol=1e-5)


@pytest.mark.parametrize("tool", ["lammps relative", "dp relative"])
def test_relative_forces(tables: dict[str, np.ndarray], ours: ModelDeviation, tool: str) -> None:
    assert ours.relative_force is not None
    np.testing.assert_allclose(columns(ours.relative_force), tables[tool][:, 4:7], rtol=1e-5)


def test_relative_virial_of_lammps(tables: dict[str, np.ndarray], ours: ModelDeviation) -> None:
    assert ours.relative_virial is not None
    np.testing.assert_allclose(columns(ours.relative_virial), tables["lammps relative"][:, 1:4], rtol=1e-5)
    assert (np.abs(columns(ours.relative_virial) / columns(ours.virial_eV) - 1) > 0.01).all()
