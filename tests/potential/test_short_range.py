"""The short-range wall: its table, what asks for it, and models with it in DeePMD and LAMMPS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.data import atomic_numbers

from alloop.glass.composition import OXIDES
from alloop.glass.events import HARD_GATES_A
from alloop.potential import short_range as walls
from alloop.potential.short_range import (
    BEGINS_A,
    ENDS_A,
    FADED_A,
    short_range,
    table_energy_eV,
    table_text,
    write_table,
    zbl_energy_eV,
    zbl_force_eV_A,
)
from alloop.potential.training import TrainRequest, train, training_input
from alloop.selection.pair_lengths import length_matrix_A

TYPE_MAP = ["Li", "B", "O", "Si"]
PAIRS = list(combinations_with_replacement(TYPE_MAP, 2))


def read_table(text: str) -> np.ndarray:
    return np.array([line.split() for line in text.splitlines()], dtype=float)


def test_bare_nuclei_at_no_distance_and_shielded_ones_far_away() -> None:
    assert units.Hartree * units.Bohr == pytest.approx(walls.COULOMB_eV_A, rel=1e-7)
    assert walls.SCREENING_WEIGHTS.sum() == pytest.approx(1.0, abs=1e-9)
    near = np.array([1e-6])
    assert zbl_energy_eV(near, 14, 8) * near == pytest.approx(14 * 8 * walls.COULOMB_eV_A, rel=1e-4)
    assert 0 < zbl_energy_eV(np.array([6.0]), 14, 8)[0] < 0.01


def test_formula_by_hand_for_oxygen_and_silicon_at_half_an_angstrom() -> None:
    x = 0.5 / (0.46850 / (8**0.23 + 14**0.23))
    phi = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    phi += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    assert zbl_energy_eV(np.array(0.5), 8, 14) == pytest.approx(14.3996454784 * 8 * 14 / 0.5 * phi, rel=1e-12)


@pytest.mark.parametrize("pair", PAIRS)
def test_force_is_the_slope_and_repels_everywhere(pair: tuple[str, str]) -> None:
    numbers = [atomic_numbers[symbol] for symbol in pair]
    r, step = np.linspace(0.02, 4.0, 400), 1e-6
    slope = (zbl_energy_eV(r + step, *numbers) - zbl_energy_eV(r - step, *numbers)) / (2 * step)
    np.testing.assert_allclose(zbl_force_eV_A(r, *numbers), -slope, rtol=1e-5)
    assert (zbl_force_eV_A(r, *numbers) > 0).all()
    np.testing.assert_allclose(zbl_energy_eV(r, *numbers), zbl_energy_eV(r, *numbers[::-1]), rtol=1e-14)


def test_table_holds_the_formula_in_deepmds_order() -> None:
    table = read_table(table_text("zbl", TYPE_MAP))
    assert table.shape[1] == 1 + len(PAIRS)
    r = table[:, 0]
    np.testing.assert_allclose(np.diff(r), r[0], rtol=1e-6)
    for column, pair in enumerate(PAIRS, start=1):
        numbers = [atomic_numbers[symbol] for symbol in pair]
        whole = r <= ENDS_A
        np.testing.assert_allclose(table[whole, column], zbl_energy_eV(r[whole], *numbers), rtol=1e-7)
        assert (np.diff(table[:, column]) < 0).all() and table[-1, column] == 0
    assert r[-1] == pytest.approx(FADED_A)


def test_what_deepmd_makes_of_the_table_has_energy_and_slope_of_the_formula(tmp_path: Path) -> None:
    from deepmd.utils.pair_tab import PairTab

    read = PairTab(str(write_table(short_range("zbl", TYPE_MAP), TYPE_MAP, tmp_path)), rcut=6.0)
    first_A, spacing_A, n_splines, n_types = read.tab_info
    assert n_types == 4 and first_A + spacing_A * n_splines >= 6.0
    splines = read.tab_data.reshape(4, 4, int(n_splines), 4)
    r = np.linspace(0.15, 5.9, 3001)
    at = (r - first_A) / spacing_A
    u, number = at % 1, at.astype(int)
    for i, one in enumerate(TYPE_MAP):
        for j, other in enumerate(TYPE_MAP):
            a3, a2, a1, a0 = splines[i, j, number].T
            numbers = atomic_numbers[one], atomic_numbers[other]
            energy = ((a3 * u + a2) * u + a1) * u + a0
            np.testing.assert_allclose(energy, table_energy_eV(r, *numbers), rtol=1e-4, atol=1e-5)
            near = r <= ENDS_A
            force = -(((3 * a3 * u + 2 * a2) * u + a1) / spacing_A)[near]
            np.testing.assert_allclose(force, zbl_force_eV_A(r[near], *numbers), rtol=1e-3)
            assert np.abs(energy[r > FADED_A + spacing_A]).max() < 1e-6


def test_switch_is_over_before_any_sound_structure() -> None:
    elements = sorted({element for oxide in OXIDES.values() for element in oxide} | set(TYPE_MAP))
    assert 0 < BEGINS_A < ENDS_A <= length_matrix_A(elements, HARD_GATES_A).min()
    assert ENDS_A < FADED_A < 1.3  # B-O, the shortest bond of these glasses, is 1.37 Å long


def test_wall_is_known_by_the_content_of_its_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wall = short_range("zbl", TYPE_MAP)
    assert wall == short_range("zbl", list(TYPE_MAP))
    path = write_table(wall, TYPE_MAP, tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wall.table_sha256
    assert path.name == wall.file_name == wall.model_section()["use_srtab"]
    assert short_range("zbl", TYPE_MAP[::-1]) != wall
    monkeypatch.setattr(walls, "SCREENING_LENGTH_A", 0.4686)
    assert short_range("zbl", TYPE_MAP).file_name != wall.file_name
    with pytest.raises(ValueError, match="use the version of alloop that asked for it"):
        write_table(wall, TYPE_MAP, tmp_path)


def test_unknown_forms_and_elements_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown short-range wall 'lj'; use one of zbl"):
        short_range("lj", TYPE_MAP)
    with pytest.raises(ValueError, match="no chemical elements: Xx"):
        short_range("zbl", ["O", "Xx"])


TEMPLATE: dict[str, Any] = {"model": {"descriptor": {"rcut": 6.0, "sel": [1, 2]}, "fitting_net": {}}}


def plain_request(folder: Path, **changes: Any) -> TrainRequest:
    given: dict[str, Any] = {
        "template": TEMPLATE,
        "type_map": ["Li", "O"],
        "training_systems": [folder],
        "n_steps": 5,
        "seed": 3,
    }
    return TrainRequest(**given | changes)


def test_input_asks_for_the_wall_by_name_only(tmp_path: Path) -> None:
    wall = short_range("zbl", ["Li", "O"])
    model = training_input(plain_request(tmp_path, short_range=wall))["model"]
    assert {key: model[key] for key in walls.MODEL_KEYS} == wall.model_section()
    assert "/" not in model["use_srtab"]
    without = training_input(plain_request(tmp_path))["model"]
    assert model == without | wall.model_section() and not set(walls.MODEL_KEYS) & set(without)


def test_wall_that_would_not_last_or_stands_already_is_refused(tmp_path: Path) -> None:
    wall = short_range("zbl", ["Li", "O"])
    for backend in ("pytorch", "jax"):
        with pytest.raises(ValueError, match=f"short_range zbl with backend {backend}: only tensorflow is known"):
            train(plain_request(tmp_path, short_range=wall, backend=backend), tmp_path / "out")
    own = {"model": TEMPLATE["model"] | {"use_srtab": "mine.txt"}}
    with pytest.raises(ValueError, match="the DeePMD template gives use_srtab"):
        train(plain_request(tmp_path, short_range=wall, template=own), tmp_path / "out")
    other = replace(wall, table_sha256="0" * 64)
    assert plain_request(tmp_path, short_range=other) != plain_request(tmp_path, short_range=wall)


MODELS = """
from itertools import combinations_with_replacement
from ase import Atoms
from alloop.potential.lammps_engine import _new_lammps
from alloop.potential.quiet import output_to
from alloop.potential.short_range import short_range
wall = short_range("zbl", TYPE_MAP)
first = train(request(short_range=wall), folder / "walled")
warm = train(request(short_range=wall, n_steps=20, save_freq=20, seed=2, init_checkpoint=first.checkpoint),
             folder / "walled.warm")
bare = folder / "first" / "model.ckpt-100"
told = {
    "started": [first.started_from, warm.started_from],
    "usable": [usable_init_checkpoint(r) is not None for r in (
        request(short_range=wall, init_checkpoint=first.checkpoint),
        request(short_range=wall, init_checkpoint=bare),
        request(init_checkpoint=first.checkpoint),
        request(short_range=short_range("zbl", ["Si", "O", "B", "Li"]), init_checkpoint=first.checkpoint),
    )],
    "table": first.short_range_table.name,
}
paths = {"model": first.model, "compressed": first.compressed_model, "warm": warm.compressed_model}

def pairs(distance_A):
    # ten pairs, each alone within the cutoff of 4 A
    atoms = Atoms(cell=[50, 20, 10], pbc=True)
    for number, (one, other) in enumerate(combinations_with_replacement(TYPE_MAP, 2)):
        at = np.array([5 + 10 * (number // 2), 5 + 10 * (number % 2), 5])
        atoms += Atoms([one, other], [at, at + [distance_A, 0, 0]])
    return atoms

def in_lammps(style, coefficients, atoms):
    md = _new_lammps(folder / "pairs.log")
    for line in ("units metal", "atom_style atomic", "atom_modify map array", "newton on",
                 "region cell block 0 50 0 20 0 10", "create_box 4 cell", "mass * 10.0"):
        md.command(line)
    md.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), [TYPE_MAP.index(s) + 1 for s in atoms.symbols],
                    atoms.positions.ravel().tolist(), [0.0] * 3 * len(atoms))
    for line in (f"pair_style {style}", *coefficients, "fix nve all nve", "run 0 post no"):
        md.command(line)
    forces = np.array(md.gather_atoms("f", 1, 3)).reshape(-1, 3).tolist()
    md.close()
    return forces

told["lammps"], told["deepmd"] = {}, {}
with output_to(folder / "walls.log"):
    Z = [3, 5, 8, 14]
    own = [f"pair_coeff {i + 1} {j + 1} {Z[i]} {Z[j]}" for i in range(4) for j in range(i, 4)]
    told["lammps zbl"] = in_lammps("zbl 0.9 1.0", own, pairs(0.5))
    for name, path in paths.items():
        told["lammps"][name] = in_lammps(f'deepmd "{path}"', [f"pair_coeff * * {' '.join(TYPE_MAP)}"], pairs(0.5))
ensembles = {name: Ensemble([path]) for name, path in paths.items()}
for name, ensemble in ensembles.items():
    told["deepmd"][name] = [ensemble.evaluate(pairs(d)).forces_eV_A[0].tolist() for d in (0.25, 0.5)]

# where the switch is half way, in the middle of a glass: forces and the virial are those of the energy
system = sorted((folder / "data").iterdir())[0]
import dpdata
glass = dpdata.LabeledSystem(str(system), fmt="deepmd/npy")[0].to_ase_structure()[0]
oxygen, silicon = (int(np.flatnonzero(glass.symbols == s)[0]) for s in ("O", "Si"))
close = glass.copy()
close.positions[oxygen] = close.positions[silicon] + [0.4, 0.35, 0.35]
def moved(atoms, by):
    new = atoms.copy()
    new.positions[oxygen] += by
    return new
def strained(atoms, by):
    new = atoms.copy()
    new.set_cell(atoms.cell.array * (1 + by), scale_atoms=True)
    return new
ensemble, h = ensembles["compressed"], 1e-5
energy = lambda atoms: ensemble.evaluate(atoms).energies_eV[0]
found = ensemble.evaluate(close)
told["force"] = found.forces_eV_A[0, oxygen].tolist()
told["slope"] = [-(energy(moved(close, h * e)) - energy(moved(close, -h * e))) / (2 * h) for e in np.eye(3)]
told["virial"] = float(np.trace(found.virials_eV[0]))
told["strain"] = -(energy(strained(close, h)) - energy(strained(close, -h))) / (2 * h)
plain = Ensemble([folder / "first" / "model.pb"]).evaluate(glass)
same = Ensemble([first.model]).evaluate(glass)
told["apart"] = [float(np.abs(one - two).max()) for one, two in (
    (plain.energies_eV, same.energies_eV), (plain.forces_eV_A, same.forces_eV_A), (plain.virials_eV, same.virials_eV))]
told["nearest"] = float(np.min(glass.get_all_distances(mic=True) + 9 * np.eye(len(glass))))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(trained: tuple[Path, Any], start_script: Callable[[Path, str], Any]) -> dict[str, Any]:
    """Models with the wall - as frozen, compressed, and started warm from it - and the bare one of the same seed."""
    folder, _ = trained
    return start_script(folder, MODELS).result()


def repulsion_eV_A(distance_A: float) -> np.ndarray:
    """ZBL's force between the two atoms of each pair."""
    return np.array([zbl_force_eV_A(np.array(distance_A), *(atomic_numbers[s] for s in pair)) for pair in PAIRS])


def check_pairs(forces_eV_A: Any, distance_A: float, tolerance: float) -> None:
    """Check that each pair is pushed apart, along the line between the two, as hard as the formula says."""
    pushed = np.array(forces_eV_A).reshape(len(PAIRS), 2, 3)
    assert (pushed[:, 0, 0] < 0).all()
    np.testing.assert_allclose(pushed[:, 0], -pushed[:, 1], atol=1e-8)
    np.testing.assert_allclose(pushed[:, 1, 0], repulsion_eV_A(distance_A), rtol=tolerance)
    np.testing.assert_allclose(pushed[:, :, 1:], 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "compressed", "warm"])
def test_models_repel_every_pair_as_the_nuclei_do(told: dict[str, Any], name: str) -> None:
    for distance_A, forces in zip((0.25, 0.5), told["deepmd"][name], strict=True):
        check_pairs(forces, distance_A, 1e-3)
    check_pairs(told["lammps"][name], 0.5, 1e-3)


@pytest.mark.slow
def test_formula_is_the_one_lammps_has(told: dict[str, Any]) -> None:
    check_pairs(told["lammps zbl"], 0.5, 1e-5)


@pytest.mark.slow
def test_warm_start_keeps_the_wall_and_takes_none_from_elsewhere(told: dict[str, Any]) -> None:
    assert told["started"] == ["scratch", "warm start"]
    assert told["usable"] == [True, False, False, False]
    assert told["table"] == short_range("zbl", TYPE_MAP).file_name


@pytest.mark.slow
def test_forces_follow_the_energy_where_the_wall_is_blended_in(told: dict[str, Any]) -> None:
    np.testing.assert_allclose(told["force"], told["slope"], rtol=1e-4, atol=1e-3)
    assert told["virial"] == pytest.approx(told["strain"], rel=1e-4)
    assert np.dot(told["force"], [0.4, 0.35, 0.35]) > 0


@pytest.mark.slow
def test_sound_structures_do_not_feel_the_wall_nor_does_the_fit(told: dict[str, Any]) -> None:
    assert told["nearest"] > ENDS_A
    assert max(told["apart"]) < 1e-9
