"""`alloop label`: given structures labelled, relaxed, kept; outputs judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import vasp_double

from alloop.config import load
from alloop.glass.crystals import crystal
from alloop.label_params import LabelParam
from alloop.labelling import outcome, prepare, run
from alloop.process import this_process
from alloop.store import write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two structures, the second one far from its minimum."""
    quartz = crystal("alpha-quartz")
    strained = quartz.copy()
    strained.rattle(0.1, seed=1)
    ase.io.write(tmp_path / "own.extxyz", [quartz, strained])
    return tmp_path


def with_double(folder: Path, plan: dict[str, Any]) -> None:
    vasp_double.make_potcar_library(folder / "potpaw", vasp_double.GLASS_POTENTIALS)
    (folder / "plan.json").write_text(json.dumps({"log": "runs.jsonl"} | plan))
    label = {
        "labeler": "vasp",
        "vasp": {"potcar_library": "potpaw", "potcars": {"Li": "Li_sv"}},
        "run": {"command": vasp_double.double_command(plan=folder / "plan.json")},
    }
    (folder / "param.json").write_text(json.dumps({"name": "own", "glasses": ["LBS-20-60-20"], "label": label}))


def test_labels_of_a_calculator_are_written_kept_and_never_made_twice(folder, alloop_main):
    arguments = ("label", "own.extxyz", "--labeler", "teter-rehearsal", "-C", folder)
    first = alloop_main(*arguments, "--json")
    assert first.code == 0, first.text
    records = json.loads(first.out)
    assert [record["source"] for record in records] == ["own.0000", "own.0001"]
    for given, labelled in zip(
        ase.io.read(folder / "own.extxyz", ":"), ase.io.read(folder / "labels.extxyz", ":"), strict=True
    ):
        energy_eV, forces_eV_A, virial_eV = vasp_double.expected(given)
        assert labelled.get_potential_energy() == pytest.approx(energy_eV, abs=1e-6)
        np.testing.assert_allclose(labelled.get_forces(), forces_eV_A, atol=1e-6)
        np.testing.assert_allclose(-labelled.get_stress(voigt=False) * given.get_volume(), virial_eV, atol=1e-5)
    results = sorted(folder.glob("iterations/given/*/result/MANIFEST.json"))
    times = [result.stat().st_mtime_ns for result in results]
    assert alloop_main(*arguments).code == 0
    assert [result.stat().st_mtime_ns for result in results] == times and len(results) == 2


def test_labels_beside_a_stopped_campaign_and_another_labelling(folder, alloop_main):
    with_double(folder, {})
    (folder / "iterations" / "run").mkdir(parents=True)
    (folder / "iterations" / "run" / "stop.json").write_text('{"mode": "finish"}')
    given, how, _ = prepare(
        folder, [folder / "own.extxyz"], load(folder / "param.json").label, ["Li", "B", "O", "Si"], None
    )
    assert alloop_main("label", "own.extxyz", "--labeler", "teter-rehearsal", "-C", folder).code == 0
    (given[1].folder / "attempts" / "other").mkdir()
    (given[1].folder / "attempts" / "other" / "out").mkdir()
    write_json(given[1].folder / "attempts" / "other" / "attempt.json", this_process().to_json())
    run(given, how, slots=1, threads=1, share=1, ended=lambda _: None)
    assert outcome(given[0])["labelled"], outcome(given[0])
    assert not outcome(given[1])["labelled"] and "another process" in outcome(given[1])["message"]


def test_relaxation_by_a_calculator_lowers_the_energy_and_is_told(folder, alloop_main):
    options = ("own.extxyz", "--labeler", "teter-rehearsal", "-C", folder, "--json")
    points = json.loads(alloop_main("label", *options).out)
    outcome = alloop_main("label", *options, "--relax", "--force", "0.05", "-o", "relaxed.extxyz")
    assert outcome.code == 0, outcome.text
    relaxed = json.loads(outcome.out)
    assert relaxed[1]["energy_eV"] < points[1]["energy_eV"] - 0.1
    assert all(record["max_force_eV_A"] <= 0.05 and record["relaxation"]["steps"] > 0 for record in relaxed)
    hopeless = alloop_main("label", *options, "--relax", "--steps", "1", "--force", "0.0001")
    assert hopeless.code == 3
    assert {record["class"] for record in json.loads(hopeless.out)} == {"unrelaxed"}


def test_relaxation_by_vasp(folder, alloop_main):
    with_double(folder, {})
    outcome = alloop_main("label", "own.extxyz", "-C", folder, "--relax", "--force", "0.1", "--json")
    assert outcome.code == 0, outcome.text
    record = json.loads(outcome.out)[1]
    assert record["ionic_steps"] > 2 and record["flags"] == [] and record["max_force_eV_A"] <= 0.11
    atoms = ase.io.read(folder / "labels.extxyz", 1)
    assert atoms.get_potential_energy() == pytest.approx(vasp_double.expected(atoms)[0], abs=1e-3)
    short = alloop_main("label", "own.extxyz", "-C", folder, "--relax", "--steps", "2", "--force", "0.001", "--json")
    assert [record["flags"] for record in json.loads(short.out)] == [["unrelaxed"]] * 2


def test_failed_label_is_told_with_its_class_and_the_others_are_kept(folder, alloop_main):
    doomed = vasp_double.structure_hash(ase.io.read(folder / "own.extxyz", 1))
    with_double(folder, {"always": "missing_stress", "only": [doomed]})
    outcome = alloop_main("label", "own.extxyz", "-C", folder)
    assert outcome.code == 3 and "no_stress" in outcome.out and "1 label(s) written" in outcome.out
    assert len(ase.io.read(folder / "labels.extxyz", ":")) == 1


def test_outputs_that_are_there_are_judged(folder, alloop_main, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    with_double(folder, {})
    alloop_main("label", "own.extxyz", "-C", folder)
    kept = next(folder.glob("iterations/given/own.0000*/result"))
    (outputs / "good").mkdir()
    for name in ("OUTCAR.gz", "vasprun.xml.gz"):
        (outputs / "good" / name).write_bytes((kept / name).read_bytes())
    (outputs / "empty").mkdir()
    (outputs / "empty" / "OUTCAR").touch()
    outcome = alloop_main("label", "--judge", outputs, "--json")
    assert outcome.code == 0, outcome.text
    verdicts = {Path(record["name"]).parts[0]: record for record in json.loads(outcome.out)}
    assert verdicts["good"]["trusted"] and verdicts["good"]["formula"] == "O6Si3"
    assert verdicts["empty"]["fault"] == "empty"
    shown = alloop_main("label", "--judge", outputs)
    assert "1 trusted" in shown.out and "1 empty" in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no structure given"),
        (["missing.xyz", "--labeler", "teter-rehearsal"], "missing.xyz does not exist"),
        (["own.extxyz", "--labeler", "sevennet-O"], "did you mean 'sevennet-0'?"),
        (["own.extxyz", "--labeler", "vasp"], "needs its section in param.json"),
        (["own.extxyz"], "param.json"),
        (["--judge", "nowhere"], "nowhere does not exist"),
        (["--judge", "."], "no output of VASP or CP2K"),
    ],
)
def test_bad_requests_are_explained(arguments, words, folder, alloop_main, monkeypatch):
    monkeypatch.chdir(folder)
    outcome = alloop_main("label", *arguments)
    assert outcome.code == 2 and words in outcome.text and "Traceback" not in outcome.text


def test_a_process_that_dies_before_its_first_task_is_told_with_its_log(folder, monkeypatch):
    given, how, _ = prepare(folder, [folder / "own.extxyz"], LabelParam(labeler="teter-rehearsal"), [], None)
    monkeypatch.setattr("alloop.labelling.sys.executable", "/bin/false")
    died = run(given, how, slots=1, threads=1, share=8, ended=lambda _: None)
    told = outcome(given[0], died.get(given[0].task.key))
    assert told["class"] == "crash" and not told["labelled"]
    assert "ended with code 1" in told["message"] and "attempts.log" in told["message"]
