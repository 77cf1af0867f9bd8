"""Structures and labelled data of one's own: read as written, refused when unusable, hashed by content alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from alloop.glass.crystals import crystal
from alloop.glass.force_field import TeterCalculator
from alloop.tasks.sources import file_hash, read_labelled, read_structures_file


@pytest.fixture
def labelled():
    """Three rattled copies of Li2Si2O5 with energy (eV), forces (eV/Å) and virial (eV)."""
    import dpdata

    ideal = crystal("Li2Si2O5")
    names = ["Li", "O", "Si"]
    data = {
        "atom_names": names,
        "atom_numbs": [ideal.get_chemical_symbols().count(name) for name in names],
        "atom_types": np.array([names.index(symbol) for symbol in ideal.symbols]),
        "orig": np.zeros(3),
    }
    rng = np.random.default_rng(5)
    frames = []
    for _ in range(3):
        atoms = ideal.copy()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.calc = TeterCalculator()
        frames.append(atoms)
    data["coords"] = np.array([atoms.positions for atoms in frames])
    data["cells"] = np.array([np.asarray(atoms.cell) for atoms in frames])
    data["energies"] = np.array([atoms.get_potential_energy() for atoms in frames])
    data["forces"] = np.array([atoms.get_forces() for atoms in frames])
    data["virials"] = np.array([-atoms.get_stress(voigt=False) * atoms.get_volume() for atoms in frames])
    return dpdata.LabeledSystem(data=data)


@pytest.mark.parametrize("data_format", ["deepmd/npy", "deepmd/raw"])
def test_data_written_by_dpdata_come_back(data_format, labelled, tmp_path):
    labelled.to(data_format, str(tmp_path / "set"))
    frames = read_labelled(tmp_path / "set", data_format)
    assert len(frames) == 3
    for index, frame in enumerate(frames):
        assert frame.atoms.get_chemical_symbols() == crystal("Li2Si2O5").get_chemical_symbols()
        assert frame.atoms.pbc.all()
        close = {"rtol": 1e-6, "atol": 1e-6} if data_format == "deepmd/npy" else {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(frame.atoms.positions, labelled.data["coords"][index], **close)
        np.testing.assert_allclose(np.asarray(frame.atoms.cell), labelled.data["cells"][index], **close)
        np.testing.assert_allclose(frame.energy_eV, labelled.data["energies"][index], **close)
        np.testing.assert_allclose(frame.forces_eV_A, labelled.data["forces"][index], **close)
        np.testing.assert_allclose(frame.virial_eV, labelled.data["virials"][index], **close)


def test_extxyz_of_ase_is_read_with_the_sign_of_its_virial(tmp_path):
    """What ASE writes for a calculator's stress is read as minus stress times volume."""
    atoms = crystal("Li2O")
    atoms.rattle(0.05, seed=3)
    atoms.calc = TeterCalculator()
    virial_eV = -atoms.get_stress(voigt=False) * atoms.get_volume()
    forces_eV_A = atoms.get_forces()
    frozen = atoms.copy()
    frozen.calc = SinglePointCalculator(
        frozen, energy=atoms.get_potential_energy(), forces=forces_eV_A, stress=atoms.get_stress()
    )
    write(tmp_path / "run.traj", frozen)
    (frame,) = read_labelled(tmp_path / "run.traj", "ase/traj")
    order = np.argsort(frame.atoms.numbers, kind="stable")
    expected = np.argsort(atoms.numbers, kind="stable")
    np.testing.assert_allclose(frame.forces_eV_A[order], forces_eV_A[expected], atol=1e-9)
    np.testing.assert_allclose(frame.virial_eV, virial_eV, atol=1e-9)


def test_missing_virials_are_refused(labelled, tmp_path):
    labelled.to("deepmd/npy", str(tmp_path / "set"))
    (tmp_path / "set" / "set.000" / "virial.npy").unlink()
    with pytest.raises(ValueError, match="has no virials; alloop trains on energy, forces and virial"):
        read_labelled(tmp_path / "set", "deepmd/npy")


@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "virial"])
def test_a_number_that_is_not_finite_is_refused(name, labelled, tmp_path):
    labelled.to("deepmd/npy", str(tmp_path / "set"))
    file = tmp_path / "set" / "set.000" / f"{name}.npy"
    values = np.load(file)
    values.reshape(3, -1)[1, -1] = np.nan
    np.save(file, values)
    with pytest.raises(ValueError, match="frame 1: a number is not finite; remove the frame"):
        read_labelled(tmp_path / "set", "deepmd/npy")


def test_data_without_cell_are_refused(labelled, tmp_path):
    labelled.data["nopbc"] = True
    labelled.to("deepmd/npy", str(tmp_path / "set"))
    with pytest.raises(ValueError, match="frame 0: no cell"):
        read_labelled(tmp_path / "set", "deepmd/npy")


def test_format_dpdata_cannot_read_labels_from(tmp_path):
    (tmp_path / "POSCAR").write_text("x")
    for wrong in ("vasp/poscar", "deepmd/npi", "nothing like it"):
        with pytest.raises(ValueError, match=f"format '{wrong}' is none of dpdata's labelled ones; did you mean"):
            read_labelled(tmp_path / "POSCAR", wrong)


def test_hash_of_a_file_is_of_its_content_alone(tmp_path):
    one, other = tmp_path / "POSCAR", tmp_path / "deep" / "renamed.vasp"
    other.parent.mkdir()
    one.write_bytes(b"content")
    other.write_bytes(b"content")
    assert file_hash(one) == file_hash(other)
    other.write_bytes(b"content.")
    assert file_hash(one) != file_hash(other)


def test_hash_of_a_folder_is_of_names_and_contents_in_it(tmp_path):
    one = tmp_path / "one"
    (one / "set.000").mkdir(parents=True)
    (one / "type.raw").write_text("0\n1\n")
    (one / "set.000" / "box.npy").write_bytes(b"\x00\x01")
    other = tmp_path / "elsewhere" / "other"
    shutil.copytree(one, other)
    before = file_hash(one)
    assert file_hash(other) == before
    (other / "type.raw").rename(other / "type_map.raw")
    assert file_hash(other) != before
    shutil.rmtree(other)
    shutil.copytree(one, other)
    (other / "set.000" / "box.npy").write_bytes(b"\x00\x02")
    assert file_hash(other) != before


def test_hash_keeps_name_and_content_apart(tmp_path):
    for folder, name, content in (("one", "a", b"bc"), ("other", "ab", b"c")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    assert file_hash(tmp_path / "one") != file_hash(tmp_path / "other")


def test_structures_are_periodic_and_without_numbers_of_another_calculator(tmp_path):
    atoms = crystal("Li2O")
    atoms.pbc = False
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    write(tmp_path / "own.extxyz", [atoms, atoms])
    frames = read_structures_file(tmp_path / "own.extxyz")
    assert len(frames) == 2
    assert all(frame.pbc.all() and frame.calc is None for frame in frames)


def test_folder_in_place_of_a_structure(tmp_path):
    with pytest.raises(ValueError, match="is a folder; expected a structure file"):
        read_structures_file(tmp_path)


def test_frame_without_atoms(tmp_path):
    write(tmp_path / "own.traj", [Atoms("B", cell=[5, 5, 5]), Atoms(cell=[5, 5, 5])])
    with pytest.raises(ValueError, match="frame 1: no atoms; remove the frame"):
        read_structures_file(tmp_path / "own.traj")
