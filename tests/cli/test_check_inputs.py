"""What `alloop check` shows of labels to come: level of theory, and whole inputs of one structure per glass."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from vasp_double import make_potcar_library

from alloop import config
from alloop.campaign import Campaign
from alloop.frames import write_frames
from alloop.glass.composition import TABLE_1
from alloop.labelers.code import RunSettings
from alloop.labelers.levels import target_level
from alloop.remarks import remarks
from alloop.report.inputs import inputs_of
from alloop.report.outlook import EDITED
from alloop.report.status import config_changes
from alloop.store import begin_attempt, publish

GLASSES = [{"name": "LBS-20-60-20", "n_atoms": [105, 63]}, {"name": "LBS-15-25-60", "n_atoms": [70]}]
SECTION: dict[str, Any] = {
    "labeler": "vasp",
    "vasp": {
        "potcar_library": "potcars",
        "potcars": {"Li": "Li_sv"},
        "kpoint_spacing_inv_A": 0.7,
        "incar_by_glass": {"LBS-15-25-60": {"NELM": 300}},
        "incar_by_event": {"overlap": {"ISYM": 0}},
    },
    "run": {"command": "srun vasp_std", "command_gamma": "srun vasp_gam", "modules": ["vasp/6.4"]},
}


@pytest.fixture
def vasp_folder(campaign) -> Path:
    folder = campaign(glasses=GLASSES, label=SECTION)
    make_potcar_library(folder / "potcars")
    return folder


def shown(alloop_main, folder: Path) -> dict[str, Any]:
    outcome = alloop_main("check", "-C", folder, "--json")
    assert outcome.code == 0, outcome.text
    return json.loads(outcome.out)


def test_level_is_named_as_labelled_data_must_name_it(vasp_folder, alloop_main):
    found = shown(alloop_main, vasp_folder)
    param = config.load(vasp_folder / "param.json")
    assert found["level"] == target_level(param.label, param.elements, vasp_folder).to_json()
    assert found["foundation"] is None
    assert f"level of theory: {found['level']['name']} " in alloop_main("check", "-C", vasp_folder).out


def test_level_of_calculators_and_foundation(campaign, alloop_main):
    options = {"labeler": "ase.calculators.lj:LennardJones", "options": {"rc": 5.0}}
    folder = campaign(label=options | {"foundation": {"labeler": "teter-rehearsal"}})
    found = shown(alloop_main, folder)
    assert found["level"]["name"].startswith("ase.calculators.lj:LennardJones-")
    assert found["foundation"]["name"] == "teter-rehearsal"
    assert found["inputs"] == []
    text = alloop_main("check", "-C", folder).out
    assert "options.rc = 5.0" in text
    assert "to begin with (label.foundation): teter-rehearsal" in text


def test_inputs_of_every_glass(vasp_folder, alloop_main):
    first, second = shown(alloop_main, vasp_folder)["inputs"]
    assert [first["glass"], second["glass"]] == ["LBS-20-60-20", "LBS-15-25-60"]
    assert (first["n_atoms"], first["kpoints"], first["gamma"]) == (105, [1, 1, 1], True)
    assert (second["n_atoms"], second["kpoints"], second["gamma"]) == (70, [2, 2, 2], False)
    assert dict(map(tuple, first["species"])) == {"Li": 10, "B": 30, "O": 60, "Si": 5}
    assert (first["command"], second["command"]) == ("srun vasp_gam", "srun vasp_std")
    assert "\nmodule load vasp/6.4\n" in first["files"]["run.sh"]
    assert first["files"]["run.sh"].endswith("exec srun vasp_gam\n")
    assert "NELM     = 120\n" in first["files"]["INCAR"]
    assert "NELM     = 300\n" in second["files"]["INCAR"]
    for entry in (first, second):
        head = entry["files"]["POSCAR"].splitlines()
        assert head[5].split() == [symbol for symbol, _ in entry["species"]]
        assert head[6].split() == [str(count) for _, count in entry["species"]]
        assert entry["structure"] == "random atoms"
        assert [potential["element"] for potential in entry["potentials"]] == head[5].split()
        assert "POTCAR" not in entry["files"]


def test_potentials_are_told_apart(vasp_folder, alloop_main):
    potentials = {entry["element"]: entry for entry in shown(alloop_main, vasp_folder)["inputs"][0]["potentials"]}
    lithium, file = potentials["Li"], vasp_folder / "potcars" / "Li_sv" / "POTCAR"
    assert lithium["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    del lithium["sha256"], lithium["path"]
    assert lithium == {
        "element": "Li",
        "data_set": "Li_sv",
        "titel": "PAW_PBE Li_sv 10Sep2004",
        "functional": "PE",
        "enmax_eV": 499.034,
        "zval": 3.0,
    }


def test_text_shows_what_an_expert_looks_for(vasp_folder, alloop_main):
    text = alloop_main("check", "-C", vasp_folder).out
    for words in (
        "PAW_PBE Li_sv 10Sep2004",
        "499.034",
        "ENCUT = 600",
        "k-points: Gamma-centred meshes, at most 0.7 per Å apart",
        "2 2 2",
        "INCAR of LBS-20-60-20:",
        "INCAR of LBS-15-25-60:",
        "INCAR of overlap has besides: ISYM = 0",
        "script of LBS-15-25-60:",
        "exec srun vasp_gam",
        "no problem found",
    ):
        assert words in text


def test_hint_at_vasp_gam(campaign, alloop_main):
    run = {"command": "srun vasp_std", "modules": ["vasp"]}
    folder = campaign(label={"labeler": "vasp", "vasp": SECTION["vasp"] | {"incar_by_glass": {}}, "run": run})
    make_potcar_library(folder / "potcars")
    assert "hint:" not in alloop_main("check", "-C", folder).out, "its only glass has a mesh"
    folder = campaign(
        label={"labeler": "vasp", "vasp": {"potcar_library": "potcars", "potcars": {"Li": "Li_sv"}}, "run": run}
    )
    assert "hint: for the Gamma point only, vasp_gam takes half the time" in alloop_main("check", "-C", folder).out


def test_inputs_are_written_without_potentials(vasp_folder, alloop_main, tmp_path):
    target = tmp_path / "shown" / "inputs"
    assert alloop_main("check", "-C", vasp_folder, "--inputs", target).code == 0
    assert {path.name for path in target.iterdir()} == {"LBS-20-60-20", "LBS-15-25-60", "level.json"}
    place = target / "LBS-20-60-20"
    assert {path.name for path in place.iterdir()} == {"INCAR", "KPOINTS", "POSCAR", "POTCAR.spec", "run.sh"}
    atoms = read(place / "POSCAR")
    assert atoms.get_chemical_formula() == "B30Li10O60Si5"
    glass = TABLE_1["LBS-20-60-20"]
    assert atoms.get_masses().sum() / atoms.get_volume() * 1.66053907 == pytest.approx(glass.density_g_cm3, rel=1e-4)
    spec = [line.split("\t") for line in (place / "POTCAR.spec").read_text().splitlines()[1:]]
    assert {name for name, _, _ in spec} == {"Li_sv", "B", "O", "Si"}
    assert all(len(sha256) == 64 for _, _, sha256 in spec)
    written = "".join(path.read_text() for path in target.rglob("*") if path.is_file())
    assert "End of Dataset" not in written
    assert "local part" not in written


def test_calculators_have_no_inputs_to_write(campaign, alloop_main, tmp_path):
    outcome = alloop_main("check", "-C", campaign(), "--inputs", tmp_path / "inputs")
    assert outcome.code == 2
    assert "no inputs to write: teter-rehearsal is a calculator" in outcome.err
    assert not (tmp_path / "inputs").exists()


def test_problems_of_labels_come_before_their_inputs(vasp_folder, alloop_main, tmp_path):
    (vasp_folder / "potcars" / "O" / "POTCAR").unlink()
    outcome = alloop_main("check", "-C", vasp_folder, "--json", "--inputs", tmp_path / "inputs")
    assert outcome.code == 2
    found = json.loads(outcome.out)
    assert [problem["where"] for problem in found["problems"]] == ["param.json: label.vasp.potcars.O"]
    assert (found["level"], found["inputs"]) == (None, [])
    assert not (tmp_path / "inputs").exists()


def test_problems_elsewhere_do_not_hide_the_level(vasp_folder, campaign, alloop_main):
    data = [{"path": "set", "level": "what is it called?"}]
    folder = campaign(glasses=GLASSES, label=SECTION, bootstrap={"data": data})
    outcome = alloop_main("check", "-C", folder, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 2
    assert found["level"]["name"].startswith("vasp-")
    assert len(found["inputs"]) == 2


def test_a_finished_bootstrap_run_gives_the_example(vasp_folder, alloop_main):
    """The last frame of the quench is shown, not a strained copy of one, and not a crystal."""
    own, param = Campaign(vasp_folder), config.load(vasp_folder / "param.json")
    own.take(param, take_over=False, limit={"max_iterations": 1, "slots": 1})
    from alloop.decisions.seeding import decide_bootstrap

    own.decide("bootstrap", iteration=-1, **decide_bootstrap(own, param, -1))
    key = next(key for key, task in own.state.tasks.items() if task.name == "LBS-20-60-20.n105.t01")
    attempt = begin_attempt(own.prepare(key))
    frames = [Atoms("Li2BO2Si", positions=np.eye(6, 3) * (2 + n), cell=[9.0 + n] * 3, pbc=True) for n in range(3)]
    write_frames(attempt.out / "frames.npz", frames, strained=np.array([False, False, True]))
    assert publish(attempt, key, {"seconds": 1.0, "threads": 1})
    own.release()
    first, second = shown(alloop_main, vasp_folder)["inputs"]
    assert first["structure"] == "bootstrap run LBS-20-60-20.n105.t01, frame 1"
    assert (first["n_atoms"], first["cell"][0]) == (6, 10.0)
    assert second["structure"] == "random atoms"


def cp2k_data(folder: Path) -> Path:
    """Write data files of CP2K with made-up numbers for the four elements."""
    folder.mkdir(parents=True, exist_ok=True)
    valence = {"Li": 3, "B": 3, "O": 6, "Si": 4}
    basis = "{0} DZVP-MOLOPT-SR-GTH DZVP-MOLOPT-SR-GTH-q{1}\n 1\n 2 0 0 1 1\n  0.5 1.0\n"
    potential = "{0} GTH-PBE-q{1} GTH-PBE\n {1}\n 0.4 0\n 0\n"
    for name, entry in (("BASIS_MOLOPT", basis), ("GTH_POTENTIALS", potential)):
        (folder / name).write_text("".join(entry.format(*item) for item in valence.items()))
    return folder


def test_cp2k_shows_level_and_input(campaign, alloop_main, tmp_path):
    run = {"command": "mpirun cp2k.psmp -i label.inp", "modules": ["cp2k"]}
    data_dir = cp2k_data(tmp_path / "data")
    folder = campaign(label={"labeler": "cp2k", "cp2k": {"data_dir": str(data_dir)}, "run": run})
    found = shown(alloop_main, folder)
    assert found["level"]["name"].startswith("cp2k-")
    (entry,) = found["inputs"]
    assert set(entry["files"]) == {"label.inp", "run.sh"}
    assert (entry["kpoints"], entry["potentials"]) == (None, [])
    text = alloop_main("check", "-C", folder).out
    assert "cp2k.kinds.Li.basis = DZVP-MOLOPT-SR-GTH-q3" in text
    assert "label.inp of LBS-20-60-20:" in text
    assert text.count("\n  B ") <= 3, "most atoms are left out"


def test_cp2k_command_must_name_the_input(campaign, alloop_main, tmp_path):
    run = {"command": "mpirun cp2k.psmp", "modules": ["cp2k"]}
    label = {"labeler": "cp2k", "cp2k": {"data_dir": str(cp2k_data(tmp_path / "data"))}, "run": run}
    outcome = alloop_main("check", "-C", campaign(label=label), "--json")
    (problem,) = json.loads(outcome.out)["problems"]
    assert problem["where"] == "param.json: label.run.command"
    assert "does not name label.inp" in problem["found"]
    assert problem["remedy"] == "end it with -i label.inp"


class Stub:
    """A code of no importance that puts data sets beside its input."""

    name, log, kept, dropped = "stub", "stub.out", ("stub.inp", "stub.out"), ("*.wfn",)

    def write(self, folder: Path, atoms: Atoms, correction: Any) -> Atoms:
        (folder / "stub.inp").write_text("".join(f"{symbol} 0.0 0.0 0.0\n" for symbol in atoms.symbols))
        (folder / "DATA").write_text("potentials")
        return atoms

    def command(self, folder: Path) -> str:
        return "default"


def test_any_code_shows_its_inputs_but_no_potentials():
    settings = RunSettings({"default": "stub.x"}, "@COMMAND@")
    found = inputs_of(Stub(), settings, Atoms("BO2", cell=[5, 5, 5]), "glass", "somewhere", [])  # type: ignore[arg-type]
    assert set(found.files) == {"stub.inp", "run.sh"}
    assert (found.kpoints, found.gamma, found.command) == (None, False, "stub.x")
    assert found.species == [("B", 1), ("O", 2)]


@pytest.mark.parametrize("audit", [4, None], ids=["too few", "by the rule"])
def test_check_remarks_an_audit_too_short_to_calibrate(campaign, alloop_main, audit):
    folder = campaign(select={"audit": audit}, stop={"max_iterations": 2})
    outcome = alloop_main("check", "-C", folder)
    assert outcome.code == 0, "it runs all the same"
    remarked = json.loads(alloop_main("check", "-C", folder, "--json").out)["remarks"]
    assert len(remarked) == (audit is not None) == ("! param.json: select.audit" in outcome.out)
    if audit is not None:
        assert f"in each of at most 2 iteration(s) are {2 * audit}; the map" in remarked[0]["found"]
        assert remarked[0]["remedy"].startswith("set it to 5 or more")
    assert not json.loads(
        alloop_main("check", "-C", campaign(select={"audit": audit, "trust": "fixed"}), "--json").out
    )["remarks"]


def test_check_remarks_an_audit_too_short_for_its_criterion(campaign, alloop_main):
    def remarked(audit: int) -> list[str]:
        explore, stop = (
            {"temperatures_K": [300, 1000, 2000], "ramps": []},
            {"max_iterations": 4, "audit_force_rmse_eV_A": 0.3},
        )
        folder = campaign(select={"audit": audit}, explore=explore, stop=stop)
        return [own["found"] for own in json.loads(alloop_main("check", "-C", folder, "--json").out)["remarks"]]

    assert remarked(4) == []
    (found,) = remarked(3)
    assert "are 12; stop.audit_force_rmse_eV_A wants 5 in each of 3 glasses and temperature bands" in found


@pytest.mark.parametrize("trust", ["calibrated", "fixed"])
def test_check_and_status_say_that_levels_where_calibrated_ones_began_are_past(campaign, alloop_main, trust):
    folder = campaign(select={"trust": trust})
    own = Campaign(folder)
    own.take(config.load(folder / "param.json"), take_over=False, limit={"max_iterations": 1, "slots": 1})
    own.decide("explore", iteration=0, inputs=[], common={}, tasks=[], trajectories={}, trust=[], withdrawn=[])
    own.release()

    def remarked() -> list[str]:
        told = alloop_main("check", "-C", folder, "--json")
        assert told.code == 0
        return [f"{own['where']}: {own['found']}" for own in json.loads(told.out)["remarks"]]

    assert remarked() == []
    campaign(select={"trust": trust, "trust_low_eV_A": 0.2})
    assert [text for text in remarked() if "no effect" in text] == (
        [f"param.json: select.trust_low_eV_A: changed from 0.25 to 0.2 eV/A: {EDITED}"] if trust == "calibrated" else []
    )
    own = Campaign(folder)
    own.take(config.load(folder / "param.json"), take_over=False, limit={"max_iterations": 1, "slots": 1})
    (change,) = config_changes(own.state)
    assert change == "select.trust_low_eV_A: 0.25 -> 0.2" + (f" ({EDITED})" if trust == "calibrated" else "")
    own.release()


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        (
            {"bootstrap": {"force_fields": ["teter", "bmp-shrm"]}},
            ["bootstrap.force_fields[1]"],
            ("0.19 eV/atom/ps at 2000 K", "take teter or shik where what is cold counts"),
        ),
        (
            {"quench": {"protocol": "urata2022", "n_atoms": [300], "force_field": "bmp-shrm"}},
            ["quench.force_field"],
            ("boron has 410 K and lithium 150 K", "keep it for melts"),
        ),
        ({"quench": {"protocol": "short", "force_field": "bmp-shrm"}}, [], ()),
        (
            {"quench": {"protocol": "urata2022"}},
            ["quench.n_atoms"],
            ("own cells of 63 atoms; the paper has about 300", 'write "n_atoms": [300, 1000]'),
        ),
        ({"quench": {"protocol": "urata2022", "n_atoms": [300, 1000]}}, [], ()),
        ({"quench": {"protocol": "short"}}, [], ()),
        (
            {"bootstrap": {"held_out_fraction": 0}},
            ["bootstrap.held_out_fraction"],
            ("so the campaign never converges",),
        ),
        (
            {"stop": {"max_iterations": 2, "probe": {}}},
            ["stop.probe"],
            ("glasses of 3 ensembles, and stop.max_iterations is 2",),
        ),
        ({"stop": {"max_iterations": 3, "probe": {}}}, [], ()),
        (
            {"explore": {"timestep_fs": 4.0}, "quench": {"protocol": "short", "timestep_fs": 2.0}},
            ["explore.timestep_fs"],
            ("is 4 fs; a bond between boron and oxygen stretches once in about 24 fs", "take 2 fs or less"),
        ),
        (
            {"label": {"labeler": "teter-rehearsal", "run": {"command": "srun vasp_std"}}},
            ["label.run"],
            ("labeler teter-rehearsal runs in a process of alloop's own", "waits for another label.labeler"),
        ),
    ],
)
def test_remarks_of_check_and_plan(campaign, alloop_main, changes, where, words):
    folder = campaign(select={"trust": "fixed"}, **changes)
    found = json.loads(alloop_main("check", "-C", folder, "--json").out)["remarks"]
    assert found == json.loads(alloop_main("plan", "-C", folder, "--json").out)["remarks"]
    assert [remark["where"] for remark in found] == [f"param.json: {key}" for key in where]
    for command in ("check", "plan"):
        outcome = alloop_main(command, "-C", folder)
        text = " ".join(outcome.out.split())
        assert outcome.code == 0 and text.count("! param.json: ") == len(where)
        assert all(word in text for word in words)


@pytest.mark.parametrize(("timeout", "told"), [(None, 0), (600, 0), (601, 1)], ids=["not given", "as long", "longer"])
def test_a_timeout_of_labels_beyond_the_walltime_of_their_jobs_is_remarked(campaign, timeout, told):
    run = SECTION["run"] | ({"timeout_minutes": timeout} if timeout else {})
    pools = {"cluster": {"type": "slurm", "tasks": ["label"], "walltime_minutes": 600}}
    folder = campaign(select={"trust": "fixed"}, label=SECTION | {"run": run}, pools=pools)
    own = Campaign(folder)
    own.load()
    found = [one for one in remarks(own, config.load(folder / "param.json")) if "timeout" in one.where]
    assert len(found) == told
    assert all(one.found == "is 601, and the jobs that label end after 600" for one in found)
    campaign(select={"trust": "fixed"}, label={"labeler": "teter-rehearsal", "run": run}, pools=pools)
    found = remarks(own, config.load(folder / "param.json"))
    assert [one.where for one in found] == ["param.json: label.run"], (
        "where nothing reads it, that is all there is to say"
    )
