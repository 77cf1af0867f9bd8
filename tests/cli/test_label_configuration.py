"""Everything wrong with how vasp is to label is told in one report, before a single label is paid for."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from ase.io import write
from vasp_double import double_command, make_potcar_library

from alloop.glass.crystals import crystal

TITLES = {
    "Li_sv": "PAW_PBE Li_sv 10Sep2004",
    "B": "PAW_PBE B 06Sep2000",
    "O": "PAW_PBE O 08Apr2002",
    "Si": "PAW_PBE Si 05Jan2001",
    "O_lda": "PAW O_lda 22Mar2012",
}
INCAR = "ENCUT = 600\nGGA = PE\nEDIFF = 1E-5\nALGO = Fast\nNELM = 120\nNCORE = 4\n"


@pytest.fixture
def vasp_campaign(campaign, monkeypatch):
    """Make a campaign that labels by the double, with an INCAR, a script and changes to its label section."""
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)

    def make(
        incar: str = INCAR,
        script: str | None = None,
        vasp: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        label: dict[str, Any] | None = None,
        **sections: Any,
    ) -> Path:
        section: dict[str, Any] = {"labeler": "vasp"} | (label or {})
        section["vasp"] = {"potcar_library": "potcars", "potcars": {"Li": "Li_sv"}} | (vasp or {})
        section["run"] = {"command": double_command()} | (run or {})
        folder = campaign(label=section, **sections)
        make_potcar_library(folder / "potcars", TITLES)
        (folder / "templates" / "vasp").mkdir(parents=True, exist_ok=True)
        (folder / "templates" / "vasp" / "INCAR").write_text(incar)
        if script is not None:
            (folder / "templates" / "run.sh").write_text(script)
        return folder

    return make


def problems(outcome: Any) -> list[dict[str, str]]:
    found = json.loads(outcome.out)["problems"]
    assert outcome.code == (2 if found else 0)
    return found


def only_problem(outcome: Any) -> dict[str, str]:
    found = problems(outcome)
    assert len(found) == 1, found
    return found[0]


# ---------------------------------------------------------------------------------------- all at once

WRONG_INCAR = """
ENCUT = 300
ENCTU = 600
GGA = PE
EDIFF = 1E-3
ALGO = Exact
NELM = many
NCORE = 4 ; NPAR = 8
KSPACING = 0.3
NSW = 10
MAGMOM = 100*0.6
"""
WRONG_LABEL = {
    "foundation": {"labeler": "orb_of_nowhere.calc:Orb"},
    "cp2k": {},
    "per_proces": 1,
}
WRONG_VASP = {
    "potcars": {"Li": "Li_pv", "O": "O_lda", "Si": "B", "Na": "Na_pv"},
    "kpoint_spacing_inv_A": 0.3,
    "incar_by_glass": {"LBS-20-60-21": {"NELM": 200}, "LBS-20-60-20": {"PREC": "Low"}},
    "incar_by_event": {"overlaps": {"NELM": 200}, "overlap": {"ALGO": "GW0"}},
}
WRONG_RUN = {
    "command": "srun 'vasp_gam",
    "command_gamma": "OMP_NUM_THREADS=4 srun vasp_gam",
    "modules": ["<module of VASP>"],
    "environment": {"2BIG": "1"},
    "scratch": "$NOT_SET_ANYWHERE/labels",
}
PLANTED: list[tuple[str, str]] = [
    ("param.json: train.modells", "did you mean 'models'?"),
    ("param.json: label.per_proces", "did you mean 'per_process'?"),
    ("param.json: bootstrap.structures[0]", "gone.cif"),
    ("param.json: label.foundation.labeler", "'orb_of_nowhere', which is not installed"),
    ("param.json: label.cp2k", "labeler is 'vasp'"),
    ("templates/vasp/INCAR", "holds ENCTU, which VASP does not know"),
    ("templates/vasp/INCAR", "EDIFF = 1E-3"),
    ("templates/vasp/INCAR", "ALGO = Exact computes something else than the ground state"),
    ("templates/vasp/INCAR", "NELM = many, which is no number"),
    ("templates/vasp/INCAR", "NCORE and NPAR"),
    ("templates/vasp/INCAR", "KSPACING: the rule for k-points is label.vasp.kpoint_spacing_inv_A"),
    ("templates/vasp/INCAR", "NSW = 10"),
    ("templates/vasp/INCAR", "MAGMOM"),
    ("param.json: label.vasp.potcars.Li", "potcars/Li_pv/POTCAR"),
    ("param.json: label.vasp.potcars.B", "asks for at least 318.614 eV, ENCUT is 300"),
    ("param.json: label.vasp.potcars.O", "was made with functional CA, INCAR says GGA = PE"),
    ("param.json: label.vasp.potcars.Si", "is for B (PAW_PBE B 06Sep2000), not Si"),
    ("param.json: label.vasp.potcars.Si", "asks for at least 318.614 eV"),
    ("param.json: label.vasp.potcars.Na", "is no element of this campaign (Li, B, O, Si)"),
    ("param.json: label.vasp.incar_by_glass.LBS-20-60-21", "this campaign has no glass 'LBS-20-60-21'"),
    ("param.json: label.vasp.incar_by_glass.LBS-20-60-20", "PREC decides the level of theory"),
    ("param.json: label.vasp.incar_by_event.overlaps", "this campaign has no reason of selection 'overlaps'"),
    ("param.json: label.vasp.incar_by_event.overlap", "ALGO = GW0 computes something else"),
    ("param.json: label.run.command", "No closing quotation"),
    ("param.json: label.run.command", "vasp_gam knows the Gamma point only"),
    ("param.json: label.run.command_gamma", "begins with the assignment 'OMP_NUM_THREADS=4'"),
    ("param.json: label.run.modules[0]", "is still '<module of VASP>'"),
    ("param.json: label.run.environment", "'2BIG' is no name"),
    ("param.json: label.run.scratch", "names a variable that is not set here"),
    ("templates/run.sh", "lacks @COMMAND@"),
    ("templates/run.sh", "lacks @MODULES@"),
    ("templates/run.sh", "lacks @ENVIRONMENT@"),
]


def test_every_planted_fault_is_in_one_report_in_time(vasp_campaign, alloop_process):
    folder = vasp_campaign(
        incar=WRONG_INCAR,
        script="#!/bin/bash\nsrun vasp_std\n",
        vasp=WRONG_VASP,
        run=WRONG_RUN,
        label=WRONG_LABEL,
        train={"modells": 4},
        bootstrap={"structures": ["gone.cif"]},
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = problems(alloop_process("check", "-C", folder, "--json"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5.0
    left = list(found)
    for where, words in PLANTED:
        matches = [problem for problem in left if problem["where"] == where and words in problem["found"]]
        assert matches, f"{where}: {words}"
        left.remove(matches[0])
    assert left == [], "found, but not planted"
    assert len(PLANTED) > 20
    assert all(problem["remedy"] for problem in found)


def test_remedies_name_what_was_meant(vasp_campaign, alloop_main):
    folder = vasp_campaign(incar=WRONG_INCAR, vasp=WRONG_VASP)
    remedies = {
        (problem["where"], problem["remedy"]) for problem in problems(alloop_main("check", "-C", folder, "--json"))
    }
    for where, remedy in (
        ("templates/vasp/INCAR", "did you mean ENCUT?"),
        ("param.json: label.vasp.incar_by_glass.LBS-20-60-21", "did you mean LBS-20-60-20?"),
        ("param.json: label.vasp.incar_by_event.overlaps", "did you mean overlap?"),
        ("param.json: label.vasp.potcars.Li", "name a data set of the library, such as Li_sv for Li"),
    ):
        assert (where, remedy) in remedies


# ---------------------------------------------------------------------------------------- one at a time


def test_a_sound_campaign_has_no_problem(vasp_campaign, alloop_main, tmp_path):
    folder = vasp_campaign(
        vasp={
            "incar_by_glass": {"LBS-20-60-20": {"NELM": 200, "NCORE": 8}},
            "incar_by_event": {"overlap": {"ISYM": 0}},
        },
        run={
            "command_gamma": double_command("5.4.4"),
            "scratch": str(tmp_path / "scratch"),
            "environment": {"A_1": "x"},
        },
    )
    outcome = alloop_main("check", "-C", folder)
    assert outcome.code == 0, outcome.text
    assert "no problem found" in outcome.out


@pytest.mark.parametrize(
    ("library", "words"), [("nowhere", "nowhere is no folder"), ("<library>", "is still '<library>'")]
)
def test_potcar_library_that_is_none_is_told_once(library, words, vasp_campaign, alloop_main):
    problem = only_problem(alloop_main("check", "-C", vasp_campaign(vasp={"potcar_library": library}), "--json"))
    assert problem["where"] == "param.json: label.vasp.potcar_library"
    assert words in problem["found"]
    assert "potpaw_PBE" in problem["remedy"]


def test_library_without_the_elements(vasp_campaign, alloop_main):
    folder = vasp_campaign(vasp={"potcar_library": "empty"})
    (folder / "empty").mkdir()
    found = problems(alloop_main("check", "-C", folder, "--json"))
    assert [problem["where"].rpartition(".")[2] for problem in found] == ["Li", "B", "O", "Si"]


def test_mixed_functionals_without_gga(vasp_campaign, alloop_main):
    folder = vasp_campaign(incar="ENCUT = 600\n", vasp={"potcars": {"Li": "Li_sv", "O": "O_lda"}})
    problem = only_problem(alloop_main("check", "-C", folder, "--json"))
    assert problem["where"] == "param.json: label.vasp.potcars"
    assert "Li with PE, B with PE, O with CA, Si with PE" in problem["found"]


@pytest.mark.parametrize(
    ("incar", "words"),
    [
        (INCAR.replace("GGA = PE", "GGA = PBE"), "GGA = PBE; VASP knows functionals by two letters"),
        (INCAR.replace("ENCUT = 600", "ENCUT = high"), "ENCUT = high, which is no number"),
        (INCAR.replace("ENCUT = 600\n", ""), "holds no ENCUT"),
        ("", "holds no ENCUT"),
        ("ENCUT 600\n", "is no TAG = value"),
        (INCAR + "NBANDS = 200\n", "NBANDS: it depends on the number of atoms"),
        (INCAR + "ICHARG = 11\n", "ICHARG = 11 computes something else"),
    ],
)
def test_wrong_incar(incar, words, vasp_campaign, alloop_main):
    problem = only_problem(alloop_main("check", "-C", vasp_campaign(incar=incar), "--json"))
    assert problem["where"] == "templates/vasp/INCAR"
    assert words in problem["found"]


@pytest.mark.parametrize(
    "tag", ["EDIFFG = -0.01", "METAGGA = R2SCAN", "AGGAC = 0", "LVEL = T", "NEDOS = 301", "EMIN = 0"]
)
def test_tags_that_vasp_knows_are_no_slips(tag, vasp_campaign, alloop_main):
    assert problems(alloop_main("check", "-C", vasp_campaign(incar=f"{INCAR}{tag}\n"), "--json")) == []


def test_ncore_in_the_incar_and_npar_for_an_event(vasp_campaign, alloop_main):
    folder = vasp_campaign(vasp={"incar_by_event": {"audit": {"NPAR": 4}}})
    problem = only_problem(alloop_main("check", "-C", folder, "--json"))
    assert problem["where"] == "param.json: label.vasp.incar_by_event.audit"
    assert "NCORE and NPAR" in problem["found"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no_such_program_here vasp_std", "program 'no_such_program_here' is not found on the system's PATH"),
        ("/nowhere/bin/vasp_std", "program '/nowhere/bin/vasp_std' does not exist"),
        ("bin/vasp_std", "is looked for in the private folder of each run"),
        ("", "is empty"),
        ("<command>", "is still '<command>'"),
    ],
)
def test_command_that_cannot_run(command, words, vasp_campaign, alloop_main):
    problem = only_problem(alloop_main("check", "-C", vasp_campaign(run={"command": command}), "--json"))
    assert problem["where"] == "param.json: label.run.command"
    assert words in problem["found"]


def test_command_that_may_not_be_executed(vasp_campaign, alloop_main, tmp_path):
    program = tmp_path / "vasp_std"
    program.write_text("#!/bin/bash\n")
    program.chmod(0o644)
    folder = vasp_campaign(run={"command": str(program)})
    assert "may not be executed" in only_problem(alloop_main("check", "-C", folder, "--json"))["found"]


@pytest.mark.parametrize(
    ("command", "run", "script"),
    [
        ("no_such_program_here vasp_std", {"modules": ["vasp/6"]}, None),
        ("/nowhere/bin/vasp_std", {}, "module load vasp\nexec @COMMAND@\n"),
        ("$VASP_BIN/vasp_std", {}, None),
        ("bash -c true", {}, None),
    ],
)
def test_nothing_is_said_of_a_command_that_only_the_run_knows(command, run, script, vasp_campaign, alloop_main):
    folder = vasp_campaign(run=run | {"command": command}, script=script and f"{script}@MODULES@\n@ENVIRONMENT@\n")
    assert problems(alloop_main("check", "-C", folder, "--json")) == []


@pytest.mark.parametrize(
    ("scratch", "words"),
    [
        ("$NOT_SET_ANYWHERE", "not set here"),
        ("tmp", "no whole path"),
        ("/etc/passwd/labels", "nothing can be written to /etc/passwd"),
    ],
)
def test_scratch_that_cannot_be_used(scratch, words, vasp_campaign, alloop_main):
    problem = only_problem(alloop_main("check", "-C", vasp_campaign(run={"scratch": scratch}), "--json"))
    assert problem["where"] == "param.json: label.run.scratch"
    assert words in problem["found"]


def test_vasp_section_without_its_labeler_is_no_sevennet_campaign(campaign, alloop_main):
    folder = campaign(label={"labeler": "teter-rehearsal", "vasp": {"potcar_library": "nowhere"}})
    problem = only_problem(alloop_main("check", "-C", folder, "--json"))
    assert problem["where"] == "param.json: label.vasp"
    assert problem["found"] == "is given, but label.labeler is 'teter-rehearsal', which would label everything"
    assert 'set label.labeler to "vasp"' in problem["remedy"]


def test_a_faulty_glass_raises_no_doubt_about_overrides(vasp_campaign, alloop_main):
    folder = vasp_campaign(glasses=["LBS-20-60-21"], vasp={"incar_by_glass": {"LBS-40-20-40": {"NELM": 90}}})
    assert only_problem(alloop_main("check", "-C", folder, "--json"))["where"] == "param.json: glasses[0]"


def test_missing_script(vasp_campaign, alloop_main):
    problem = only_problem(alloop_main("check", "-C", vasp_campaign(run={"script": "mine.sh"}), "--json"))
    assert problem["where"] == "param.json: label.run.script"
    assert "'mine.sh' not found" in problem["found"]


def test_label_refuses_a_command_that_is_not_there(vasp_campaign, alloop_main):
    folder = vasp_campaign(run={"command": "/nowhere/bin/vasp_std"})
    write(folder / "own.extxyz", crystal("Li2O"))
    refused = alloop_main("label", "-C", folder, "own.extxyz")
    assert refused.code == 2
    assert "label.run.command: program '/nowhere/bin/vasp_std' does not exist" in refused.err
    assert not (folder / "iterations").exists()
