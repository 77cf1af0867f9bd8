from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.analysis import analyze_frame, read_frames

KEYS = [
    "n_atoms",
    "composition",
    "density_g_cm3",
    "cutoffs_A",
    "coordination",
    "fraction_4B",
    "fraction_5Si",
    "oxygen_by_formers",
    "qn",
    "rings",
    "boroxol",
    "min_distance_A",
]


def borosilicate(seed: int = 0) -> Atoms:
    """Random 84-atom lithium borosilicate, contacts above 1.4 Å: not a glass, but every kind of number occurs."""
    rng = np.random.default_rng(seed)
    steps = np.array(np.meshgrid(*[np.arange(5)] * 3)).reshape(3, -1).T
    sites = steps[rng.permutation(125)[:84]] + rng.uniform(-0.15, 0.15, (84, 3))
    cell = np.array([[9.6, 0, 0], [1.5, 9.4, 0], [-0.8, 1.1, 9.5]])
    return Atoms("Li8B24Si4O48", scaled_positions=sites / 5, cell=cell, pbc=True)


def test_contract_of_a_crystal(crystals):
    result = analyze_frame(crystals["B2O3_I"], max_ring=11)
    assert list(result) == KEYS
    assert json.loads(json.dumps(result)) == result
    assert result["density_g_cm3"] == pytest.approx(2.554, abs=0.002)
    assert 1.35 < result["min_distance_A"].pop("B-O") < 1.36
    assert set(result.pop("min_distance_A")) == {"B-B", "O-O"}
    result.pop("density_g_cm3")
    assert result == {
        "n_atoms": 15,
        "composition": {"B": 6, "O": 9},
        "cutoffs_A": {"B-O": 1.9, "Si-O": 2.0, "Li-O": 2.6},
        "coordination": {"B": {"3": 6}},
        "fraction_4B": 0.0,
        "fraction_5Si": None,
        "oxygen_by_formers": {"0": 0, "1": 0, "2": 9, "3": 0},
        "qn": {"B": {"3": 6}},
        "rings": {"definition": "guttman", "formers": ["B"], "counts": {"10": 3}},
        "boroxol": {"rings": 0, "fraction_B": 0.0},
    }


def test_options_reach_the_result(crystals):
    result = analyze_frame(
        crystals["alpha_quartz"], cutoffs_A={"O-Si": 1.7}, formers=["B", "Si"], ring_definition="king", max_ring=8
    )
    assert result["cutoffs_A"]["Si-O"] == 1.7
    assert result["rings"] == {"definition": "king", "formers": ["B", "Si"], "counts": {"6": 3, "8": 21}}
    assert result["fraction_4B"] is None
    assert result["fraction_5Si"] == 0.0
    assert result["boroxol"] == {"rings": 0, "fraction_B": None}
    assert analyze_frame(crystals["B2O3_II"])["fraction_4B"] == 1.0


def test_five_coordinated_silicon_is_counted():
    legs = 1.7 * np.array([(1, 0, 0), (-0.5, 0.866, 0), (-0.5, -0.866, 0), (0, 0, 1), (0, 0, -1)])
    atoms = Atoms("SiO5", positions=np.vstack([np.zeros(3), legs]))
    assert analyze_frame(atoms)["fraction_5Si"] == 1.0
    assert analyze_frame(atoms, cutoffs_A={"Si-O": 1.6})["fraction_5Si"] == 0.0


def test_a_frame_without_a_cell_is_a_cluster(boron_ring):
    result = analyze_frame(boron_ring(3))
    assert result["density_g_cm3"] is None
    assert result["boroxol"] == {"rings": 1, "fraction_B": 1.0}
    assert result["rings"]["counts"] == {"3": 1}
    assert json.loads(json.dumps(result)) == result


def test_elements_that_are_absent_leave_no_trace():
    result = analyze_frame(Atoms("Li", positions=[(0, 0, 0)]))
    assert result["coordination"] == {"Li": {"0": 1}}
    assert (result["fraction_4B"], result["fraction_5Si"], result["qn"]) == (None, None, {})
    assert result["oxygen_by_formers"] == {"0": 0, "1": 0, "2": 0, "3": 0}
    assert result["min_distance_A"] == {}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_invariant_under_translation_rotation_permutation_and_wrapping(seed):
    rng = np.random.default_rng(seed)
    atoms = borosilicate(seed)
    moved = atoms.copy()
    moved.positions += rng.normal(size=3) * 20
    moved.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    moved.wrap()
    moved = moved[rng.permutation(len(moved))]
    moved.positions += rng.integers(-2, 3, (84, 3)) @ moved.cell.array
    cutoffs_A = {"B-O": 2.4, "Si-O": 2.4}
    options = {"formers": ("B", "Si"), "ring_definition": "primitive", "max_ring": 6, "cutoffs_A": cutoffs_A}
    before, after = analyze_frame(atoms, **options), analyze_frame(moved, **options)
    assert before["rings"]["counts"]
    for key in ("min_distance_A", "density_g_cm3"):
        assert after.pop(key) == pytest.approx(before.pop(key))
    assert after == before


def test_counts_add_up():
    result = analyze_frame(borosilicate(7), cutoffs_A={"B-O": 2.1, "Si-O": 2.2})
    for element, counts in result["coordination"].items():
        assert sum(counts.values()) == result["composition"][element]
    assert sum(result["oxygen_by_formers"].values()) == 48
    assert sum(result["qn"]["Si"].values()) == 4
    assert result["fraction_4B"] == result["coordination"]["B"].get("4", 0) / 24


def test_positions_that_are_not_finite_name_the_atom():
    atoms = borosilicate()
    atoms.positions[30, 1] = np.nan
    with pytest.raises(ValueError, match=r"atom 30 \(B\)"):
        analyze_frame(atoms)


@pytest.mark.parametrize("options", [{"ring_definition": "x"}, {"formers": ("Ge",)}, {"cutoffs_A": {"B": 1.9}}])
def test_refuses_unknown_options(options):
    with pytest.raises(ValueError, match=r"x|Ge|B"):
        analyze_frame(borosilicate(), **options)


@pytest.mark.parametrize("name", ["run.extxyz", "POSCAR", "run.traj"])
def test_reads_frames_of_any_format(tmp_path, name):
    path = tmp_path / name
    atoms = borosilicate()
    ase.io.write(path, atoms)
    (frame,) = read_frames(path)
    assert analyze_frame(frame)["coordination"] == analyze_frame(atoms)["coordination"]


def test_reads_one_frame_at_a_time_with_a_selection(tmp_path):
    path = tmp_path / "run.extxyz"
    ase.io.write(path, [borosilicate(k) for k in range(5)])
    assert len(list(read_frames(path))) == 5
    picked = list(read_frames(path, "1::2"))
    assert len(picked) == 2
    np.testing.assert_allclose(picked[1].positions, borosilicate(3).positions, atol=1e-6)
    assert len(list(read_frames(str(path), -1))) == 1
    with path.open("a") as file:
        file.write("84\nbroken\nO 0.0 0.0\n")
    frames = read_frames(path)
    assert [len(next(frames)) for _ in range(2)] == [84, 84]


def write_dump(path, frames, columns="id type x y z"):
    """A LAMMPS dump with atom types in the order B, Li, O, Si, atoms in no order."""
    types = ["B", "Li", "O", "Si"]
    with path.open("w") as file:
        for step, atoms in enumerate(frames):
            edges = "\n".join(f"0.0 {length}" for length in atoms.cell.lengths())
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n")
            file.write(f"ITEM: BOX BOUNDS pp pp pp\n{edges}\nITEM: ATOMS {columns}\n")
            for k in np.random.default_rng(step).permutation(len(atoms)):
                x, y, z = atoms.positions[k]
                told = {"id": k + 1, "type": types.index(atoms[k].symbol) + 1, "element": atoms[k].symbol}
                file.write(" ".join(str((told | {"x": x, "y": y, "z": z})[name]) for name in columns.split()) + "\n")


def rectangular(seed):
    atoms = borosilicate(seed)
    atoms.set_cell(np.diag([9.6, 9.4, 9.5]), scale_atoms=True)
    return atoms


def test_dump_of_lammps_is_read_frame_by_frame_with_the_elements_of_its_types(tmp_path):
    path, frames = tmp_path / "run.dump", [rectangular(k) for k in range(5)]
    write_dump(path, frames)
    for index, expected in ((":", [0, 1, 2, 3, 4]), ("1::2", [1, 3]), (-1, [4]), ("-2:", [3, 4]), (2, [2])):
        found = list(read_frames(path, index, ["B", "Li", "O", "Si"]))
        assert [atoms.info["timestep"] for atoms in found] == expected
        for atoms, step in zip(found, expected, strict=True):
            assert (atoms.symbols == frames[step].symbols).all() and atoms.pbc.all()
            np.testing.assert_allclose(atoms.positions, frames[step].positions)
    with path.open("a") as file:
        file.write("ITEM: TIMESTEP\n5\nITEM: NUMBER OF ATOMS\n84\n")
    reading = read_frames(path, ":", ["B", "Li", "O", "Si"])
    assert [len(next(reading)) for _ in range(5)] == [84] * 5, "what is whole is read before what is cut short"
    with pytest.raises(ValueError, match=r"frame 5 .*cannot be read"):
        next(reading)


def test_dump_cut_within_its_last_number_is_not_taken_for_whole(tmp_path):
    path = tmp_path / "run.dump"
    write_dump(path, [rectangular(k) for k in range(2)])
    path.write_text(path.read_text().rstrip("\n")[:-2])
    reading = read_frames(path, ":", ["B", "Li", "O", "Si"])
    assert len(next(reading)) == 84
    with pytest.raises(ValueError, match=r"frame 1 .*cut off within a number"):
        next(reading)


def test_dump_without_elements_is_never_taken_for_hydrogen(tmp_path):
    path = tmp_path / "run.dump"
    write_dump(path, [rectangular(0)])
    with pytest.raises(ValueError, match=r"run.dump tells atom types, no elements.*--types B,Li,O,Si"):
        list(read_frames(path))
    with pytest.raises(ValueError, match="more atom types than the 3"):
        list(read_frames(path, ":", ["B", "Li", "O"]))
    write_dump(path, [rectangular(0)], "id element x y z")
    assert set(next(read_frames(path)).symbols) == {"B", "Li", "O", "Si"}


def test_unreadable_files_are_explained(tmp_path):
    empty = tmp_path / "empty.xyz"
    empty.touch()
    noise = tmp_path / "noise.xyz"
    noise.write_text("this is not\na structure\n")
    unknown = tmp_path / "thing.unknown"
    unknown.write_bytes(bytes(range(256)))
    broken = tmp_path / "broken.extxyz"
    frames = [borosilicate(0), borosilicate(1)]
    frames[1].positions[2, 0] = np.nan
    ase.io.write(broken, frames)
    short = tmp_path / "short.extxyz"
    ase.io.write(short, frames[:1])
    for path, index, message in (
        (tmp_path / "none.xyz", ":", "none.xyz is not a file"),
        (tmp_path, ":", "is not a file"),
        (empty, ":", "empty.xyz is empty"),
        (noise, ":", "noise.xyz cannot be read"),
        (unknown, ":", "thing.unknown cannot be read"),
        (broken, ":", r"broken.extxyz, frame 1 .*atom 2 \(Li\)"),
        (short, 7, "short.extxyz"),
        (short, "4:", "holds no frame in the selection '4:'"),
    ):
        with pytest.raises(ValueError, match=message):
            list(read_frames(path, index))
