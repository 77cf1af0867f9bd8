from __future__ import annotations

from pathlib import Path

import dpdata
import numpy as np
import pytest
from ase import Atoms

from alloop.potential.dataset import composition, write_systems
from alloop.structure import LabeledFrame

TYPE_MAP = ("Li", "B", "O", "Si")


def frame(symbols: str, seed: int) -> LabeledFrame:
    rng = np.random.default_rng(seed)
    n = len(Atoms(symbols))
    atoms = Atoms(symbols, positions=rng.normal(size=(n, 3)), cell=np.eye(3) * 7 + rng.normal(size=(3, 3)), pbc=True)
    return LabeledFrame(atoms, rng.normal(), rng.normal(size=(n, 3)), rng.normal(size=(3, 3)))


def test_frames_of_one_stoichiometry_share_a_system_whatever_their_order(tmp_path: Path) -> None:
    frames = [frame("OBLiO", 1), frame("LiOOB", 2), frame("SiO2", 3)]
    systems = write_systems(frames, tmp_path, TYPE_MAP)
    assert [s.name for s in systems] == ["Li1B1O2", "O2Si1"]
    read = dpdata.LabeledSystem(str(systems[0]), fmt="deepmd/npy").data
    assert [read["atom_names"][t] for t in read["atom_types"]] == ["Li", "B", "O", "O"]
    for number, order in enumerate(([2, 1, 0, 3], [0, 3, 1, 2])):
        original = frames[number]
        np.testing.assert_array_equal(read["coords"][number], original.atoms.positions[order])
        np.testing.assert_array_equal(read["forces"][number], original.forces_eV_A[order])
        np.testing.assert_array_equal(read["cells"][number], original.atoms.cell.array)
        np.testing.assert_array_equal(read["virials"][number], original.virial_eV)
        assert read["energies"][number] == original.energy_eV
    assert (systems[1] / "type_map.raw").read_text().split() == list(TYPE_MAP)


def test_composition_follows_the_type_map() -> None:
    assert composition(Atoms("O2SiLi"), TYPE_MAP) == "Li1O2Si1"


def test_frames_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no labelled frames"):
        write_systems([], tmp_path, TYPE_MAP)
    with pytest.raises(ValueError, match="Na are not in the type map"):
        write_systems([frame("NaO", 1)], tmp_path, TYPE_MAP)
    bad = frame("LiO", 1)
    bad.forces_eV_A[1, 1] = np.nan
    with pytest.raises(ValueError, match="force has values that are not finite"):
        write_systems([bad], tmp_path, TYPE_MAP)
