"""Each bad `param.json` ends as one clear message and exit code 2, and no work begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "misspelt key": ({"train": {"modells": 4}}, ["train.modells: unknown key", "did you mean 'models'?"]),
    "foundation forgotten": (
        {"label": {"foundation": {}}, "train": {"warm_start": False}},
        ["train.warm_start is false", "label.foundation"],
    ),
    "foundation for ever": (
        {"label": {"foundation": {"iterations": 3}}, "stop": {"max_iterations": 2}},
        ["label.foundation.iterations is 3, stop.max_iterations 2"],
    ),
    "one promoted label": (
        {"label": {"foundation": {"promote": 1}}},
        ["label.foundation.promote: found 1, must be greater than or equal to 2"],
    ),
    "misspelt section": ({"expolre": {}}, ["expolre: unknown key", "did you mean 'explore'?"]),
    "wrong unit": ({"train": {"cutoff_nm": 0.6}}, ["train.cutoff_nm: unknown key", "'cutoff_A'", "unit"]),
    "wrong unit of two": (
        {"select": {"trust_low_eV_nm": 2.5}},
        ["select.trust_low_eV_nm: unknown key", "'trust_low_eV_A'", "unit"],
    ),
    "key of another section": (
        {"train": {"temperatures_K": [300]}},
        ["train.temperatures_K: unknown key", "did you mean 'temperatures_K' in 'explore'?"],
    ),
    "key far from all": ({"stop": {"zzz": 1}}, ["stop.zzz: unknown key", "max_iterations, accurate_fraction"]),
    "key inside a list": (
        {"glasses": [{"name": "LBS-20-60-20", "natoms": [84]}]},
        ["glasses[0].natoms: unknown key", "did you mean 'n_atoms'?"],
    ),
    "mole fractions do not sum": (
        {"glasses": [{"name": "own", "mole_fractions": {"SiO2": 0.5, "B2O3": 0.4}, "density_g_cm3": 2.2}]},
        ["glasses[0]", "own: mole fractions sum to 0.9; expected 1"],
    ),
    "unknown oxide": (
        {"glasses": [{"name": "own", "mole_fractions": {"Na2O": 0.5, "B2O3": 0.5}, "density_g_cm3": 2.2}]},
        ["own: unknown oxide Na2O", "SiO2, B2O3, Li2O"],
    ),
    "density zero": (
        {"glasses": [{"name": "LBS-20-60-20", "density_g_cm3": 0}]},
        ["glasses[0].density_g_cm3: found 0, must be greater than 0"],
    ),
    "own glass without density": (
        {"glasses": [{"name": "own", "mole_fractions": {"B2O3": 1}}]},
        ["'own' is not known by its name and lacks density_g_cm3"],
    ),
    "glass not in Table 1": (
        {"glasses": ["LBS-20-60-21"]},
        [
            "glasses[0]: 'LBS-20-60-21' is not the name of a known lithium borosilicate glass",
            "did you mean LBS-20-60-20?",
            "mole_fractions",
        ],
    ),
    "memory of a job": (
        {"pools": {"vasp": {"type": "slurm", "tasks": ["label"], "walltime_minutes": 60, "memory": "lots"}}},
        ["pools.vasp", "memory: found 'lots', expected a size such as 100GB"],
    ),
    "glass of sodium": (
        {"glasses": ["NBS-20-60-20"]},
        ["'NBS-20-60-20' is not the name of a known", "there are LBS-20-60-20, "],
    ),
    "glass like none": (
        {"glasses": ["window"]},
        ["'window' is not the name of a known lithium borosilicate glass; there are LBS-20-60-20, "],
    ),
    "no glass": ({"glasses": []}, ["glasses is empty"]),
    "two glasses of one name": ({"glasses": ["LBS-20-60-20"] * 2}, ["two glasses have one name"]),
    "cell size impossible": (
        {
            "glasses": [
                {"name": "own", "mole_fractions": {"SiO2": 0.333, "B2O3": 0.667}, "density_g_cm3": 2, "n_atoms": [50]}
            ]
        },
        ["glasses[0].n_atoms", "own: no exactly stoichiometric cell is near 50 atoms; possible sizes are"],
    ),
    "cell size impossible beside that of the quench": (
        {
            "glasses": [{"name": "LBS-8-32-60", "n_atoms": [12]}],
            "quench": {"protocol": "urata2022", "n_atoms": [300]},
        },
        ["glasses[0].n_atoms", "no exactly stoichiometric cell is near 12 atoms"],
    ),
    "cell size tiny": ({"glasses": [{"name": "LBS-20-60-20", "n_atoms": [3]}]}, ["n_atoms[0]: found 3, must be"]),
    "two sizes are one": (
        {"glasses": [{"name": "LBS-20-60-20", "n_atoms": [62, 63]}]},
        ["LBS-20-60-20: 62 and 63 both give cells of 63 atoms"],
    ),
    "unknown element": ({"elements": ["Li", "B", "O", "Si", "Qq"]}, ["elements[4]: 'Qq' is not a chemical element"]),
    "element twice": ({"elements": ["Li", "B", "O", "Si", "B"]}, ["elements names one twice"]),
    "element lacking": ({"elements": ["Li", "B", "O"]}, ["glass LBS-20-60-20 holds ['Si'], which `elements`"]),
    "trust levels crossed": (
        {"select": {"trust_low_eV_A": 1.0, "trust_high_eV_A": 0.5}},
        ["select: trust_low_eV_A is 1.0, trust_high_eV_A 0.5; low must be below high"],
    ),
    "trust levels too near to be calibrated": (
        {"select": {"trust_low_eV_A": 0.8, "trust_high_eV_A": 0.9}},
        ["trust_high_eV_A 0.9; calibrated levels", "expected trust_high_eV_A from 1.2 on", "or trust to fixed"],
    ),
    "event misspelt": (
        {"select": {"events": {"five_coordinate_Si": {}}}},
        ["select.events: 'five_coordinate_Si' is no preset", "did you mean five_coordinated_Si?"],
    ),
    "gate beyond its threshold": (
        {"select": {"events": {"overlap": {"gate_A": {"O-O": 2.0}}}}},
        ["select.events.overlap: for O-O gate_A is 2 and below_A 1.85; a gate must lie below"],
    ),
    "event of an element that is not there": (
        {"select": {"events": {"near": {"kind": "pair_distance", "below_A": {"Na-O": 1.5}}}}},
        ["param.json: select.events.near", "names Na, which elements", "add the element"],
    ),
    "zero models": ({"train": {"models": 0}}, ["train.models: found 0, must be greater than or equal to 2"]),
    "number as text": ({"train": {"steps": "4000"}}, ['train.steps: found "4000", must be a number without quotes']),
    "true as number": ({"train": {"models": True}}, ["train.models: found true, must be a number without quotes"]),
    "text as switch": ({"train": {"compress": "yes"}}, ['train.compress: found "yes", must be true or false']),
    "half a step": ({"train": {"steps": 10.5}}, ["train.steps: found 10.5, must be a valid integer"]),
    "section is a list": ({"train": []}, ["train: found a list, must be an object"]),
    "list is a number": (
        {"glasses": [{"name": "LBS-20-60-20", "n_atoms": 84}]},
        ["glasses[0].n_atoms: found 84, must be a list"],
    ),
    "unknown engine": ({"explore": {"engine": "gromacs"}}, ["found \"gromacs\", must be 'lammps' or 'ase'"]),
    "NPT ramps in ASE": (
        {"explore": {"engine": "ase", "ensembles": ["npt"], "ramps": [{"from_K": 300, "to_K": 900}]}},
        ["the ase engine has no NPT ramps; use engine lammps"],
    ),
    "NPT quench in ASE": (
        {"quench": {"engine": "ase", "ensemble": "npt"}},
        ["quench: stage cool: the ase engine has no NPT ramps"],
    ),
    "JAX in LAMMPS": (
        {"train": {"backend": "jax"}, "explore": {"engine": "ase"}, "quench": {}},
        ["train.backend is jax, so quench.engine must be ase: the LAMMPS of DeePMD 3.2 crashes"],
    ),
    "nothing to explore": ({"explore": {"temperatures_K": [], "ramps": []}}, ["explore: temperatures_K and ramps"]),
    "temperature twice": ({"explore": {"temperatures_K": [300, 300.0]}}, ["temperatures_K: 300.0 is given twice"]),
    "one bootstrap run": ({"bootstrap": {"trajectories": 1}}, ["bootstrap: trajectories is 1; at least 2"]),
    "snapshots do not fit": ({"bootstrap": {"quench_ps": 0.001}}, ["bootstrap: 20 snapshots do not fit"]),
    "quench that heats": ({"quench": {"final_temperature_K": 2500}}, ["quench: final_temperature_K is 2500", "cool"]),
    "learning rate grows": ({"train": {"final_learning_rate": 1}}, ["train: final_learning_rate is 1; it must be"]),
    "name with a blank": ({"name": "my glass"}, ['name: found "my glass", must begin with a letter']),
    "template missing": (
        {"train": {"template": "deepmd/mine.json"}},
        ["param.json: train.template", "'deepmd/mine.json' not found; looked for", "put the file there"],
    ),
    "labeler misspelt": (
        {"label": {"labeler": "teter-rehersal"}},
        ["param.json: label.labeler", "neither built in nor an import path", "did you mean 'teter-rehearsal'?"],
    ),
    "labeler not installed": (
        {"label": {"labeler": "orb_of_nowhere.calc:Orb"}},
        ["label.labeler", "needs the package 'orb_of_nowhere', which is not installed (pip install orb_of_nowhere)"],
    ),
    "labeler without module": (
        {"label": {"labeler": "ase.calculators.nowhere:LennardJones"}},
        ["the package 'ase' is installed, but has no module 'ase.calculators.nowhere'"],
    ),
    "labeler without class": (
        {"label": {"labeler": "ase.calculators.lj:LennardJonse"}},
        ["module 'ase.calculators.lj' has no 'LennardJonse'"],
    ),
    "labeler without anything": ({"label": {"labeler": ":Orb"}}, ["':Orb' is neither built in nor an import path"]),
}

TEXTS: dict[str, tuple[str | bytes, list[str]]] = {
    "cut": ('{"name": "small", "glasses": ["LBS-', ["is not valid JSON", "cut short"]),
    "empty": ("", ["is not valid JSON", "cut short"]),
    "NaN": ('{"name": "small", "train": {"cutoff_A": NaN}}', ["NaN is no number a campaign can use"]),
    "Infinity": ('{"name": "small", "train": {"cutoff_A": -Infinity}}', ["-Infinity is no number a campaign can use"]),
    "overflow": ('{"name": "small", "label": {"options": {"a": 1e999}}}', ["1e999 is no number a campaign can use"]),
    "list": ('[{"name": "small"}]', ["found a list, expected an object with sections"]),
    "null": ("null", ["found null, expected an object"]),
    "not UTF-8": ('{"name": "kühl"}'.encode("latin-1"), ["is not UTF-8 text", "byte 11"]),
    "key twice": ('{"name": "a", "seed": 1, "name": "b"}', ["key 'name' is given twice"]),
    "deep": ("[" * 100000, ["is not valid JSON"]),
}


def assert_refused(outcome: Any, folder: Path, words: list[str]) -> None:
    assert outcome.code == 2
    assert "Traceback" not in outcome.text
    assert not outcome.out, "an error belongs on stderr"
    assert outcome.err.startswith("alloop: ")
    assert outcome.err.count("alloop: ") == 1
    for word in words:
        assert word in outcome.err
    assert not (folder / "iterations").exists()


def assert_reported(outcome: Any, words: list[str]) -> None:
    assert outcome.code == 2
    assert not outcome.err
    for word in words:
        assert word in outcome.out
    problems = outcome.out.split("x ")[1:]
    assert all("\n    -> " in problem for problem in problems), "every problem has a remedy"


@pytest.mark.parametrize("case", CASES)
def test_bad_value_is_refused_by_run_and_reported_by_check(case, campaign, alloop_main):
    changes, words = CASES[case]
    folder = campaign(**changes)
    assert_refused(alloop_main("run", "-C", folder), folder, words)
    assert_reported(alloop_main("check", "-C", folder), words)
    listed = alloop_main("check", "-C", folder, "--json")
    assert listed.code == 2
    assert [set(problem) for problem in json.loads(listed.out)["problems"]] == [{"where", "found", "remedy"}]


@pytest.mark.parametrize("case", TEXTS)
def test_unreadable_param_json(case, campaign, alloop_main):
    text, words = TEXTS[case]
    folder = campaign(text=text)
    for command in ("run", "plan", "status"):
        assert_refused(alloop_main(command, "-C", folder), folder, ["param.json", *words])
    assert_reported(alloop_main("check", "-C", folder), words)


def test_no_param_json(tmp_path, alloop_main):
    for command in ("run", "quench", "status", "stats", "stop", "plan"):
        outcome = alloop_main(command, "-C", tmp_path)
        assert_refused(outcome, tmp_path, [f"no param.json in {tmp_path}", "alloop init DIR"])
    assert_reported(alloop_main("check", "-C", tmp_path), ["no param.json in", "alloop init DIR"])


def test_campaign_folder_that_is_none(tmp_path, alloop_main):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        assert_refused(alloop_main("run", "-C", folder), tmp_path, [f"no param.json in {folder}"])


def test_param_json_is_a_folder(tmp_path, alloop_main):
    (tmp_path / "param.json").mkdir()
    assert_refused(alloop_main("run", "-C", tmp_path), tmp_path, ["param.json is a folder"])


def test_all_problems_of_configuration_and_files_in_one_report(campaign, alloop_main):
    folder = campaign(
        train={"template": "deepmd/mine.json"},
        select={"trust_low_eV_A": -1, "audits": 3},
        bootstrap={"structures": ["gone.cif"]},
        label={"labeler": "orb_of_nowhere.calc:Orb"},
        glasses=["LBS-1-1-98"],
    )
    report = alloop_main("check", "-C", folder)
    assert_reported(report, ["select.trust_low_eV_A", "select.audits", "glasses[0]", "mine.json", "orb", "gone.cif"])
    assert report.out.count("-> ") == 6


def test_problems_counted_in_the_message_of_run(campaign, alloop_main):
    folder = campaign(train={"modells": 4, "steps": 0})
    assert_refused(alloop_main("run", "-C", folder), folder, ["2 problems", "train.modells", "train.steps"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no DeePMD input"),
        ('{"model": {"descriptor": {}}}', "fitting_net"),
        ('{"model": {"descriptor": [], "fitting_net": {}}}', "model.descriptor must be an object"),
    ],
)
def test_unusable_deepmd_template(text, words, campaign, alloop_main):
    folder = campaign()
    (folder / "templates" / "deepmd").mkdir(parents=True)
    (folder / "templates" / "deepmd" / "input.json").write_text(text)
    assert_refused(alloop_main("run", "-C", folder), folder, [words, "templates/deepmd/input.json"])


def test_unusable_lammps_template(campaign, alloop_main):
    folder = campaign()
    (folder / "templates" / "lammps").mkdir(parents=True)
    (folder / "templates" / "lammps" / "melt_quench.in").write_text("read_data @DATA@\n")
    assert_refused(alloop_main("run", "-C", folder), folder, ["lacks @DUMP@, @PAIR_COMMANDS@, @SNAPSHOT_STEPS@"])
