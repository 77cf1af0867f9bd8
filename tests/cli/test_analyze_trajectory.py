"""`alloop analyze` of whole trajectories: files of every kind, the figures printed, and what cannot be done."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from alloop.glass.crystals import crystal


@pytest.fixture
def walk(tmp_path):
    """60 Li that walk at random among 60 resting O, 1 ps a frame: the step's variance is 2 D dt per direction."""
    rng = np.random.default_rng(3)
    D_A2_ps, frames = 0.05, 221
    steps = rng.normal(0, np.sqrt(2 * D_A2_ps), (frames, 60, 3)).cumsum(axis=0)
    start = rng.uniform(0, 20, (120, 3))
    paths = []
    for replica in range(2):
        images = []
        for k in range(frames):
            positions = start.copy()
            positions[:60] += steps[k] if replica == 0 else steps[k][::-1, ::-1]
            atoms = Atoms("Li60O60", positions=positions, cell=[20.0] * 3, pbc=True)
            atoms.wrap()
            images.append(atoms)
        paths.append(tmp_path / f"walk{replica}.extxyz")
        write(paths[-1], images)
    return paths


@pytest.fixture
def cooling(tmp_path):
    """A boroxol ring that opens after half of ten frames."""
    angle = np.pi * np.arange(6) / 3
    ring = 1.37 * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(6)]) + 6.0
    images = []
    for k in range(10):
        atoms = Atoms("BOBOBO", positions=ring, cell=[12.0] * 3, pbc=True, info={"temperature_K": 1000.0 - 50 * k})
        if k >= 5:
            atoms.positions[1] += (0, 0, 3.0)
        images.append(atoms)
    path = tmp_path / "cooling.extxyz"
    write(path, images)
    return path


def test_diffusion_of_a_walk_is_told_with_its_interval(alloop_main, walk, tmp_path) -> None:
    asked = ["analyze", walk[0], "--no-frames", "--msd", tmp_path / "msd.json", "--frame-ps", 1, "--temperature-K", 500]
    asked += ["--window-ps", 20, 60, "--drop-ps", 10]
    outcome = alloop_main(*asked)
    assert outcome.code == 0, outcome.err
    assert "diffusion of Li (60 atoms, 1 replica(s)" in outcome.out and "S/cm" in outcome.out
    record = json.loads((tmp_path / "msd.json").read_text())
    low, high = record["D_cm2_s"]["low_95"], record["D_cm2_s"]["high_95"]
    assert low < 0.05e-4 < high
    # 60 Li in 20 Å cubed; n e^2 D / (k_B T) with the figures above
    conductivity = 60 / 8e-21 * 1.602177e-19**2 * record["D_cm2_s"]["value"] / (1.380649e-23 * 500)
    assert record["conductivity_S_cm"]["value"] == pytest.approx(conductivity, rel=1e-5)


def test_files_are_replicas_and_json_has_the_figures(alloop_main, walk, tmp_path) -> None:
    for name in ("msd.csv", "msd.pdf"):
        asked = ["analyze", *walk, "--no-frames", "--msd", tmp_path / name, "--frame-ps", 1, "--json"]
        outcome = alloop_main(*asked, "--window-ps", 20, 60, "--drop-ps", 0)
        assert outcome.code == 0, outcome.err
        (line,) = outcome.out.splitlines()
        assert json.loads(line)["diffusion"]["replicas"] == 2
    table = np.genfromtxt(tmp_path / "msd.csv", delimiter=",", names=True)
    assert table.dtype.names == ("lag_ps", "msd_A2") and len(table) == 221
    assert (tmp_path / "msd.pdf").read_bytes().startswith(b"%PDF")


def test_every_frame_counts_in_the_time_between_them(alloop_main, walk, tmp_path) -> None:
    values = []
    for every in (1, 2):
        asked = ["analyze", walk[0], "--no-frames", "--msd", tmp_path / "msd.json", "--frame-ps", 1, "--every", every]
        assert alloop_main(*asked, "--window-ps", 20, 60, "--drop-ps", 0).code == 0
        values.append(json.loads((tmp_path / "msd.json").read_text())["D_cm2_s"]["value"])
    assert values[0] == pytest.approx(values[1], rel=0.1)


def test_structure_factor_and_angles_of_quartz(alloop_main, tmp_path) -> None:
    file = tmp_path / "quartz.extxyz"
    write(file, crystal("alpha-quartz") * (3, 3, 3))
    asked = ["analyze", file, "--no-frames", "--sq", tmp_path / "sq.csv", "--angles", tmp_path / "angles.csv"]
    outcome = alloop_main(*asked, "--rdf", tmp_path / "rdf.svg")
    assert outcome.code == 0, outcome.err
    s = np.genfromtxt(tmp_path / "sq.csv", delimiter=",", names=True)
    assert {"q_per_A", "neutron", "xray"} <= set(s.dtype.names)
    strongest = s["q_per_A"][np.argmax(s["xray"] * (s["q_per_A"] < 2.5))]
    assert strongest == pytest.approx(2 * np.pi / 3.343, abs=0.03)  # the 101 reflection, d = 3.343 Å
    angles = np.genfromtxt(tmp_path / "angles.csv", delimiter=",", names=True)
    assert angles["angle_deg"][np.argmax(angles["SiOSi"])] == pytest.approx(143.7, abs=1.0)
    assert "<svg" in (tmp_path / "rdf.svg").read_text()


def test_history_of_rings(alloop_main, cooling, tmp_path) -> None:
    asked = ["analyze", cooling, "--no-frames", "--frame-ps", 1]
    outcome = alloop_main(*asked, "--history", tmp_path / "rings.json")
    assert outcome.code == 0, outcome.err
    assert "1 at first, 0 at last; 0 formed and 1 broke" in outcome.out
    record = json.loads((tmp_path / "rings.json").read_text())
    assert record["counts"] == [1] * 5 + [0] * 5
    assert record["temperatures_K"][0] == 1000 and record["temperatures_K"][-1] == 550
    ramped = alloop_main(*asked, "--ramp-K", 2000, 300, "--history", tmp_path / "rings.json", "--json")
    assert json.loads(ramped.out)["ring_history"]["counts_by_temperature"]["temperature_K"][-1] == 2000
    assert alloop_main(*asked, "--history", tmp_path / "rings.png").code == 0
    assert (tmp_path / "rings.png").stat().st_size > 5000


def test_pieces_of_a_run_are_read_with_one_stride(alloop_main, cooling, tmp_path) -> None:
    images = read(cooling, ":")
    pieces = [tmp_path / "first.extxyz", tmp_path / "second.extxyz"]
    write(pieces[0], images[:5])
    write(pieces[1], images[5:])
    file = tmp_path / "rings.json"
    asked = ["analyze", *pieces, "--no-frames", "--frame-ps", 1, "--every", 2, "--history", file]
    assert alloop_main(*asked).code == 0
    assert json.loads(file.read_text())["temperatures_K"] == [1000.0, 900.0, 800.0, 700.0, 600.0]


def test_structures_of_events(alloop_main, cooling, tmp_path) -> None:
    asked = ["analyze", cooling, "--no-frames", "--frame-ps", 1, "--events", tmp_path / "events"]
    alone = alloop_main(*asked)
    assert alone.code == 2 and "give --history FILE, too" in alone.err
    asked += ["--history", tmp_path / "rings.json"]
    outcome = alloop_main(*asked)
    assert outcome.code == 0, outcome.err
    assert "1 structures before and after in" in " ".join(outcome.out.split())
    (file,) = (tmp_path / "events").iterdir()
    assert file.name == "ring-0000-decomposition-750K.extxyz"
    before, after = read(file, ":")
    assert (before.info["side"], after.info["side"]) == ("before", "after")
    assert list(before.arrays["atom_id"]) == [0, 2, 4, 1, 3, 5] and before.arrays["in_ring"].all()
    assert np.ptp(before.positions[:, 2]) < 1e-6 and np.ptp(after.positions[:, 2]) == pytest.approx(3.0)
    again = alloop_main(*asked)
    assert again.code == 2 and "give a new folder" in again.err


def test_many_frames_are_told_in_short(alloop_main, tmp_path) -> None:
    file = tmp_path / "many.extxyz"
    write(file, [crystal("B2O3-I") * (2, 2, 1)] * 25)
    shown = alloop_main("analyze", file)
    assert "5 more" in shown.out and "mean ± deviation" in shown.out and "many.extxyz 24" in shown.out
    assert "many.extxyz 12" not in shown.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--msd", "msd.png"], "give --frame-ps"),
        (["--msd", "msd.png", "--frame-ps", "1"], "too short"),
        (["--msd", "msd.png", "--frame-ps", "1", "--mobile", "Na", "--drop-ps", "0"], "there is no Na atom"),
        (["--history", "rings.json", "--frame-ps", "1"], "--ramp-K FROM TO"),
        (["--sq", "sq.png", "--isotope", "6Xx"], "6Xx"),
        (["--angles", "no/such/folder.csv"], "no/such/folder.csv"),
    ],
)
def test_what_cannot_be_done_is_said(alloop_main, tmp_path, options: list[str], message: str) -> None:
    file = tmp_path / "borate.extxyz"
    write(file, [Atoms("Li2B2O4", positions=np.arange(24).reshape(8, 3) / 3, cell=[9.0] * 3, pbc=True)] * 3)
    outcome = alloop_main("analyze", file.name, "-C", tmp_path, "--no-frames", *options)
    assert outcome.code == 2
    assert message in outcome.err
