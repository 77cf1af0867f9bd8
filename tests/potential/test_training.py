from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.potential.environment import md_environment
from alloop.potential.training import TrainRequest, derived_seeds, train, training_input
from alloop.resources import find_template

TEMPLATE = {"model": {"descriptor": {"rcut": 6.0, "sel": [1, 2]}, "fitting_net": {}}, "training": {"disp_freq": 30}}


def request(**changes: Any) -> TrainRequest:
    plain: dict[str, Any] = {
        "template": TEMPLATE,
        "type_map": ["Li", "O"],
        "training_systems": ["a", "b"],
        "n_steps": 500,
        "seed": 3,
        "save_freq": 100,
    }
    return TrainRequest(**{**plain, **changes})


def test_input_takes_its_numbers_from_the_request_and_leaves_the_template_alone() -> None:
    before = json.dumps(TEMPLATE)
    written = training_input(request(start_lr=2e-3, stop_lr=3e-8))
    assert json.dumps(TEMPLATE) == before
    assert written["model"]["type_map"] == ["Li", "O"]
    assert written["learning_rate"] == {"type": "exp", "start_lr": 2e-3, "stop_lr": 3e-8}
    assert written["training"]["numb_steps"] == 500
    assert (written["training"]["disp_freq"], written["training"]["save_freq"]) == (30, 90)
    assert written["training"]["training_data"]["systems"] == [
        "systems/training_data.0000",
        "systems/training_data.0001",
    ]
    assert "validation_data" not in written["training"]
    assert "validation_data" in training_input(request(validation_systems=["c"]))["training"]


def test_seeds_differ_from_each_other_and_between_models() -> None:
    seeds = [derived_seeds(seed) for seed in range(50)]
    assert len({s for three in seeds for s in three}) == 150
    assert derived_seeds(7) == derived_seeds(7)
    assert all(0 <= s < 2**31 for three in seeds for s in three)


def test_requests_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training systems"):
        train(request(training_systems=[]), tmp_path)
    with pytest.raises(ValueError, match="systems not found: a, b"):
        train(request(), tmp_path)
    with pytest.raises(ValueError, match="n_steps 0"):
        train(request(training_systems=[tmp_path], n_steps=0), tmp_path)
    with pytest.raises(ValueError, match="unknown DeePMD backend 'torch'"):
        train(request(backend="torch"), tmp_path)


def test_shipped_template_is_of_the_size_of_the_published_network() -> None:
    model = json.loads(find_template("deepmd/input.json").read_text())["model"]
    assert model["descriptor"]["neuron"] == [20, 40, 80]
    assert model["descriptor"]["axis_neuron"] == 12
    assert model["fitting_net"]["neuron"] == [100, 100, 100]


@pytest.mark.parametrize("steps", [50, 3000, 6000, 40000])
def test_learning_rate_of_the_shipped_template_falls_all_the_way_for_any_number_of_steps(steps: int) -> None:
    """Stepwise decay every 5000 steps leaves a training of 6000 at the starting rate almost to its end."""
    from deepmd.dpmodel.utils.learning_rate import LearningRateExp

    given = json.loads(find_template("deepmd/input.json").read_text())["learning_rate"]
    assert given.pop("type") == "exp"
    rate = LearningRateExp(start_lr=1e-2, stop_lr=1e-4, num_steps=steps, **given)
    assert [float(rate.value(steps * part // 4)) for part in (0, 2, 4)] == pytest.approx([1e-2, 1e-3, 1e-4], rel=0.1)


def test_environment_asks_for_the_threads_it_was_told() -> None:
    variables = md_environment(3)
    assert variables["OMP_NUM_THREADS"] == variables["DP_INTRA_OP_PARALLELISM_THREADS"] == "3"
    assert list(Path(variables["LAMMPS_PLUGIN_PATH"]).glob("libdeepmd_lmpplugin*"))
    assert any(list(Path(p).glob("libmpi.so*")) for p in variables["LD_LIBRARY_PATH"].split(":"))
    with pytest.raises(ValueError, match="n_threads is 0"):
        md_environment(0)


def test_environment_leaves_what_a_person_says_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert int(md_environment()["MALLOC_TRIM_THRESHOLD_"]) > 2**30
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert md_environment()["MALLOC_TRIM_THRESHOLD_"] == "1000"


_FREES_AND_ASKS_AGAIN = """
import resource
import numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        parts = [np.ones(2_000_000) for _ in range(3)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def test_memory_that_is_freed_again_and_again_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)

    def faults(**environment: str) -> int:
        command = [sys.executable, "-c", _FREES_AND_ASKS_AGAIN]
        return int(subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True).stdout)

    kept, default = faults(**md_environment()), faults()
    assert kept < 100 < default, "pages asked of the kernel again"


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_in_another_process_and_folder(trained: tuple[Path, Any]) -> None:
    folder, _ = trained
    for name in ("model.pb", "model-compressed.pb", "model.ckpt-100.data-00000-of-00001", "lcurve.out"):
        assert (folder / "first" / name).read_bytes() == (folder / "again" / name).read_bytes(), name
        assert (folder / "first" / name).read_bytes() != (folder / "second" / name).read_bytes(), name


def test_result_names_files_that_exist_and_nothing_was_printed(trained: tuple[Path, Any]) -> None:
    folder, results = trained
    first = results["first"]
    assert first["started_from"] == "scratch"
    for key in ("model", "compressed_model", "lcurve", "log"):
        assert Path(first[key]).is_file(), key
    assert len(list(folder.glob("first/model.ckpt-100.*"))) == 3
    assert "DEEPMD INFO" in Path(first["log"]).read_text()
    assert str(folder) not in Path(first["model"]).read_bytes().decode("latin1")


def test_loss_falls_and_validation_is_recorded(trained: tuple[Path, Any]) -> None:
    folder, _ = trained
    rows = np.loadtxt(folder / "first" / "lcurve.out")
    assert rows[:, 0].tolist() == [0, 25, 50, 75, 100]
    assert rows[-1, 2] < 0.7 * rows[0, 2]  # the energy; the total loss also falls with its changing weights
    assert "rmse_f_val" in (folder / "second" / "lcurve.out").read_text().splitlines()[0]


@pytest.mark.slow
def test_restart_continues_warm_start_takes_weights_and_damage_is_noticed(
    trained: tuple[Path, Any], start_script: Callable[[Path, str], Any]
) -> None:
    folder, _ = trained
    told = start_script(
        folder,
        """
        import shutil
        from deepmd.tf.train.trainer import DPTrainer
        from alloop.potential.checkpoints import BACKENDS, newest_whole_checkpoint
        told = {}
        plain, crashed = request(compress=False, n_steps=60, save_freq=20), folder / "crashed"
        save = DPTrainer.save_checkpoint
        def save_and_die(self, step):
            save(self, step)
            if step == 40:
                with open("lcurve.out", "a") as lcurve:
                    lcurve.write("     45      1.0e+00  ")
                raise InterruptedError("killed")
        DPTrainer.save_checkpoint = save_and_die
        try:
            train(plain, crashed)
        except InterruptedError:
            told["after_kill"] = sorted(p.name for p in crashed.glob("*.index"))
        DPTrainer.save_checkpoint = save
        broken = (("cut", ".data-00000-of-00001", 0.9), ("index", ".index", 0.5), ("meta", ".meta", 0.7))
        for name, suffix, keep in broken:
            shutil.copytree(crashed, folder / name, symlinks=True)
            file = folder / name / f"model.ckpt-40{suffix}"
            file.write_bytes(file.read_bytes()[:int(keep * file.stat().st_size)])
            told[name] = newest_whole_checkpoint(folder / name, BACKENDS["tensorflow"])[0]
        (folder / "cut" / "model.ckpt-20.index").unlink()
        told["none"] = newest_whole_checkpoint(folder / "cut", BACKENDS["tensorflow"])
        told["restart"] = train(plain, crashed).started_from
        told["lcurve"] = (crashed / "lcurve.out").read_text()
        # the same folder with another request: the old run must not be continued, only the given weights count
        warm = train(request(compress=False, n_steps=20, save_freq=20, seed=5, start_lr=2e-6, stop_lr=1e-6,
                             init_checkpoint=folder / "first" / "model.ckpt-100"), crashed)
        told["warm"] = warm.started_from
        told["warm_steps"] = np.loadtxt(crashed / "lcurve.out")[:, 0].tolist()
        wider = json.loads(json.dumps(TEMPLATE))
        wider["model"]["fitting_net"]["neuron"] = [20]
        few = json.loads(json.dumps(TEMPLATE))
        few["model"]["descriptor"]["sel"] = [1, 1, 1, 1]
        good = folder / "first" / "model.ckpt-100"
        told["usable"] = [usable_init_checkpoint(r) is not None for r in (
            request(init_checkpoint=good),
            request(init_checkpoint=folder / "cut" / "model.ckpt-40"),
            request(init_checkpoint=good, template=wider),
            request(init_checkpoint=good, template=few),
            request(init_checkpoint=good, type_map=["B", "Li", "O", "Si"]),
        )]
        over = train(request(compress=False, n_steps=20, save_freq=10, start_lr=2e-6, scratch_steps=30, scratch_lr=5e-4,
                             init_checkpoint=folder / "cut" / "model.ckpt-40"), folder / "over")
        rates = json.loads((folder / "over" / "input.json").read_text())["learning_rate"]
        told["over"] = [over.started_from, over.steps, over.checkpoint.name, rates["start_lr"]]
        import tensorflow as tf
        weights = [tf.train.load_checkpoint(str(folder / c)).get_tensor("layer_0_type_2/matrix")
                   for c in ("first/model.ckpt-100", "crashed/model.ckpt-20", "second/model.ckpt-100")]
        told["moved"] = [float(np.abs(w - weights[0]).max()) for w in weights[1:]]
        print(json.dumps(told))
        """,
    ).result()
    assert told["after_kill"] == ["model.ckpt-20.index", "model.ckpt-40.index", "model.ckpt.index"]
    assert [told[name] for name in ("cut", "index", "meta", "none")] == [20, 20, 20, None]
    assert told["restart"] == "step 40"
    lines = told["lcurve"].splitlines()
    assert sum(line.startswith("# step") for line in lines) == 1
    assert [int(line.split()[0]) for line in lines if not line.startswith("#")] == list(range(0, 61, 20))
    assert told["warm"] == "warm start"
    assert 0 < told["moved"][0] < 1e-3 < 0.1 < told["moved"][1]
    assert told["warm_steps"] == [0, 20]
    assert told["usable"] == [True, False, False, False, False]
    assert told["over"] == ["scratch", 30, "model.ckpt-30", 5e-4], "a training from scratch is as long as one"
