"""Labelers made of ASE calculators: their numbers, the sign of the virial, and what is said when one cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones

import alloop
from alloop import labelers
from alloop.glass.bmp import BmpCalculator
from alloop.glass.crystals import crystal
from alloop.glass.force_field import TeterCalculator
from alloop.glass.shik import ShikCalculator
from alloop.labelers.ase_calculator import AseLabeler
from alloop.structure import LabeledFrame

SYMMETRIC = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]


def rattled(name: str, seed: int = 1) -> Atoms:
    atoms = crystal(name)
    atoms.rattle(0.05, seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.tri(3)), scale_atoms=True)
    return atoms


def energy_strain_derivative_eV(labeler: labelers.Labeler, atoms: Atoms, step: float = 1e-4) -> np.ndarray:
    """dE/d(strain) as a symmetric matrix (3, 3), by central differences."""
    derivative = np.zeros((3, 3))
    for a, b in SYMMETRIC:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(labeler.label(strained).energy_eV)
        derivative[a, b] = derivative[b, a] = (energies[0] - energies[1]) / (2 * step)
    return derivative


# ---------------------------------------------------------------------------------------- the rehearsal force field


@pytest.mark.parametrize(
    ("labeler", "calculator"),
    [("teter-rehearsal", TeterCalculator), ("shik-rehearsal", ShikCalculator), ("bmp-rehearsal", BmpCalculator)],
)
@pytest.mark.parametrize("name", ["Li2Si2O5", "B2O3-I"])
def test_rehearsal_labelers_are_the_calculators_of_their_force_fields(name, labeler, calculator):
    atoms = rattled(name)
    frame = labelers.load(labeler, {}).label(atoms)
    reference = atoms.copy()
    reference.calc = calculator()
    assert frame.energy_eV == pytest.approx(reference.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(frame.forces_eV_A, reference.get_forces(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.virial_eV, -reference.get_stress(voigt=False) * atoms.get_volume(), atol=1e-12)
    np.testing.assert_array_equal(frame.atoms.positions, atoms.positions)
    assert frame.atoms.calc is None
    assert atoms.calc is None
    assert labelers.judge(frame) is None


@pytest.mark.parametrize("name", ["Li2Si2O5", "B2O3-I"])
def test_virial_is_minus_the_strain_derivative_of_the_energy(name):
    atoms = rattled(name)
    labeler = labelers.load("teter-rehearsal", {})
    virial_eV = labeler.label(atoms).virial_eV
    assert np.abs(virial_eV).max() > 1.0, "a case without virial shows no sign"
    np.testing.assert_allclose(virial_eV, -energy_strain_derivative_eV(labeler, atoms), rtol=1e-5, atol=1e-4)


def test_forces_are_minus_the_gradient_of_the_energy():
    atoms = rattled("B2O3-I")
    labeler = labelers.load("teter-rehearsal", {})
    forces_eV_A = labeler.label(atoms).forces_eV_A
    step_A = 1e-4
    for atom, axis in ((0, 0), (7, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step_A
            energies.append(labeler.label(moved).energy_eV)
        assert forces_eV_A[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step_A), abs=1e-5)


def test_a_labeler_is_made_once_per_process():
    assert labelers.load("teter-rehearsal", {}) is labelers.load("teter-rehearsal", {})
    lennard_jones = "ase.calculators.lj:LennardJones"
    assert labelers.load(lennard_jones, {"rc": 5.0}) is not labelers.load(lennard_jones, {"rc": 6.0})


# ---------------------------------------------------------------------------------------- any calculator of ASE


def test_calculator_by_import_path_with_options():
    options = {"sigma": 3.4, "epsilon": 0.0104, "rc": 8.0, "smooth": True}
    atoms = bulk("Ar", "fcc", a=5.0, cubic=True) * 2
    atoms.rattle(0.1, seed=2)
    labeler = labelers.load("ase.calculators.lj:LennardJones", options)
    frame = labeler.label(atoms)
    reference = atoms.copy()
    reference.calc = LennardJones(**options)
    assert frame.energy_eV == pytest.approx(reference.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(frame.forces_eV_A, reference.get_forces(), atol=1e-12)
    np.testing.assert_allclose(frame.virial_eV, -energy_strain_derivative_eV(labeler, atoms), rtol=1e-5, atol=1e-6)
    assert np.trace(frame.virial_eV) > 0, "a compressed solid pushes outwards"


def test_own_options_win_over_those_of_a_built_in_name():
    path, keywords = labelers.resolve("sevennet-0", {"device": "cuda"})
    assert path == "sevenn.calculator:SevenNetCalculator"
    assert keywords == {"model": "7net-0", "device": "cuda"}
    assert labelers.resolve("a.b:C", {"x": 1}) == ("a.b:C", {"x": 1})


class WithoutStress(Calculator):
    """A calculator that knows energy and forces only."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def test_calculator_without_stress(monkeypatch):
    labeler = AseLabeler("ase.calculators.lj:LennardJones", {})
    monkeypatch.setattr(labeler, "calculator", WithoutStress())
    with pytest.raises(ValueError, match="WithoutStress gives no stress, and models are trained on virials too"):
        labeler.label(crystal("Li2O"))


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("ase.calculators.lj:LennardJonse", {}, "AttributeError"),
        ("ase.calculators.nowhere:LennardJones", {}, "No module named"),
        ("ase.calculators.eam:EAM", {"potential": 3}, "correct label.labeler or label.options"),
    ],
)
def test_labeler_that_cannot_be_made(path, options, words):
    with pytest.raises(ValueError, match=f"labeler {path} cannot be made with options") as refused:
        labelers.load(path, options)
    assert words in str(refused.value)


# ---------------------------------------------------------------------------------------- is it there at all


@pytest.mark.parametrize(
    "name", ["teter-rehearsal", "ase.calculators.lj:LennardJones", "ase.calculators.vasp:Vasp", "chain.star:Anything"]
)
def test_no_problem_with_what_is_installed(name, tmp_path, monkeypatch):
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "chain" / "star.py").write_text("from elsewhere import *")
    monkeypatch.syspath_prepend(tmp_path)
    assert labelers.problem(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sevennet", ["an import path like package.module:Calculator", "did you mean 'sevennet-0'?"]),
        ("lj", ["'lj' is neither built in nor an import path"]),
        ("ase.calculators.lj", ["neither built in nor an import path"]),
        ("ase..lj:LennardJones", ["neither built in nor an import path"]),
        (":LennardJones", ["neither built in nor an import path"]),
        ("", ["neither built in nor an import path"]),
        ("nowhere.calc:Calc", ["needs the package 'nowhere', which is not installed (pip install nowhere)"]),
        ("ase.calculators.ljj:LennardJones", ["package 'ase' is installed, but has no module 'ase.calculators.ljj'"]),
        ("ase.calculators.lj.deep:LennardJones", ["has no module 'ase.calculators.lj.deep'"]),
        ("ase.calculators.lj:Lennard", ["module 'ase.calculators.lj' has no 'Lennard'"]),
    ],
)
def test_problem_names_what_is_missing_and_the_remedy(name, words):
    found = labelers.problem(name)
    assert found is not None
    for word in words:
        assert word in found


def test_built_in_labeler_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("alloop.labelers.ase_calculator.find_spec", lambda name: None)
    assert "'sevenn', which is not installed (pip install 'alloop[quickstart]')" in str(labelers.problem("sevennet-0"))
    assert "'chgnet', which is not installed (pip install chgnet)" in str(labelers.problem("chgnet"))


def test_looking_for_a_labeler_imports_nothing_heavy():
    code = (
        "import sys; from alloop import labelers;"
        "[labelers.problem(name) for name in (*labelers.BUILT_IN, 'torch.nn:Module', 'sevenn.nowhere:X')];"
        "print([name for name in ('torch', 'sevenn', 'chgnet', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=own_environment(), timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


# ---------------------------------------------------------------------------------------- judging a label


def whole(count: int = 3) -> LabeledFrame:
    atoms = Atoms("BO2", positions=np.arange(9.0).reshape(3, 3), cell=[5, 5, 5], pbc=True)[:count]
    return LabeledFrame(atoms, -1.0, np.ones((count, 3)), np.eye(3))


def test_a_whole_label_is_taken():
    assert labelers.judge(whole()) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad):
    good = whole()
    forces, virial = good.forces_eV_A.copy(), good.virial_eV.copy()
    forces[2, 1] = virial[0, 2] = bad
    assert labelers.judge(LabeledFrame(good.atoms, bad, good.forces_eV_A, good.virial_eV)) == "energy not finite"
    assert labelers.judge(LabeledFrame(good.atoms, -1.0, forces, good.virial_eV)) == "forces not finite"
    assert labelers.judge(LabeledFrame(good.atoms, -1.0, good.forces_eV_A, virial)) == "virial not finite"


@pytest.mark.parametrize(("forces", "virial"), [((2, 3), (3, 3)), ((9,), (3, 3)), ((3, 3), (6,)), ((3, 3), (9,))])
def test_wrong_shapes_are_refused(forces, virial):
    found = labelers.judge(LabeledFrame(whole().atoms, -1.0, np.zeros(forces), np.zeros(virial)))
    assert found == f"forces {forces} and virial {virial} for 3 atoms"


def test_a_label_of_nothing_is_refused():
    assert labelers.judge(whole(0)) == "no atoms"


# ---------------------------------------------------------------------------------------- SevenNet, in its own process


def own_environment() -> dict[str, str]:
    root = str(Path(alloop.__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


SEVENNET = """
import json, sys
import numpy as np
from alloop import labelers
from alloop.glass.crystals import crystal

labeler = labelers.load("sevennet-0", {})
atoms = crystal("B2O3-II") * (2, 1, 1)
atoms.rattle(0.05, seed=1)
atoms.set_cell(0.97 * atoms.cell.array, scale_atoms=True)  # compressed, so that the virial is large
frame = labeler.label(atoms)
expected, found = [], []
for direction in ([[1, 0.5, 0.2], [0.5, 0, 0], [0.2, 0, 0]], [[0, 0, 0], [0, 0.5, 0.3], [0, 0.3, 1]]):
    energies = []
    for step in (0.002, -0.002):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + step * np.array(direction)), scale_atoms=True)
        energies.append(labeler.label(strained).energy_eV)
    expected.append((energies[1] - energies[0]) / 0.004)
    found.append(float((frame.virial_eV * direction).sum()))
json.dump({
    "atoms": len(atoms),
    "problem": labelers.judge(frame),
    "energy_eV": frame.energy_eV,
    "net_force_eV_A": frame.forces_eV_A.sum(axis=0).tolist(),
    "virial_eV": frame.virial_eV.tolist(),
    "along_strain_eV": found,
    "expected_eV": expected,
}, sys.stdout)
"""


@pytest.mark.slow
def test_sevennet_gives_finite_numbers_and_the_virial_of_its_energy():
    if find_spec("sevenn") is None:
        pytest.skip("sevenn is not installed (pip install 'alloop[quickstart]')")
    command = [sys.executable, "-W", "ignore", "-c", SEVENNET]
    done = subprocess.run(command, capture_output=True, text=True, env=own_environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 20 <= found["atoms"] <= 40
    assert found["problem"] is None
    assert -20.0 < found["energy_eV"] / found["atoms"] < -2.0, "a bound solid, in eV"
    np.testing.assert_allclose(found["net_force_eV_A"], 0, atol=1e-3)
    assert np.trace(found["virial_eV"]) > 10.0, "a compressed crystal pushes outwards"
    np.testing.assert_allclose(found["along_strain_eV"], found["expected_eV"], rtol=0.01, atol=0.02)
