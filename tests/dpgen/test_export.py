"""A campaign becomes a DP-GEN folder: what was imported byte for byte, alloop's own iterations after it."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write
from dpgen_kit import SYSTEMS, cell, job
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import begin, iterate, really, stop_production, train

from alloop import config
from alloop.campaign import Campaign
from alloop.decisions.levels import relabel_content
from alloop.dpgen.export_iteration import Explored, write_iteration
from alloop.dpgen.exporter import Exported, export_dpgen
from alloop.dpgen.importer import import_dpgen
from alloop.dpgen.reader import read_folder, read_list
from alloop.errors import InputError
from alloop.frames import write_arrays
from alloop.tasks.label import read_label

Make = Callable[..., Path]


def export(campaign: Campaign, target: Path) -> Exported:
    campaign.load()
    return export_dpgen(campaign, config.load(campaign.root / "param.json"), target)


def reimported(source: Path, tmp_path: Path, **more: Any) -> Campaign:
    import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal", **more)
    return Campaign(tmp_path / "campaign")


def same(one: Path, other: Path, names: list[str]) -> bool:
    return bool(names) and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def files(folder: Path, *patterns: str) -> list[str]:
    found = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in found)


IMPORTED = ("iter.*/02.fp/*shuffled*", "iter.*/02.fp/data.*/**/*", "iter.*/01.model_devi/cur_job.json", "record.dpgen")


def test_what_was_imported_goes_back_byte_for_byte(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    found = export(reimported(source, tmp_path), tmp_path / "back")
    assert same(source, tmp_path / "back", files(source, *IMPORTED))
    assert same(source / "init", tmp_path / "back" / "init_data", files(source / "init", "**/*"))
    assert same(source / "configs", tmp_path / "back" / "sys_configs", files(source / "configs", "**/*"))
    assert files(tmp_path / "back", *IMPORTED) == files(source, *IMPORTED)
    assert found.iterations == 2
    assert found.next_stage == (2, 3)
    assert found.frames == {"imported": 14}
    graph = tmp_path / "back" / "iter.000002" / "00.train" / "graph.001.pb"
    assert graph.is_symlink() and graph.read_text() == "iteration 2 1 frozen"


def test_reader_finds_what_it_found_before(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    export(reimported(source, tmp_path), tmp_path / "back")
    before, after = read_folder(source), read_folder(tmp_path / "back")
    assert after.record == before.record
    assert [(d.original, d.frames, d.symbols) for d in after.data] == [
        (d.original, d.frames, d.symbols) for d in before.data
    ]
    assert [i.selections for i in after.iterations] == [
        tuple(replace(s, labelled=()) for s in i.selections) for i in before.iterations
    ]
    assert [[f.name for f in group] for group in after.structures] == [[f.name for f in g] for g in before.structures]
    assert after.remarks == ()
    assert after.param["model_devi_jobs"][:2] == before.param["model_devi_jobs"]
    assert len(after.param["model_devi_jobs"]) == 3, "so that dpgen run has something to go on with"
    assert after.machine == before.machine


def test_own_iterations_follow_the_imported_ones(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    param = config.load(tmp_path / "campaign" / "param.json")
    campaign = begin(tmp_path / "campaign", param)
    iterate(campaign, param, 0)
    train(campaign, param, 1)
    found = export(campaign, tmp_path / "back")
    after = read_folder(tmp_path / "back")
    original = (source / "record.dpgen").read_text()
    record = (tmp_path / "back" / "record.dpgen").read_text()
    assert record == original + "".join(f"2 {n}\n" for n in range(3, 9)) + "3 0\n3 1\n3 2\n"
    assert same(source, tmp_path / "back", [name for name in files(source, *IMPORTED) if name != "record.dpgen"])

    select = campaign.state.decisions["select", 0]
    iteration = after.iterations[2]
    assert (iteration.number, iteration.stage) == (2, 8)
    counts = [s.counts() for s in iteration.selections]
    for name in ("accurate", "candidate", "failed"):
        assert sum(count[name] for count in counts) == select["classes"][name]
    assert sum(count["labelled"] for count in counts) == len(select["picks"]) > 0
    assert all(s.labelled == s.candidates[: len(s.labelled)] for s in iteration.selections)
    assert sum(system.frames for system in iteration.data) == len(select["picks"]) == found.frames["explored"]
    assert iteration.job == after.param["model_devi_jobs"][2]
    assert iteration.job is not None and iteration.job["model_devi_f_trust_lo"] == 0.3
    assert after.last_ensemble is not None and after.last_ensemble.number == 3
    for number, key in enumerate(campaign.state.models(1)):
        folder = tmp_path / "back" / "iter.000003" / "00.train"
        assert (folder / f"graph.00{number}.pb").read_text() == f"model-compressed.pb of {key}"
        assert (folder / f"00{number}" / "model.ckpt.index").read_text() == f"index of {key}"
        assert (folder / f"00{number}" / "frozen_model.pb").read_text() == f"model.pb of {key}"
    devi = np.loadtxt(tmp_path / "back" / "iter.000002" / "01.model_devi" / "task.000.000000" / "model_devi.out")
    assert devi.shape == (12, 7) and np.isnan(devi[:, 2:4]).all() and np.isfinite(devi[:, [0, 1, 4, 5, 6]]).all()


def test_labels_of_production_have_no_place_in_dpgen_and_are_told(dpgen_folder: Make, tmp_path: Path) -> None:
    import_dpgen(dpgen_folder(), tmp_path / "campaign", labeler="teter-rehearsal")
    plain = config.load(tmp_path / "campaign" / "param.json")
    param = config.parse(plain.model_dump(mode="json") | {"quench": {"when": "always", "final_ps": 1.0}})
    campaign = begin(tmp_path / "campaign", param)
    iterate(campaign, param, 0)
    stop_production(campaign, param, 0)
    count = len(campaign.state.decisions["guard", 0]["picks"])
    train(campaign, param, 1)
    found = export(campaign, tmp_path / "back")
    assert count > 0 and found.frames["explored"] == len(campaign.state.decisions["select", 0]["picks"])
    assert any(note.startswith(f"{count} label(s) of frames met in production are left out") for note in found.notes)


def test_all_labels_are_among_the_exported(dpgen_folder: Make, tmp_path: Path) -> None:
    import_dpgen(dpgen_folder(), tmp_path / "campaign", labeler="teter-rehearsal")
    param = config.load(tmp_path / "campaign" / "param.json")
    campaign = begin(tmp_path / "campaign", param)
    iterate(campaign, param, 0)
    found = export(campaign, tmp_path / "back")
    after = read_folder(tmp_path / "back")
    keys = campaign.state.labels("training") + campaign.state.labels("held_out")
    assert sum(system.frames for system in after.data) == len(keys) == sum(found.frames.values())
    energies = [np.load(file).ravel() for s in after.data for file in s.folder.rglob("energy.npy")]
    wanted = sorted(read_label(campaign.result(key)).energy_eV for key in keys)
    assert sorted(np.concatenate(energies).tolist()) == wanted
    assert any("held-out labels are among the data" in note for note in found.notes)
    assert found.next_stage == (3, 0)


def test_excluded_labels_stay_behind(dpgen_folder: Make, tmp_path: Path) -> None:
    import_dpgen(dpgen_folder(), tmp_path / "campaign", labeler="teter-rehearsal")
    param = config.load(tmp_path / "campaign" / "param.json")
    campaign = begin(tmp_path / "campaign", param)
    picks = campaign.state.picks
    given_key = next(key for key, pick in picks.items() if pick["given"] and pick["source"]["frame"] == 2)
    own_key = next(key for key, pick in picks.items() if not pick["given"])
    campaign.decide("exclude", keys=[given_key, own_key], undo=False, reason="test")
    found = export(campaign, tmp_path / "back")
    assert found.frames == {"imported": 13, "bootstrap": 3}
    assert any("2 excluded labels are left out" in note for note in found.notes)
    after = read_folder(tmp_path / "back")
    system = after.init_data[0]
    before = np.load(tmp_path / "glass" / "init" / "LBS-20-60-20" / "set.000" / "force.npy")
    left = np.load(system.folder / "set.000" / "force.npy")
    np.testing.assert_array_equal(left, np.delete(before, 2, axis=0))


def test_labels_of_two_levels_do_not_go_out_together(dpgen_folder: Make, tmp_path: Path) -> None:
    import_dpgen(dpgen_folder(), tmp_path / "campaign", labeler="teter-rehearsal")
    file = tmp_path / "campaign" / "param.json"
    campaign = begin(tmp_path / "campaign", config.load(file))
    param = json.loads(file.read_text())
    param["label"]["options"] = {"label": "another level"}
    file.write_text(json.dumps(param))
    changed = config.load(file)
    campaign.decide("relabel", **relabel_content(campaign, changed))
    really(campaign, [campaign.state.tasks[key] for key in campaign.state.waiting])
    found = export(campaign, tmp_path / "back")
    assert found.frames == {"bootstrap": 18}
    assert any("another level of theory" in note for note in found.notes)
    assert not list((tmp_path / "back").glob("iter.00000[01]/02.fp/data.*"))


def test_record_is_cut_back_to_what_is_there(dpgen_folder: Make, tmp_path: Path) -> None:
    """DP-GEN was exploring: its trajectories are not imported, so that exploration is done again."""
    source = dpgen_folder()
    with (source / "record.dpgen").open("a") as stream:
        stream.write("2 3\n2 4\n")
    found = export(reimported(source, tmp_path), tmp_path / "back")
    assert found.next_stage == (2, 3)
    assert any("cut back from iteration 2 stage 4 to 2 2" in note for note in found.notes)
    assert read_folder(tmp_path / "back").record == read_folder(source).record[:-2]


def test_blank_line_at_the_end_of_a_record_does_not_go_back(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    before = (source / "record.dpgen").read_text()
    (source / "record.dpgen").write_text(before + "\n\n")
    export(reimported(source, tmp_path), tmp_path / "back")
    assert (tmp_path / "back" / "record.dpgen").read_text() == before


def test_old_keys_are_left_behind(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(pretty_print=True, init_batch_size=[2, 3], model_devi_jobs=[job(task_min=3, _idx=0), job()])
    found = export(reimported(source, tmp_path), tmp_path / "back")
    param = json.loads((tmp_path / "back" / "param.json").read_text())
    assert "pretty_print" not in param and param["_comment"] == "a comment"
    assert "task_min" not in param["model_devi_jobs"][0] and param["model_devi_jobs"][0]["_idx"] == 0
    assert param["init_batch_size"] == [2, 3]
    assert sum("DP-GEN 0.14 refuses it" in note for note in found.notes) == 2


def test_batch_sizes_are_given_to_what_is_new(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(init_batch_size=[2, 3], sys_batch_size=[4, 5])
    import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    campaign = begin(tmp_path / "campaign", config.load(tmp_path / "campaign" / "param.json"))
    export(campaign, tmp_path / "back")
    param = json.loads((tmp_path / "back" / "param.json").read_text())
    assert param["init_data_sys"] == ["LBS-20-60-20", "LBS-40-20-40", "alloop-bootstrap"]
    assert param["init_batch_size"] == [2, 3, "auto"]
    assert param["sys_batch_size"] == [4, 5]


def test_other_network_or_backend_of_alloops_wins(dpgen_folder: Make, tmp_path: Path) -> None:
    campaign = reimported(dpgen_folder(), tmp_path)
    assert export(campaign, tmp_path / "same").notes[-1].startswith("param.json: model_devi_jobs[2]")
    file = campaign.root / "param.json"
    param = json.loads(file.read_text())
    param["train"] |= {"cutoff_A": 5.0, "backend": "pytorch", "init_models": []}
    file.write_text(json.dumps(param))
    notes = export(campaign, tmp_path / "other").notes
    found = json.loads((tmp_path / "other" / "param.json").read_text())
    assert found["train_backend"] == "pytorch"
    assert found["default_training_param"]["model"]["descriptor"]["rcut"] == 5.0
    assert sum("alloop's" in note for note in notes) == 3


def test_data_from_elsewhere_go_into_the_folder(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(init_data_prefix="", init_data_sys=[str(tmp_path / "data")])
    (source / "init").rename(tmp_path / "data")
    export(reimported(source, tmp_path), tmp_path / "back")
    shutil.rmtree(tmp_path / "data")
    after = read_folder(tmp_path / "back")
    assert after.param["init_data_sys"] == ["outside.000"]
    assert [(system.original, system.frames) for system in after.init_data] == [
        ("outside.000/LBS-20-60-20", 4),
        ("outside.000/LBS-40-20-40", 4),
    ]


def test_trust_on_too_few_labels_is_told(dpgen_folder: Make, tmp_path: Path) -> None:
    found = export(reimported(dpgen_folder(fp_task_min=2), tmp_path), tmp_path / "back")
    notes = [note for note in found.notes if "fewer than fp_task_min 2" in note]
    assert [note.split(":")[0] for note in notes] == ["iter.000000/02.fp/data.001", "iter.000001/02.fp/data.001"]


# ---------------------------------------------------------------------------------------- never DP-GEN's


@pytest.fixture
def own_campaign(tmp_path: Path) -> Campaign:
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(1)
    names = []
    for name in SYSTEMS:
        for number in range(2):
            names.append(f"{name}.{number}.vasp")
            write(folder / names[-1], cell(name, rng), format="vasp")
    param = {
        "name": "own",
        "glasses": [{"name": name, "n_atoms": [size]} for name, size in SYSTEMS.items()],
        "bootstrap": {"trajectories": 0, "structures": names},
        "train": {"models": 2, "cutoff_A": 4.0},
        "explore": {"temperatures_K": [500], "ramps": [{"from_K": 300, "to_K": 900}], "chunk_ps": 0.1, "chunks": 2},
        "label": {"labeler": "teter-rehearsal"},
    }
    (folder / "param.json").write_text(json.dumps(param))
    loaded = config.load(folder / "param.json")
    campaign = begin(folder, loaded)
    iterate(campaign, loaded, 0)
    return campaign


def test_campaign_that_never_was_dpgens(own_campaign: Campaign, tmp_path: Path) -> None:
    found = export(own_campaign, tmp_path / "back")
    after = read_folder(tmp_path / "back")
    assert after.record == tuple((0, stage) for stage in range(9))
    assert after.remarks == ()
    assert after.param["init_data_sys"] == ["alloop-bootstrap"]
    assert [len(names) for names in after.structures] == [2, 2]
    assert after.param["sys_configs"][0][0] == "sys.000/0000.vasp"
    jobs = after.param["model_devi_jobs"]
    assert len(jobs) == 2 and jobs[0] == jobs[1]
    assert (jobs[0]["nsteps"], jobs[0]["temps"], jobs[0]["dt"]) == (200, [500.0], 0.001)
    training = after.param["default_training_param"]
    assert training["model"]["descriptor"]["rcut"] == 4.0
    assert isinstance(training["model"]["descriptor"]["sel"], list)
    assert training["model"]["type_map"] == after.param["type_map"] == ["Li", "B", "O", "Si"]
    assert training["training"]["numb_steps"] == 40000
    assert any("ramps" in note for note in found.notes)
    assert sum("machine.json" in item for item in found.to_fill_in) == 2
    assert after.machine["fp"]["command"] == "FILL-IN label.py"
    assert sum(system.frames for system in after.data) == sum(found.frames.values())


def test_script_that_labels_for_dpgen(own_campaign: Campaign, tmp_path: Path) -> None:
    export(own_campaign, tmp_path / "back")
    work = tmp_path / "task"
    work.mkdir()
    shutil.copyfile(tmp_path / "back" / "sys_configs" / "sys.000" / "0000.vasp", work / "POSCAR")
    subprocess.run([sys.executable, str(tmp_path / "back" / "label.py")], cwd=work, check=True, timeout=60)
    energy = np.load(work / "labeled" / "set.000" / "energy.npy").item()
    wanted = [read_label(own_campaign.result(key)).energy_eV for key in own_campaign.state.picks]
    assert np.isclose(energy, wanted, rtol=0, atol=1e-6).any()


def test_nothing_to_export(tmp_path: Path) -> None:
    (tmp_path / "param.json").write_text(json.dumps({"name": "a", "glasses": ["LBS-20-60-20"]}))
    with pytest.raises(InputError, match="no label is finished yet"):
        export(Campaign(tmp_path), tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["param.json"]


def test_folder_that_holds_something_is_not_written_to(own_campaign: Campaign, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an empty folder"):
        export(own_campaign, tmp_path / "own")


# ---------------------------------------------------------------------------------------- counts of any size

LOW, HIGH = 0.5, 2.0
deviations = st.lists(st.sampled_from([0.1, 1.0, 5.0]), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 2), deviations), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_lists_come_back_in_their_numbers(
    tmp_path_factory: Any, chunks: list[tuple[int, list[float]]], random: Any
) -> None:
    root = tmp_path_factory.mktemp("export")
    explored, picks = [], []
    wanted: dict[int, dict[str, int]] = {}
    for number, (system, values) in enumerate(chunks):
        result = root / f"result{number}"
        result.mkdir()
        steps = 10 * np.arange(1, len(values) + 1)
        table = {f"{name}_force_deviation_eV_A": np.array(values, dtype=float) for name in ("max", "mean", "min")}
        write_arrays(result / "table.npz", {"step": steps, "max_virial_deviation_eV": np.zeros(len(values))} | table)
        condition = {"ensemble": "nvt", "temperature_start_K": 300.0, "pressure_bar": 0.0, "timestep_fs": 1.0}
        entry = {"key": str(number), "name": f"chunk{number}", "spec": {"condition": condition}}
        explored.append(Explored(entry, system, result, (LOW, HIGH)))
        asked = [step for step in steps.tolist() if random.random() < 0.3]
        picks += [{"source": {"task": str(number)}, "step": step} for step in asked]
        count = wanted.setdefault(system, {"candidate": 0, "accurate": 0, "failed": 0, "labelled": 0})
        count["labelled"] += len(asked)
        for step, value in zip(steps.tolist(), values, strict=True):
            name = "candidate" if LOW <= value < HIGH or step in asked else "accurate" if value < LOW else "failed"
            count[name] += 1
    back = root / "back"
    write_iteration(back / "iter.000000", {"sys_idx": [0]}, explored, picks, {}, ["Li"])
    (back / "record.dpgen").write_text("".join(f"0 {stage}\n" for stage in range(9)))
    (back / "param.json").write_text("{}")
    (iteration,) = read_folder(back).iterations
    assert {s.system: s.counts() for s in iteration.selections} == wanted
    lists = (back / "iter.000000" / "02.fp").glob("*.shuffled.*.out")
    assert len({name for file in lists for name in read_list(file)}) == sum(len(values) for _, values in chunks)
