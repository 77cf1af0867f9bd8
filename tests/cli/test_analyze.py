"""`alloop analyze` on built-in crystals: the JSON per frame, its options, and files that cannot be analysed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from alloop.frames import write_frames
from alloop.glass.crystals import crystal

KEYS = {
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
}


@pytest.fixture
def analyze(alloop_main):
    def call(*arguments) -> list[dict]:
        outcome = alloop_main("analyze", "--json", *arguments)
        assert outcome.code == 0, outcome.err
        return [json.loads(line) for line in outcome.out.splitlines()]

    return call


@pytest.fixture
def borate(tmp_path):
    """B2O3-I, all boron threefold, three frames of which the last is expanded by 2 %."""
    atoms = crystal("B2O3-I") * (2, 2, 2)
    wide = atoms.copy()
    wide.set_cell(wide.cell * 1.02, scale_atoms=True)
    path = tmp_path / "borate.extxyz"
    write(path, [atoms, atoms, wide])
    return path


@pytest.fixture
def quartz(tmp_path):
    path = tmp_path / "quartz.extxyz"
    write(path, crystal("alpha-quartz") * (3, 3, 3))
    return path


def test_one_object_per_frame_as_a_line(borate, analyze):
    frames = analyze(borate)
    assert len(frames) == 3
    first = frames[0]
    assert set(first) == KEYS
    n_boron = 6 * 8
    assert first["n_atoms"] == 15 * 8
    assert first["composition"] == {"B": n_boron, "O": 72}
    volume_cm3 = 4.3358**2 * np.sin(np.pi / 3) * 8.3397 * 1e-24  # three formula units in the hexagonal cell
    assert first["density_g_cm3"] == pytest.approx(3 * (2 * 10.81 + 3 * 15.999) / 6.02214076e23 / volume_cm3, rel=1e-4)
    assert first["cutoffs_A"] == {"B-O": 1.9, "Si-O": 2.0, "Li-O": 2.6}
    assert first["coordination"] == {"B": {"3": n_boron}}
    assert (first["fraction_4B"], first["fraction_5Si"]) == (0.0, None)
    assert first["oxygen_by_formers"] == {"0": 0, "1": 0, "2": 72, "3": 0}
    assert first["qn"] == {"B": {"3": n_boron}}
    assert first["boroxol"] == {"rings": 0, "fraction_B": 0.0}  # B2O3-I is built of chains, not of boroxol rings
    assert 1.3 < first["min_distance_A"]["B-O"] < 1.4
    assert frames[0] == frames[1]
    assert frames[2]["density_g_cm3"] == pytest.approx(first["density_g_cm3"] / 1.02**3, rel=1e-6)


def test_json_lines_in_a_process_of_its_own(quartz, alloop_process):
    shown = alloop_process("analyze", quartz.name, quartz.name, "-C", quartz.parent, "--json", "--formers", "Si")
    assert (shown.code, shown.err) == (0, "")
    frames = [json.loads(line) for line in shown.out.splitlines()]
    assert len(frames) == 2
    assert frames[0]["density_g_cm3"] == pytest.approx(2.646, abs=0.005)
    assert frames[0]["coordination"] == {"Si": {"4": 81}}
    assert frames[0]["fraction_5Si"] == 0.0
    # the smallest rings of quartz hold six silicon atoms
    assert min(map(int, frames[0]["rings"]["counts"])) == 6


def test_cutoffs_are_honoured(borate, analyze):
    nothing = analyze(borate, "--cutoff", "B-O=1.2")[0]
    assert nothing["coordination"] == {"B": {"0": 48}}
    assert nothing["cutoffs_A"]["B-O"] == 1.2
    assert nothing["oxygen_by_formers"]["0"] == 72
    swapped = analyze(borate, "--cutoff", "O-B=1.2", "--cutoff", "Al-O=2.1")[0]
    assert swapped["coordination"] == nothing["coordination"]
    assert swapped["cutoffs_A"] == {"B-O": 1.2, "Si-O": 2.0, "Li-O": 2.6, "Al-O": 2.1}


def test_cutoff_at_the_first_minimum_of_g(borate, analyze):
    frame = analyze(borate, "--cutoff", "O-B=min", "--every", "2")[0]
    assert 1.45 < frame["cutoffs_A"]["B-O"] < 2.4, "between the three neighbours and the next"
    assert frame["coordination"] == {"B": {"3": 48}}


def test_ring_options_are_honoured(quartz, borate, analyze):
    by_definition = {}
    for definition in ("guttman", "king", "primitive"):
        rings = analyze(quartz, "--formers", "Si", "--rings", definition, "--max-ring", "8")[0]["rings"]
        assert (rings["definition"], rings["formers"]) == (definition, ["Si"])
        by_definition[definition] = rings["counts"]
    assert by_definition["guttman"] != by_definition["primitive"]
    assert "8" in by_definition["king"]
    short = analyze(quartz, "--formers", "Si", "--rings", "king", "--max-ring", "6")[0]["rings"]["counts"]
    assert short == {"6": by_definition["king"]["6"]}
    assert analyze(quartz, "--formers", "Si", "--max-ring", "5")[0]["rings"]["counts"] == {}
    assert analyze(quartz, "--formers", "B, Si", "--max-ring", "6")[0]["rings"]["formers"] == ["B", "Si"]
    assert analyze(borate)[0]["rings"]["formers"] == ["B"]


def test_every_nth_frame(borate, analyze):
    assert analyze(borate, "--every", "2") == analyze(borate)[::2]


def test_cluster_without_cell(tmp_path, analyze):
    (tmp_path / "cluster.xyz").write_text("4\n\nB 0 0 0\nO 1.37 0 0\nO -0.685 1.186 0\nO -0.685 -1.186 0\n")
    frame = analyze(tmp_path / "cluster.xyz")[0]
    assert frame["density_g_cm3"] is None
    assert frame["coordination"] == {"B": {"3": 1}}


def test_table_names_the_frames_and_the_last_one(borate, quartz, alloop_main):
    shown = alloop_main("analyze", borate, quartz, "--formers", "B,Si")
    assert shown.code == 0
    for name in ("borate.extxyz 0", "borate.extxyz 2", "quartz.extxyz 0"):
        assert name in shown.out
    assert "Si by O neighbours: 4: 81" in shown.out
    assert "(quartz.extxyz 0; cutoffs in Å: B-O 1.9, Si-O 2, Li-O 2.6)" in shown.out


def test_table_of_one_frame_tells_qn_and_oxygen(tmp_path, alloop_main):
    """An O between one Si and two B; the four other O have one former each."""
    x = 1.6 / np.sqrt(3)
    positions = [(0, 0, 0), (x, x, x), (x, -x, -x), (-x, x, -x), (-x, -x, x)]  # SiO4
    positions += [(x + 1.4, x, x), (x, x + 1.4, x), (x + 1.4, x, x + 1.4)]  # two B on one O, a further O
    symbols = ["Si", *["O"] * 4, "B", "B", "O"]
    write(tmp_path / "cluster.xyz", Atoms(symbols, positions=positions))
    shown = alloop_main("analyze", tmp_path / "cluster.xyz")
    assert shown.code == 0, shown.err
    assert "Si by bridging O (Qn): Q1: 1" in shown.out
    assert "B by bridging O (Qn): Q1: 2" in shown.out
    assert "O by formers (0 free, 1 NBO, 2 BO, 3 tricluster): 0: 0, 1: 4, 2: 0, 3: 1" in shown.out
    (row,) = [line for line in shown.out.splitlines() if "cluster.xyz 0 │" in line]
    assert [cell.strip() for cell in row.split("│")[4:8]] == ["0.000", "0.000", "0.800", "0.200"]  # 4B, 5Si, NBO, tri


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cutoff", "B-O"], "--cutoff 'B-O': this is no pair and distance; write it in Å, such as --cutoff B-O=1.9"),
        (["--cutoff", "B-O=1,9"], "--cutoff 'B-O=1,9': this is no pair and distance"),
        (["--cutoff", "Si-O=min"], "--cutoff 'Si-O=min': the frames hold no Si-O pair; they hold B-B, B-O, O-O"),
        (["--types", "B,Qq"], "--types B,Qq: 'Qq' is no element"),
        (["--cutoff", "BO=1.9"], "'BO' is not a pair of elements"),
        (["--cutoff", "B-Qq=1.9"], "'B-Qq' is not a pair of elements"),
        (["--cutoff", "B-O=-1"], "the cutoff of B-O is -1.0; it must be a positive length"),
        (["--cutoff", "B-O=nan"], "it must be a positive length"),
        (["--cutoff", "B-O=inf"], "it must be a positive length"),
        (["--formers", "B,Qq"], "ring formers are ('B', 'Qq'); give distinct elements"),
        (["--formers", ""], "give distinct elements"),
        (["--formers", "Al"], "--formers Al: no Al-O cutoff is known; give one, such as --cutoff Al-O=2.0"),
        (["--rings", "franzblau"], "'franzblau' is not a ring definition; use one of"),
        (["--max-ring", "1"], "--max-ring"),
    ],
)
def test_bad_options(arguments, words, borate, alloop_main):
    outcome = alloop_main("analyze", borate, *arguments)
    assert outcome.code == 2
    assert words in " ".join(outcome.err.replace("│", " ").split())
    assert not outcome.out
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a file"),
        (b"", "is empty"),
        (b"\x00\x01\x02 no trajectory", "cannot be read"),
        ("cut", "cannot be read"),
        ("nan", "not finite"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_unreadable_trajectory(content, words, as_json, tmp_path, alloop_main):
    path = tmp_path / "run.extxyz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        atoms = crystal("Li2O")
        if content == "nan":
            atoms.positions[2] = np.nan
        write(path, [crystal("Li2O"), atoms])
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-40])
    outcome = alloop_main("analyze", path, *(["--json"] if as_json else []))
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("alloop: ")
    assert outcome.err.count("alloop: ") == 1
    assert f"{path}" in outcome.err
    assert words in outcome.err


def test_frames_of_a_tasks_result(tmp_path, alloop_main):
    frames = [crystal("B2O3-I"), crystal("Li2Si2O5"), crystal("B2O3-I")]
    (tmp_path / "result").mkdir()
    write_frames(tmp_path / "result" / "frames.npz", frames, target_temperature_K=np.array([900.0, 600.0, 300.0]))
    for path in (tmp_path, tmp_path / "result", tmp_path / "result" / "frames.npz"):
        outcome = alloop_main("analyze", path, "--json", "--every", "2")
        assert [json.loads(line)["composition"] for line in outcome.out.splitlines()] == [{"B": 6, "O": 9}] * 2
    write_frames(
        tmp_path / "result" / "frames.npz", [frames[0]] * 3, target_temperature_K=np.array([900.0, 600.0, 300.0])
    )
    told = ["--no-frames", "--frame-ps", "1", "--history", tmp_path / "rings.json"]
    assert alloop_main("analyze", tmp_path, *told).code == 0, "the frames carry their temperatures"
    assert json.loads((tmp_path / "rings.json").read_text())


@pytest.mark.parametrize(("name", "words"), [("table.npz", "is no frames.npz"), ("frames.npz", "cannot be read")])
def test_what_is_no_frames_of_a_task(name, words, tmp_path, alloop_main):
    np.savez(tmp_path / name, step=np.arange(3))
    outcome = alloop_main("analyze", tmp_path / name)
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err


def test_a_result_without_frames(tmp_path, alloop_main):
    write_frames(tmp_path / "frames.npz", [])
    outcome = alloop_main("analyze", tmp_path)
    assert outcome.code == 2 and "holds no frame" in outcome.err
