"""`train.short_range` in `param.json`: what it does to a training task, and where it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.campaign import State, label_task
from alloop.config import ConfigError, parse
from alloop.decisions import training
from alloop.decisions.training import apply_network, decide_train
from alloop.glass.crystals import crystal, perturbed
from alloop.potential import short_range as walls
from alloop.potential.environment import md_environment
from alloop.potential.short_range import MODEL_KEYS, ShortRange, short_range
from alloop.resources import find_template
from alloop.store import Store, make_task, read_json
from alloop.structure import to_record

PARAM: dict[str, Any] = {
    "name": "walled",
    "glasses": ["LBS-20-60-20"],
    "label": {"labeler": "teter-rehearsal"},
}


def keys(monkeypatch: pytest.MonkeyPatch, root: Path, **train: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of the first ensemble's tasks and the network they have in common."""
    monkeypatch.setattr(training, "_sel", lambda *_: [20, 20, 40, 20])
    state = State()
    state.picks = {"label": {"role": "training", "iteration": -1}}
    state.done = {"label"}
    campaign: Any = SimpleNamespace(root=root, state=state)
    decision = decide_train(campaign, parse(PARAM | {"train": {"models": 2} | train}), 0)
    return [task["key"] for task in decision["tasks"]], decision["common"]["network"]


def test_without_it_a_task_is_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, network = keys(monkeypatch, tmp_path)
    assert "short_range" not in network
    assert keys(monkeypatch, tmp_path, short_range=None) == keys(monkeypatch, tmp_path)


def test_content_of_the_table_decides_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, _ = keys(monkeypatch, tmp_path)
    walled, network = keys(monkeypatch, tmp_path, short_range="zbl")
    assert ShortRange(**network["short_range"]) == short_range("zbl", ["Li", "B", "O", "Si"])
    assert not set(plain) & set(walled)
    assert keys(monkeypatch, tmp_path / "elsewhere", short_range="zbl")[0] == walled
    monkeypatch.setattr(walls, "SCREENING_LENGTH_A", 0.4686)
    assert not set(keys(monkeypatch, tmp_path, short_range="zbl")[0]) & set(walled)


@pytest.mark.parametrize("backend", ["pytorch", "jax"])
def test_backends_that_may_lose_it_are_refused(backend: str) -> None:
    with pytest.raises(ConfigError, match=f"short_range is zbl, backend {backend}: only with tensorflow"):
        parse(PARAM | {"train": {"short_range": "zbl", "backend": backend}, "explore": {"engine": "ase"}})


def test_other_walls_are_refused() -> None:
    with pytest.raises(ConfigError, match="short_range"):
        parse(PARAM | {"train": {"short_range": "lj"}})
    assert parse(PARAM | {"train": {"short_range": "zbl"}}).train.short_range == "zbl"
    assert parse(PARAM).train.short_range is None


def _run(folder: Path) -> int:
    command = [sys.executable, "-m", "alloop.attempt", str(folder)]
    return subprocess.run(command, env=os.environ | md_environment(1), timeout=300).returncode


@pytest.mark.slow
def test_training_task_brings_the_table_home_or_says_that_it_is_another(tmp_path: Path) -> None:
    store, type_map = Store(tmp_path), ["Li", "B", "O", "Si"]
    atoms = perturbed(crystal("LiBSiO4").repeat(2), rattle_A=0.05, max_strain=0.02, rng=np.random.default_rng(5))
    label = label_task("label", "l", to_record(atoms), {"labeler": "teter-rehearsal", "options": {}}, ())
    assert _run(store.prepare(label, "test", {})) == 0
    wall = short_range("zbl", type_map)
    network = {"cutoff_A": 4.0, "smoothing_A": 0.5, "sel": [24, 24, 48, 24], "neuron": [4, 8], "axis_neuron": 3}
    network |= {"fitting_neuron": [8, 8], "short_range": asdict(wall)}
    spec = {
        "type_map": type_map,
        "training": [label.key],
        "held_out": [],
        "template": apply_network(json.loads(find_template("deepmd/input.json").read_text()), network),
        "describe": True,
        "network": network,
        "backend": "tensorflow",
        "steps": 10,
        "start_lr": 0.005,
        "stop_lr": 0.0005,
        "save_every": 10,
        "compress": False,
        "resume": "checkpoint",
        "init": None,
        "seed": 1,
    }
    inputs = {label.key: label.folder}
    task = make_task("train", "train", "walled", spec, tuple(inputs))
    assert _run(store.prepare(task, "test", inputs)) == 0
    result = store.result(task)
    model = read_json(result / "input.json")["model"]
    assert {key: model[key] for key in MODEL_KEYS} == wall.model_section()
    assert (result / wall.file_name).read_text() == walls.table_text("zbl", type_map)

    network["short_range"] = asdict(wall) | {"table_sha256": "0" * 64}
    other = make_task("train", "train", "other", spec, tuple(inputs))
    folder = store.prepare(other, "test", inputs)
    assert _run(folder) == 1
    (failure,) = folder.glob("attempts/*/failed.json")
    assert "use the version of alloop that asked for it" in read_json(failure)["message"]
