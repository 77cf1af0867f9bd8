from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units

from alloop.potential.conditions import (
    MdCondition,
    check_advance,
    kinetic_temperature_K,
    lower_triangular,
    with_velocities,
)
from alloop.potential.environment import md_environment
from alloop.selection.deviation import force_deviation, virial_deviation

SETTINGS = """
start = ase.io.read(folder / "start.extxyz")
def condition(ensemble="nve", t0=600, t1=600, n=200, **more):
    return MdCondition(ensemble, t0, t1, n, **more)
def run(engine, cond, name, atoms=start, chunks=(50,), use=None, every=10):
    md = engine(use or models(), atoms, cond, seed=4, directory=folder / name, deviation_every=every)
    for n in chunks:
        md.advance(n)
    state = md.state()
    md.close()
    return state
def told(state):
    return {"step": state.step, "x": state.atoms.positions.tolist(), "cell": state.atoms.cell.array.tolist(),
            "v": state.atoms.get_velocities().tolist(), "symbols": state.atoms.get_chemical_symbols(),
            "E": state.potential_energy_eV, "T": state.temperature_K, "P": state.pressure_bar,
            "f": state.force_deviation_eV_A.tolist(), "w": state.virial_deviation_eV}
"""

RUNS = """
end = run(LammpsEngine, condition(), "nve")
all_told = {
    "nve": told(end),
    "chunked": told(run(LammpsEngine, condition(), "chunked", chunks=(10, 20, 20))),
    "zero": told(run(LammpsEngine, condition(), "zero", chunks=())),
    "ramp": told(run(LammpsEngine, condition("nvt", 900, 300, 200, thermostat_fs=20), "ramp", chunks=[20] * 10)),
    "ramp_whole": told(run(LammpsEngine, condition("nvt", 900, 300, 200, thermostat_fs=20), "ramp1", chunks=[200])),
    "hold": told(run(LammpsEngine, condition("nvt", 900, 900, 200, thermostat_fs=20), "hold", chunks=[200])),
    "npt": told(run(LammpsEngine, condition("npt", barostat_fs=100, pressure_bar=1e6), "npt", chunks=[100])),
    "single": told(run(LammpsEngine, condition(), "single", use=models()[:1])),
    "onward": told(run(LammpsEngine, condition(), "onward", atoms=run(LammpsEngine, condition(), "half",
                                                                        chunks=(30,)).atoms, chunks=(20,))),
}
"""

COMPARED = (
    RUNS
    + """
mad = start.copy()
mad.set_momenta(np.full((len(mad), 3), np.nan))
for engine in (LammpsEngine, AseEngine):
    try:
        run(engine, condition(), "lost", atoms=mad)
    except TrajectoryLost as lost:
        all_told[engine.__name__ + " lost"] = str(lost)
md = LammpsEngine(models(), start, condition(), seed=1, directory=folder / "mistake", deviation_every=10)
try:
    md._command("run until the end")
except TrajectoryLost as lost:
    all_told["mistake"] = str(lost)
md.close()
all_told["ase"] = told(run(AseEngine, condition(), "ase"))
all_told["ase_zero"] = told(run(AseEngine, condition(), "ase0", chunks=()))
all_told["ase_ramp"] = told(run(AseEngine, condition("nvt", 900, 300, 200, thermostat_fs=20), "ase2", chunks=[200]))
all_told["ase_npt"] = told(run(AseEngine, condition("npt", barostat_fs=100, pressure_bar=1e6), "ase3", chunks=[100]))
try:
    run(AseEngine, condition("npt", 900, 300), "ase4")
except ValueError as error:
    all_told["ase npt ramp"] = str(error)
turned = start[::-1]
frames = [end.atoms, Atoms("LiO", positions=[[0, 0, 0], [0, 0, 1.9]], cell=[5, 5, 5], pbc=True), end.atoms[::-1]]
ensemble = Ensemble(models())
many = ensemble.evaluate_many(frames)
all_told["ensemble"] = [{"e": e.energies_eV.tolist(), "f": e.forces_eV_A.tolist(), "v": e.virials_eV.tolist()}
                        for e in [*many, ensemble.evaluate(frames[1])]]
plain = Ensemble([folder / "first" / "model.pb"]).evaluate(end.atoms)
all_told["uncompressed"] = {"e": plain.energies_eV.tolist(), "f": plain.forces_eV_A.tolist()}
try:
    ensemble.evaluate(Atoms("Na", cell=[5, 5, 5], pbc=True))
except ValueError as error:
    all_told["unknown"] = str(error)
print(json.dumps(all_told))
"""
).replace("\nmad", "\nfrom ase import Atoms\nmad", 1)


@pytest.fixture(scope="module")
def told(trained: tuple[Path, Any], start_script: Callable[[Path, str], Any]) -> dict[str, Any]:
    """Both engines' states of many short runs in one process; the LAMMPS runs once more in a second process."""
    folder, _ = trained
    from .conftest import random_glass

    glass = random_glass({"Li": 4, "B": 8, "O": 20, "Si": 4}, seed=7)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    glass.set_cell(glass.cell.array @ rotation, scale_atoms=True)
    ase.io.write(folder / "start.extxyz", glass)
    first = start_script(folder, SETTINGS + COMPARED)
    values = first.result()
    again = start_script(folder, SETTINGS + RUNS + "print(json.dumps(all_told))")
    values["again"] = again.result()
    values["start"] = glass
    return values


def apart_A(one: dict[str, Any], two: dict[str, Any]) -> float:
    cell = np.array(one["cell"])
    moved = (np.array(one["x"]) - np.array(two["x"])) @ np.linalg.inv(cell)
    return float(np.abs((moved - np.round(moved)) @ cell).max())


@pytest.mark.slow
def test_lammps_starts_from_the_input_in_its_own_frame_and_order(told: dict[str, Any]) -> None:
    zero, start = told["zero"], told["start"]
    assert zero["step"] == 0 and zero["symbols"] == start.get_chemical_symbols()
    np.testing.assert_allclose(zero["cell"], start.cell.array, atol=1e-12)
    wrapped = {"x": start.get_positions(wrap=True), "cell": start.cell.array}
    assert apart_A(wrapped, zero) < 1e-7  # the structure passed through a file of eight digits
    assert zero["T"] == pytest.approx(600, rel=1e-5)
    assert np.linalg.det(start.cell.array) != pytest.approx(np.prod(start.cell.lengths()), rel=1e-3)


def test_both_engines_agree_at_the_start(told: dict[str, Any]) -> None:
    lammps, other = told["zero"], told["ase_zero"]
    assert apart_A(lammps, other) < 1e-10
    np.testing.assert_allclose(lammps["v"], other["v"], atol=1e-12)
    np.testing.assert_allclose(lammps["f"], other["f"], rtol=1e-5)
    for key, tolerance in (("E", 1e-10), ("T", 1e-5), ("P", 1e-5), ("w", 1e-5)):
        assert lammps[key] == pytest.approx(other[key], rel=tolerance), key


def test_nve_paths_of_both_engines_stay_together(told: dict[str, Any]) -> None:
    assert told["nve"]["step"] == told["ase"]["step"] == 50
    assert apart_A(told["nve"], told["zero"]) > 0.05
    assert apart_A(told["nve"], told["ase"]) < 1e-4
    np.testing.assert_allclose(told["nve"]["v"], told["ase"]["v"], atol=1e-4)
    assert told["nve"]["P"] == pytest.approx(told["ase"]["P"], rel=1e-3)


def test_recorded_deviation_is_that_of_the_models_forces(told: dict[str, Any]) -> None:
    on_frame = told["ensemble"][0]
    expected = force_deviation(np.array(on_frame["f"]))
    assert expected.max() > 0.01
    np.testing.assert_allclose(told["nve"]["f"], expected, rtol=1e-5)
    _, rotation = lower_triangular(np.array(told["nve"]["cell"]))
    virials = rotation @ np.array(on_frame["v"]) @ rotation.T
    assert told["nve"]["w"] == pytest.approx(float(virial_deviation(virials, 36).maximum), rel=1e-5)
    assert told["nve"]["E"] == pytest.approx(on_frame["e"][0], abs=1e-8)
    assert not np.any(told["single"]["f"]) and told["single"]["w"] == 0
    assert told["single"]["x"] == told["nve"]["x"]


def test_nve_conserves_energy(told: dict[str, Any]) -> None:
    def total(state: dict[str, Any]) -> float:
        return state["E"] + 0.5 * (3 * 36 - 3) * units.kB * state["T"]

    exchanged = abs(told["nve"]["E"] - told["zero"]["E"])
    assert exchanged > 0.1
    assert abs(total(told["nve"]) - total(told["zero"])) < 0.02 * exchanged


@pytest.mark.slow
def test_chunks_leave_no_trace_and_processes_agree_bit_for_bit(told: dict[str, Any]) -> None:
    assert told["chunked"]["x"] == told["nve"]["x"] and told["chunked"]["v"] == told["nve"]["v"]
    assert told["ramp"]["x"] == told["ramp_whole"]["x"]
    assert told["again"] == {name: told[name] for name in told["again"]}


def test_a_run_goes_on_from_a_state(told: dict[str, Any]) -> None:
    assert apart_A(told["onward"], told["nve"]) < 1e-8
    np.testing.assert_allclose(told["onward"]["v"], told["nve"]["v"], atol=1e-8)


def test_thermostat_and_ramp_are_the_same_in_both_engines(told: dict[str, Any]) -> None:
    assert told["ramp"]["T"] < 0.8 * told["hold"]["T"]
    assert apart_A(told["ramp"], told["hold"]) > 0.1
    assert apart_A(told["ase_ramp"], told["ramp"]) < 2e-3
    assert told["ase_ramp"]["T"] == pytest.approx(told["ramp"]["T"], rel=1e-3)


def test_pressure_changes_the_volume_but_not_the_shape(told: dict[str, Any]) -> None:
    before = np.array(told["zero"]["cell"])
    for name in ("npt", "ase_npt"):
        after = np.array(told[name]["cell"])
        scale = np.cbrt(np.linalg.det(after) / np.linalg.det(before))
        np.testing.assert_allclose(after, scale * before, atol=1e-6)
        assert abs(scale - 1) > 1e-3, name
        expected = told["zero"]["P"] > 1e6  # the cell expands when it is under more pressure than asked for
        assert (scale > 1) == expected, name


def test_broken_trajectories_say_why(told: dict[str, Any]) -> None:
    assert "not finite" in told["LammpsEngine lost"] or "LAMMPS" in told["LammpsEngine lost"]
    assert "not finite" in told["AseEngine lost"]
    assert told["mistake"].startswith("LAMMPS stopped after step 0 in 'run until the end'")
    assert "use the LAMMPS engine" in told["ase npt ramp"]


def test_batched_evaluation_keeps_frames_and_atoms_in_order(told: dict[str, Any]) -> None:
    first, pair, turned, pair_alone = told["ensemble"]
    np.testing.assert_allclose(np.array(turned["f"])[:, ::-1], first["f"], atol=1e-10)
    np.testing.assert_allclose(turned["e"], first["e"], rtol=1e-12)
    assert np.shape(pair["f"]) == (2, 2, 3) and np.shape(pair["v"]) == (2, 3, 3)
    np.testing.assert_allclose(pair["f"], pair_alone["f"], atol=1e-10)
    np.testing.assert_allclose(np.sum(first["f"], axis=1), 0, atol=1e-9)
    assert "Na are not in the type map" in told["unknown"]


def test_compressed_model_predicts_as_the_model_it_came_from(told: dict[str, Any]) -> None:
    assert told["uncompressed"]["e"][0] == pytest.approx(told["ensemble"][0]["e"][0], abs=1e-6)
    np.testing.assert_allclose(told["uncompressed"]["f"][0], told["ensemble"][0]["f"][0], atol=1e-5)


def test_lammps_without_its_environment_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from alloop.potential.engines import LammpsEngine, MdCondition; from ase.build import bulk; "
        "LammpsEngine(['m.pb'], bulk('Li', cubic=True), MdCondition('nve', 300, 300, 10), seed=1, "
        f"directory={str(tmp_path)!r}, deviation_every=10)"
    )
    bare = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "start this process with the variables of md_environment()" in ended.stderr
    assert md_environment()["LAMMPS_PLUGIN_PATH"]


@pytest.mark.parametrize("sign", [1, -1])
def test_triangular_cell_is_the_same_cell_turned(sign: int) -> None:
    cell = np.random.default_rng(5).normal(size=(3, 3)) * 3
    cell *= sign
    triangular, rotation = lower_triangular(cell)
    np.testing.assert_allclose(triangular @ rotation, cell, atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert (np.diag(triangular) > 0).all() and np.triu(triangular, 1).any() == np.False_
    with pytest.raises(ValueError, match="no volume"):
        lower_triangular(np.zeros((3, 3)))


def test_created_velocities_are_exact_seeded_and_do_not_replace_given_ones() -> None:
    atoms = Atoms("LiBOSi" * 5, positions=np.arange(60).reshape(20, 3), cell=[9, 9, 9], pbc=True)
    moving = with_velocities(atoms, 1500.0, 3)
    assert not atoms.get_momenta().any()
    assert kinetic_temperature_K(moving) == pytest.approx(1500.0)
    np.testing.assert_allclose(moving.get_momenta().sum(axis=0), 0, atol=1e-10)
    np.testing.assert_array_equal(moving.get_momenta(), with_velocities(atoms, 1500.0, 3).get_momenta())
    assert (moving.get_momenta() != with_velocities(atoms, 1500.0, 4).get_momenta()).all()
    np.testing.assert_array_equal(with_velocities(moving, 300.0, 9).get_momenta(), moving.get_momenta())


def test_conditions_and_steps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="ensemble 'nph' is unknown"):
        MdCondition("nph", 300, 300, 10)
    with pytest.raises(ValueError, match="temperature_end_K is 0"):
        MdCondition("nvt", 300, 0, 10)
    ramp = MdCondition("nvt", 1000, 200, 100)
    assert [ramp.temperature_K(step) for step in (0, 50, 100)] == [1000, 600, 200]
    with pytest.raises(ValueError, match="multiple of 20"):
        check_advance(0, 30, 20, ramp)
    with pytest.raises(ValueError, match="the run has 100"):
        check_advance(80, 40, 20, ramp)


def test_stand_in_for_the_plugin_module_is_what_lammps_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """LammpsEngine puts a module with one function in the place of `deepmd.lmp`: look again if this changes."""
    assert version("deepmd-kit").startswith("3.2.")
    plugins = [found for found in entry_points(group="lammps.plugins") if found.name == "deepmd"]
    assert [found.value for found in plugins] == ["deepmd.lmp_check_build:get_op_dir"]
    stand_in = types.ModuleType("deepmd.lmp")
    stand_in.get_op_dir = lambda: "somewhere"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepmd.lmp", stand_in)
    monkeypatch.delitem(sys.modules, "deepmd.lmp_check_build", raising=False)
    assert plugins[0].load()() == "somewhere"
    monkeypatch.delitem(sys.modules, "deepmd.lmp_check_build")
