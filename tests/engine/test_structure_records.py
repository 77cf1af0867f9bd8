from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.frames import read_columns, read_structure, read_structures, write_frames
from alloop.structure import content_key, from_record, to_record


@st.composite
def periodic_atoms(draw: st.DrawFn) -> Atoms:
    """Up to six atoms anywhere, also outside of a possibly sheared cell."""
    symbols = draw(st.lists(st.sampled_from(["Li", "B", "O", "Si"]), min_size=1, max_size=6))
    number = st.floats(-1e3, 1e3, allow_subnormal=False)
    positions = [[draw(number) for _ in range(3)] for _ in symbols]
    lengths = [draw(st.floats(2.0, 40.0)) for _ in range(3)]
    shear = [draw(st.floats(-1.5, 1.5)) for _ in range(3)]
    cell = [[lengths[0], 0.0, 0.0], [shear[0], lengths[1], 0.0], [shear[1], shear[2], lengths[2]]]
    return Atoms(symbols, positions=positions, cell=cell, pbc=draw(st.booleans()))


def same_bits(a: object, b: object) -> bool:
    return np.asarray(a, dtype=float).tobytes() == np.asarray(b, dtype=float).tobytes()


@settings(max_examples=100, deadline=None)
@given(periodic_atoms())
def test_record_is_exact_through_json_and_atoms(atoms: Atoms) -> None:
    record = to_record(atoms)
    assert record == json.loads(json.dumps(record))
    assert content_key(record) == content_key(json.loads(json.dumps(record)))
    again = from_record(record)
    assert again.get_chemical_symbols() == atoms.get_chemical_symbols() and again.pbc.all()
    assert same_bits(again.positions, record["positions_A"])
    assert same_bits(again.cell.array, atoms.cell.array)


@settings(max_examples=100, deadline=None)
@given(periodic_atoms())
def test_record_holds_the_atoms_wrapped_into_the_cell(atoms: Atoms) -> None:
    wrapped = from_record(to_record(atoms))
    scaled = np.linalg.solve(atoms.cell.array.T, wrapped.positions.T).T
    assert (scaled > -1e-6).all() and (scaled < 1 + 1e-6).all()
    shift = np.linalg.solve(atoms.cell.array.T, (wrapped.positions - atoms.positions).T).T
    assert np.abs(shift - shift.round()).max() < 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(periodic_atoms(), max_size=4))
def test_frames_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, frames: list[Atoms]) -> None:
    result = tmp_path_factory.getbasetemp()
    step = np.arange(len(frames)) * 20
    kept_for = np.array(["audit"] * len(frames), dtype="U24")
    write_frames(result / "frames.npz", frames, step=step, kept_for=kept_for)
    records = [to_record(atoms) for atoms in frames]
    found = read_structures(result, range(len(frames)))
    assert found == records
    assert all(same_bits(a["positions_A"], b["positions_A"]) for a, b in zip(found, records, strict=True))
    assert all(content_key(a) == content_key(b) for a, b in zip(found, records, strict=True)), "so are label keys"
    if frames:
        assert read_structure(result, len(frames) - 1) == records[-1]
    columns = read_columns(result)
    assert set(columns) == {"n_atoms", "step", "kept_for"}
    assert columns["step"].tolist() == step.tolist()
    assert columns["n_atoms"].tolist() == [len(atoms) for atoms in frames]


def test_no_frame_at_all_is_a_result_too(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames.npz", [], step=np.array([], dtype=int))
    assert read_structures(tmp_path, []) == []
    assert len(read_columns(tmp_path)["step"]) == 0


def test_column_of_another_length_is_refused(tmp_path: Path) -> None:
    atoms = Atoms("O", cell=np.eye(3), pbc=True)
    with pytest.raises(ValueError, match="column step has 2 entries for 1 frames"):
        write_frames(tmp_path / "frames.npz", [atoms], step=[1, 2])
    assert not (tmp_path / "frames.npz").exists()


def test_structure_without_a_number_has_no_key() -> None:
    atoms = Atoms("O", positions=[[np.nan, 0, 0]], cell=np.eye(3), pbc=True)
    with pytest.raises(ValueError, match="JSON"):
        content_key(to_record(atoms))
