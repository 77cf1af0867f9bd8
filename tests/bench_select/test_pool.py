"""Reading a labelled pool: from a folder, from a campaign, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from alloop.bench_select.errors import measured_errors
from alloop.bench_select.pool import read_campaign, read_folder, read_labels, write_pool
from alloop.bench_select.report import compare, describe_pool
from alloop.errors import InputError


@pytest.fixture
def changed(pool_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the pool in which one frame of a file is changed."""

    def make(change: Callable[[Atoms], Any], file: str = "pool.extxyz") -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(pool_folder, folder, dirs_exist_ok=True)
        frames = ase.io.read(folder / file, index=":")
        change(frames[2])
        ase.io.write(folder / file, frames)
        return folder

    return make


def test_a_folder_is_read_with_all_that_is_told_of_its_frames(pool_folder: Path) -> None:
    pool = read_folder(pool_folder)
    assert (len(pool.frames), len(pool.test)) == (30, 8)
    assert pool.type_map == ("O", "Si")
    third = pool.frames[2]
    assert (third.trajectory, third.glass, third.temperature_K) == ("a", "quartz", pytest.approx(1050.0))
    assert third.time_ps == pytest.approx(0.2)
    given = ase.io.read(pool_folder / "pool.extxyz", index=2)
    assert third.label.energy_eV == given.get_potential_energy()
    np.testing.assert_array_equal(third.label.forces_eV_A, given.get_forces())
    np.testing.assert_allclose(third.label.virial_eV, -given.get_stress(voigt=False) * given.get_volume())
    assert any("overlap" in found for found in pool.events)


def test_what_is_not_told_is_not_a_number_or_the_formula(changed: Callable[..., Path]) -> None:
    def forget(atoms: Atoms) -> None:
        for name in ("glass", "temperature_K", "time_ps"):
            del atoms.info[name]

    frame = read_folder(changed(forget)).frames[2]
    assert frame.glass == "O2Si"
    assert np.isnan([frame.temperature_K, frame.time_ps]).all()


def test_rounds_read_what_was_written(pool_folder: Path, tmp_path: Path) -> None:
    pool = read_folder(pool_folder)
    write_pool(pool, tmp_path / "frames.npz")
    labels, test = read_labels(tmp_path)
    assert (len(labels), len(test)) == (30, 8)
    for read, frame in ((labels[7], pool.frames[7]), (test[3], pool.test[3])):
        assert read.energy_eV == frame.label.energy_eV
        assert read.atoms.get_chemical_symbols() == frame.label.atoms.get_chemical_symbols()
        np.testing.assert_array_equal(read.forces_eV_A, frame.label.forces_eV_A)
        np.testing.assert_array_equal(read.virial_eV, frame.label.virial_eV)
        np.testing.assert_allclose(read.atoms.positions, frame.label.atoms.positions, atol=1e-12)


def test_key_depends_on_labels_and_not_on_names(pool_folder: Path, changed: Callable[..., Path]) -> None:
    def move(atoms: Atoms) -> None:
        atoms.calc.results["forces"][0, 0] += 1e-6

    key = read_folder(pool_folder).key
    assert read_folder(changed(lambda atoms: atoms.info.update(trajectory="renamed"))).key == key
    assert read_folder(changed(move)).key != key
    assert read_folder(changed(move, "test.extxyz")).key != key


def test_frames_that_are_no_labels_are_refused(changed: Callable[..., Path]) -> None:
    def not_finite(atoms: Atoms) -> None:
        atoms.calc.results["forces"][3, 1] = np.nan

    def no_stress(atoms: Atoms) -> None:
        del atoms.calc.results["stress"]

    def no_cell(atoms: Atoms) -> None:
        atoms.pbc = False

    cases = {
        "frame 2: no whole label; expected energy, forces and stress": no_stress,
        "frame 2: a number is not finite": not_finite,
        "frame 2: no periodic cell": no_cell,
        "frame 2: the comment line does not say `trajectory`": lambda atoms: atoms.info.pop("trajectory"),
    }
    for message, change in cases.items():
        with pytest.raises(InputError, match=message):
            read_folder(changed(change))


def test_frames_past_a_hard_gate_are_not_chosen_from(
    pool_folder: Path, changed: Callable[..., Path], labelled_campaign: Callable[..., Any]
) -> None:
    def collapse(atoms: Atoms) -> None:
        atoms.positions[1] = atoms.positions[0] + [0.5, 0.0, 0.0]

    whole, pool = read_folder(pool_folder), read_folder(changed(collapse))
    assert (whole.past_gate, pool.past_gate) == (0, 1)
    assert [frame.label.energy_eV for frame in pool.frames] == [
        frame.label.energy_eV for number, frame in enumerate(whole.frames) if number != 2
    ]
    assert (describe_pool(pool)["past_gate"], describe_pool(pool)["choose"]["frames"]) == (1, 29)
    assert len(read_folder(changed(collapse, "test.extxyz")).test) == 8, "a test frame stays"
    wide = {"O-Si": 2.0}
    with pytest.raises(InputError, match=r"no frames to choose from \(3 are past a hard gate\)"):
        read_campaign(labelled_campaign(train=3, events={"overlap": {"gate_A": wide, "below_A": {"O-Si": 2.1}}}))


def test_a_test_set_that_is_not_apart_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="trajectory b is both chosen from and tested on"):
        read_folder(changed(lambda atoms: atoms.info.update(trajectory="b"), "test.extxyz"))


def test_folders_that_hold_no_pool_are_refused(pool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no \.extxyz file"):
        read_folder(tmp_path)
    shutil.copy(pool_folder / "pool.extxyz", tmp_path)
    with pytest.raises(InputError, match="holds no test frames"):
        read_folder(tmp_path)
    (tmp_path / "pool.extxyz").rename(tmp_path / "test.extxyz")
    with pytest.raises(InputError, match="holds no frames to choose from"):
        read_folder(tmp_path)
    (tmp_path / "pool.extxyz").write_text("36\nLattice=nonsense\n")
    with pytest.raises(InputError, match="cannot be read as extended xyz"):
        read_folder(tmp_path)


def test_labels_of_a_campaign_are_a_pool(labelled_campaign: Callable[..., Any]) -> None:
    pool = read_campaign(labelled_campaign(train=3))
    assert [frame.glass for frame in pool.frames] == ["LBS-20-60-20"] * 2 + ["LBS-40-20-40"]
    bootstrap, hot = pool.frames[:2]
    assert np.isnan(bootstrap.temperature_K) and bootstrap.place == "LBS-20-60-20 nan"
    assert (bootstrap.time_ps, hot.time_ps, hot.temperature_K, hot.aim_K) == (0.0, 0.4, 2310.0, 2000.0)
    assert hot.place == "LBS-20-60-20 2000K"
    assert [frame.before_loss for frame in pool.frames] == [False, False, True]
    with pytest.raises(InputError, match="campaign holds no test frames"):
        read_campaign(labelled_campaign(train=3, test=0))


def test_a_campaigns_own_events_are_looked_for_in_its_labels(labelled_campaign: Callable[..., Any]) -> None:
    """Silicon with four neighbours or more is in all of quartz; so is an excursion of 310 K in one of three frames."""
    bonded = {"kind": "coordination", "element": "Si", "by": "O", "cutoff_A": 2.1, "at_least": 4}
    events = {"four_coordinated": bonded, "hot": {"kind": "temperature", "excursion_K": 300}, "overlap": {"quota": 0}}
    pool = read_campaign(labelled_campaign(train=3, events=events))
    assert list(pool.ruleset.events) == ["overlap", "five_coordinated_Si", "four_coordinated", "hot"]
    assert all(set(pool.frames[0].label.atoms.symbols[own["four_coordinated"]]) == {"Si"} for own in pool.events)
    assert [len(own.get("hot", ())) for own in pool.events] == [0, 36, 0]
    assert "four_coordinated" not in read_campaign(labelled_campaign(train=3)).events[0]
    counted = describe_pool(pool)["choose"]["events"]
    assert (counted["four_coordinated"], counted["hot"]) == (3, 1)
    forces = np.concatenate([frame.label.forces_eV_A for frame in pool.test]) + 0.1
    errors = measured_errors(pool, forces[None], np.array([[frame.label.energy_eV for frame in pool.test]]))
    assert errors["four_coordinated_atoms"] == pytest.approx(0.1) and errors["hot_atoms"] is None
    records = [{"method": "random", "seed": 0, "labels": n, "errors": errors | {"energy": 0.1}} for n in (5, 10)]
    found = compare(records)["errors"]
    assert found["four_coordinated_frames"]["meaning"] == "all atoms of test frames that show four_coordinated"
    assert "hot_atoms" not in found and found["energy"]["unit"] == "eV/atom"
