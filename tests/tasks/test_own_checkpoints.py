"""Checkpoints of one's own: hashed by content, asked for by the first ensemble only, and started from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.campaign import Campaign, State, label_task
from alloop.config import ConfigError, parse
from alloop.decisions import seeding, training
from alloop.decisions.training import apply_network, decide_train
from alloop.glass.crystals import crystal, perturbed
from alloop.potential.environment import md_environment
from alloop.preflight import preflight
from alloop.resources import find_template
from alloop.store import Store, Task, make_task, read_json
from alloop.structure import to_record
from alloop.tasks.sources import checkpoint_hash

PARAM: dict[str, Any] = {
    "name": "own",
    "glasses": ["LBS-20-60-20"],
    "label": {"labeler": "teter-rehearsal"},
    "train": {"models": 2, "init_models": ["a/model.ckpt", "b/model.ckpt"]},
}


def _write_checkpoint(prefix: Path, content: bytes) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".index", ".meta", ".data-00000-of-00001"):
        prefix.with_name(prefix.name + suffix).write_bytes(content + suffix.encode())
    return prefix


def test_hash_of_a_checkpoint_is_of_its_content_alone(tmp_path: Path) -> None:
    one = _write_checkpoint(tmp_path / "one" / "model.ckpt", b"weights")
    other = _write_checkpoint(tmp_path / "other" / "model.ckpt-600", b"weights")
    assert checkpoint_hash(one, "tensorflow") == checkpoint_hash(other, "tensorflow")
    other.with_name("model.ckpt-600.index").write_bytes(b"changed")
    assert checkpoint_hash(one, "tensorflow") != checkpoint_hash(other, "tensorflow")


def test_checkpoint_with_a_file_missing_is_named(tmp_path: Path) -> None:
    prefix = _write_checkpoint(tmp_path / "model.ckpt", b"weights")
    (tmp_path / "model.ckpt.meta").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint of backend tensorflow: model\.ckpt\.meta missing"):
        checkpoint_hash(prefix, "tensorflow")
    with pytest.raises(ValueError, match="no checkpoint of backend pytorch"):
        checkpoint_hash(prefix, "pytorch")


def test_as_many_checkpoints_as_models() -> None:
    with pytest.raises(ConfigError, match=r"init_models names 2 checkpoint\(s\) for 3 models"):
        parse(PARAM | {"train": PARAM["train"] | {"models": 3}})


def test_preflight_looks_for_the_files(tmp_path: Path) -> None:
    _write_checkpoint(tmp_path / "a" / "model.ckpt", b"weights")
    found = [str(problem) for problem in preflight(Campaign(tmp_path), parse(PARAM))]
    wrong = [text for text in found if "init_models" in text]
    assert len(wrong) == 1
    assert "train.init_models[1]: b/model.ckpt is no checkpoint of backend tensorflow" in wrong[0]


def _campaign(root: Path) -> Any:
    state = State()
    state.picks = {"label": {"role": "training", "iteration": -1}}
    state.done = {"label"}
    return SimpleNamespace(root=root, state=state)


def test_first_ensemble_asks_for_them_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training,
        "_network",
        lambda *_: (
            {"cutoff_A": 6.0, "smoothing_A": 0.5, "sel": [1], "neuron": None}
            | dict.fromkeys(("axis_neuron", "fitting_neuron"))
        ),
    )
    for name in ("a", "b"):
        _write_checkpoint(tmp_path / name / "model.ckpt", name.encode())
    campaign, param = _campaign(tmp_path), parse(PARAM)
    decision = decide_train(campaign, param, 0)
    assert [task["files"] for task in decision["tasks"]] == [{"init": "a/model.ckpt"}, {"init": "b/model.ckpt"}]
    hashes = [task["spec"]["init_sha256"] for task in decision["tasks"]]
    assert hashes == [checkpoint_hash(tmp_path / name / "model.ckpt", "tensorflow") for name in ("a", "b")]
    assert decision["common"]["steps"] == param.train.warm_steps
    assert decision["common"]["start_lr"] == param.train.warm_learning_rate

    (tmp_path / "a").rename(tmp_path / "moved")
    moved = parse(PARAM | {"train": PARAM["train"] | {"init_models": ["moved/model.ckpt", "b/model.ckpt"]}})
    assert [t["key"] for t in decide_train(campaign, moved, 0)["tasks"]] == [t["key"] for t in decision["tasks"]]
    later = decide_train(campaign, moved, 1)
    assert not any("files" in task or "init_sha256" in task["spec"] for task in later["tasks"])


def test_without_them_nothing_changes_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training,
        "_network",
        lambda *_: (
            {"cutoff_A": 6.0, "smoothing_A": 0.5, "sel": [1], "neuron": None}
            | dict.fromkeys(("axis_neuron", "fitting_neuron"))
        ),
    )
    decision = decide_train(_campaign(tmp_path), parse(PARAM | {"train": {"models": 2}}), 0)
    first, second = (task["spec"] for task in decision["tasks"])
    assert set(second) == {"init", "seed"} and first["init"] is second["init"] is None
    assert set(first) - set(second) == {"describe"}, "one model of the first ensemble describes environments"


def test_role_of_data_that_models_have_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given roles stay; the others are drawn among themselves, at least one of each."""
    monkeypatch.setattr(seeding, "file_hash", lambda path: str(path))
    data = [{"path": f"d{n}", "level": "teter-rehearsal", "role": "training"} for n in range(5)]
    bootstrap = {"trajectories": 0, "data": data, "structures": ["a.vasp", "b.vasp"], "held_out_fraction": 0.9}
    decision = seeding.decide_bootstrap(Campaign(tmp_path), parse(PARAM | {"bootstrap": bootstrap}), -1)
    roles = decision["trajectories"]
    assert len(decision["tasks"]) == len(roles) == 7
    assert all(role == "training" for name, role in roles.items() if name.startswith("data"))
    assert sorted(role for name, role in roles.items() if name.startswith("structures")) == ["held_out", "training"]


def _run(folder: Path) -> int:
    command = [sys.executable, "-m", "alloop.attempt", str(folder)]
    return subprocess.run(command, env=os.environ | md_environment(1), timeout=300).returncode


@pytest.mark.slow
def test_training_starts_from_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rng = np.random.default_rng(5)
    structures = [perturbed(crystal("LiBSiO4").repeat(2), rattle_A=0.05, max_strain=0.02, rng=rng) for _ in range(3)]
    level = {"labeler": "teter-rehearsal", "options": {}}
    labels = [label_task("label", f"l{n}", to_record(atoms), level, ()) for n, atoms in enumerate(structures)]
    for label in labels:
        assert _run(store.prepare(label, "test", {})) == 0
    network = {"cutoff_A": 4.0, "smoothing_A": 0.5, "sel": [24, 24, 48, 24], "neuron": [4, 8], "axis_neuron": 3}
    template = apply_network(
        json.loads(find_template("deepmd/input.json").read_text()), network | {"fitting_neuron": [8, 8]}
    )
    spec = {
        "type_map": ["Li", "B", "O", "Si"],
        "training": [task.key for task in labels],
        "held_out": [],
        "template": template,
        "backend": "tensorflow",
        "steps": 20,
        "start_lr": 0.005,
        "stop_lr": 0.0005,
        "save_every": 20,
        "compress": False,
        "resume": "checkpoint",
        "init": None,
        "seed": 1,
    }
    inputs = {task.key: task.folder for task in labels}
    first = make_task("train", "train", "first", spec, tuple(inputs))
    assert _run(store.prepare(first, "test", inputs)) == 0
    assert read_json(store.result(first) / "summary.json")["started_from"] == "scratch"

    shutil.copytree(store.result(first), tmp_path / "own")
    prefix = tmp_path / "own" / "model.ckpt-20"
    again = spec | {"init_sha256": checkpoint_hash(prefix, "tensorflow")}
    files = {"init": "own/model.ckpt-20"}

    def task(seed: int) -> Task:
        return make_task("train", "train", f"again{seed}", again | {"seed": seed}, tuple(inputs), files)

    assert _run(store.prepare(task(2), "test", inputs)) == 0
    assert read_json(store.result(task(2)) / "summary.json")["started_from"] == "warm start"

    prefix.with_name(prefix.name + ".index").write_bytes(b"other weights")
    folder = store.prepare(task(3), "test", inputs)
    assert _run(folder) == 1
    (failure,) = folder.glob("attempts/*/failed.json")
    assert "is not the checkpoint this task was made from" in read_json(failure)["message"]
