"""The example of a cluster campaign with VASP: whole but for what only a site can know."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import pytest
from vasp_double import double_command, make_potcar_library

from alloop import config
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.resources import example_file, examples

NAME = "lbs-vasp-slurm"


@pytest.fixture
def slurm_commands(tmp_path, monkeypatch):
    """Doubles of the two commands that `check` needs: `sbatch` is there, `sinfo` lists two partitions."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("sbatch", "exit 1"), ("sinfo", "echo cpu; echo gpu")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.fixture
def folder(tmp_path, alloop_main, slurm_commands):
    if find_spec("sevenn") is None:
        pytest.skip("the example begins with sevennet-0, and sevenn is not installed")
    assert alloop_main("init", tmp_path / "lbs", "--example", NAME).code == 0
    return tmp_path / "lbs"


def test_example_is_known_and_whole():
    assert NAME in examples()
    param = config.load(example_file(NAME))
    assert [glass.name for glass in param.glasses] == list(TABLE_1)
    sizes = [sum(stoichiometric_counts(glass.glass(), glass.n_atoms[0]).values()) for glass in param.glasses]
    assert sizes == [glass.n_atoms[0] for glass in param.glasses]
    assert 60 < min(sizes) < max(sizes) < 130
    assert param.label.vasp is not None
    assert param.label.vasp.potcars == {"Li": "Li_sv", "B": "B", "O": "O", "Si": "Si"}
    assert param.label.foundation is not None
    assert (param.label.foundation.labeler, param.label.foundation.iterations) == ("sevennet-0", 2)
    assert param.quench is not None
    assert param.quench.cooling_rate_K_ps == 2.0


def test_check_reports_what_a_site_must_fill_in_and_nothing_else(folder, alloop_main):
    outcome = alloop_main("check", "-C", folder, "--json")
    assert outcome.code == 2
    found = {problem["where"]: problem for problem in json.loads(outcome.out)["problems"]}
    queues = {"param.json: pools.vasp.queue", "param.json: pools.gpu.queue"}
    assert set(found) == {"param.json: label.vasp.potcar_library", "param.json: label.run.modules[0]"} | queues
    assert all(problem["found"].startswith("is still '<") for problem in found.values())
    assert "potpaw_PBE" in found["param.json: label.vasp.potcar_library"]["remedy"]
    assert "name the module" in found["param.json: label.run.modules[0]"]["remedy"]
    refused = alloop_main("run", "-C", folder)
    assert refused.code == 2
    assert "4 problems found before any work" in refused.err


def test_check_reports_nothing_once_it_is_filled_in(folder, alloop_main):
    make_potcar_library(folder / "potcars")
    param = json.loads((folder / "param.json").read_text())
    param["label"]["vasp"]["potcar_library"] = "potcars"
    param["label"]["run"] |= {"modules": [], "command": double_command(), "command_gamma": double_command()}
    param["pools"]["vasp"]["queue"], param["pools"]["gpu"]["queue"] = "cpu", "gpu"
    (folder / "param.json").write_text(json.dumps(param))
    outcome = alloop_main("check", "-C", folder, "--json")
    assert outcome.code == 0, outcome.out
    found = json.loads(outcome.out)
    assert found["problems"] == []
    assert [entry["glass"] for entry in found["inputs"]] == list(TABLE_1)
    assert all(entry["gamma"] for entry in found["inputs"])
