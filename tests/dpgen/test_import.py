"""A DP-GEN folder becomes a campaign folder: data bit for bit, the last models, starts, and an inventory of it all."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from double_potcar import make_potcar_library
from dpgen_kit import LABELLED, SYSTEMS, job
from made_up import begin

from alloop import config
from alloop.campaign import Campaign
from alloop.dpgen.importer import UNKNOWN_LEVEL, import_dpgen, read_inventory
from alloop.dpgen.reader import read_folder
from alloop.errors import InputError
from alloop.frames import read_columns
from alloop.labelers.levels import target_level
from alloop.preflight import preflight
from alloop.tasks.label import read_label
from alloop.tasks.sources import checkpoint_hash, read_structures_file

Make = Callable[..., Path]


@pytest.fixture
def imported(dpgen_folder: Make, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Make a DP-GEN folder, import it, and return both folders."""

    def make(**more: Any) -> tuple[Path, Path]:
        source = dpgen_folder(**more)
        import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
        return source, tmp_path / "campaign"

    return make


def inventory_of(folder: Path) -> dict[str, Any]:
    found = read_inventory(folder)
    assert found is not None
    return found


def test_labelled_data_come_bit_for_bit(imported: Callable[..., tuple[Path, Path]]) -> None:
    source, folder = imported()
    entries = inventory_of(folder)["data"]
    originals = read_folder(source).data
    assert [entry["frames"] for entry in entries] == [4, 4, 2, 1, 2, 1]
    for entry, system in zip(entries, originals, strict=True):
        target = folder / "imported" / entry["path"]
        names = sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
        assert names == sorted(f.relative_to(system.folder).as_posix() for f in system.folder.rglob("*") if f.is_file())
        assert all(filecmp.cmp(target / name, system.folder / name, shallow=False) for name in names)


def test_campaign_passes_the_preflight(imported: Callable[..., tuple[Path, Path]]) -> None:
    _, folder = imported()
    param = config.load(folder / "param.json")
    assert [str(problem) for problem in preflight(Campaign(folder), param)] == []
    assert {data.role for data in param.bootstrap.data} == {"training"}
    assert {data.level for data in param.bootstrap.data} == {"teter-rehearsal"}


def test_ensemble_goes_on_from_the_last_models(imported: Callable[..., tuple[Path, Path]]) -> None:
    source, folder = imported()
    param = config.load(folder / "param.json")
    assert param.train.init_models == [f"imported/models/00{n}/model.ckpt" for n in range(2)]
    for number, name in enumerate(param.train.init_models):
        original = source / "iter.000002" / "00.train" / f"00{number}" / "model.ckpt"
        assert checkpoint_hash(folder / name, "tensorflow") == checkpoint_hash(original, "tensorflow")
        assert not (folder / name).with_name("model.ckpt.index").is_symlink()


def test_labels_in_alloop_are_those_of_dpgen(imported: Callable[..., tuple[Path, Path]]) -> None:
    _, folder = imported()
    campaign = begin(folder, config.load(folder / "param.json"))
    given = [key for key, pick in campaign.state.picks.items() if pick["given"]]
    assert len(given) == 14
    assert set(given) <= set(campaign.state.labels("training"))
    own = [key for key in campaign.state.picks if key not in given]
    assert len(own) == 4, "each start structure is labelled"
    assert set(campaign.state.labels("held_out")) < set(own)
    energies = sorted(read_label(campaign.result(key)).energy_eV for key in given)
    arrays = [np.load(file) for file in (folder / "imported" / "data").rglob("energy.npy")]
    assert energies == sorted(np.concatenate([array.ravel() for array in arrays]).tolist())


def test_exploration_begins_from_the_start_structures(imported: Callable[..., tuple[Path, Path]]) -> None:
    source, folder = imported()
    param = config.load(folder / "param.json")
    assert len(param.bootstrap.structures) == 4
    first = read_structures_file(folder / param.bootstrap.structures[0])[0]
    original = read_structures_file(source / "configs" / "LBS-20-60-20" / "POSCAR.0")[0]
    np.testing.assert_allclose(first.positions, original.positions, atol=1e-12)
    assert first.get_chemical_symbols() == original.get_chemical_symbols()
    campaign = begin(folder, param)
    names = [entry["name"] for entry in campaign.state.decisions["bootstrap", -1]["tasks"]]
    assert names[0].startswith("structures00")
    (entry,) = [e for e in campaign.state.decisions["bootstrap", -1]["tasks"] if e["name"] == names[0]]
    assert read_columns(campaign.result(entry["key"]))["n_atoms"].tolist() == [21]


def test_inventory_tells_iterations_lists_and_labels(imported: Callable[..., tuple[Path, Path]]) -> None:
    _, folder = imported()
    found = inventory_of(folder)
    assert found["iterations"] == 2
    assert found["record"] == [2, 2]
    assert found["initial_frames"] == 8
    second = found["per_iteration"][1]
    assert second["frames"] == 3
    assert second["trust_levels_eV_A"] == {"lo": [0.3], "hi": [3.0]}
    assert second["systems"]["000"] == {"candidate": 3, "accurate": 2, "failed": 1, "labelled": 2}
    wanted = [f"iter.000001/01.model_devi/task.{s:03d}.000000 {step}" for s in LABELLED for step in LABELLED[s]]
    assert second["labelled"] == wanted
    assert found["systems"] == [
        {"system": number, "glass": name, "n_atoms": size} for number, (name, size) in enumerate(SYSTEMS.items())
    ]
    assert {entry["key"] for entry in found["not_translated"]} >= {"fp_task_min", "fp_task_max"}


def test_candidates_without_labels_come_if_their_frames_are_there(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    found = import_dpgen(source, tmp_path / "one", labeler="teter-rehearsal").inventory
    assert [(entry["unlabelled"], entry["frames"]) for entry in found["candidates"]] == [(1, 1), (1, 1)]
    (atoms,) = read_structures_file(tmp_path / "one" / "imported" / found["candidates"][0]["path"])
    assert atoms.info == {"task": "iter.000001/01.model_devi/task.000.000000", "step": 20}
    for place in source.glob("iter.*/01.model_devi/task.*/traj"):
        shutil.rmtree(place)
    found = import_dpgen(source, tmp_path / "other", labeler="teter-rehearsal").inventory
    assert [(entry["unlabelled"], entry["frames"]) for entry in found["candidates"]] == [(1, 0), (1, 0)]
    (gone,) = [entry for entry in found["not_translated"] if "without labels" in entry["key"]]
    assert gone["why"] == "their trajectories are gone, so they are left out"


def test_labeler_that_dpgen_does_not_tell_is_to_fill_in(dpgen_folder: Make, tmp_path: Path) -> None:
    made = import_dpgen(dpgen_folder(), tmp_path / "campaign")
    assert {data["level"] for data in made.param["bootstrap"]["data"]} == {UNKNOWN_LEVEL}
    assert any("label.labeler" in item for item in made.inventory["to_fill_in"])
    assert any(UNKNOWN_LEVEL in item for item in made.inventory["to_fill_in"])
    problems = [str(problem) for problem in preflight(Campaign(made.root), config.load(made.root / "param.json"))]
    assert any("fill_in" in problem for problem in problems)


def test_vasp_without_its_potcars_is_to_fill_in(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(fp_style="vasp", fp_pp_path="paw", fp_pp_files=["Li", "B", "O", "Si"], fp_incar="INCAR")
    (source / "INCAR").write_text("ENCUT = 600\nISMEAR = 0\nKSPACING = 0.5\n")
    made = import_dpgen(source, tmp_path / "campaign")
    param = config.load(made.root / "param.json")
    assert param.label.vasp is not None and param.label.vasp.kpoint_spacing_inv_A == 0.5
    assert "ENCUT" in (made.root / "templates" / "vasp" / "INCAR").read_text()
    assert {data.level for data in param.bootstrap.data} == {UNKNOWN_LEVEL}


@pytest.mark.parametrize("gamma", [".TRUE.", ".FALSE."])
def test_level_of_vasp_labels_where_their_potcars_are(dpgen_folder: Make, tmp_path: Path, gamma: str) -> None:
    """With meshes that leave out the Gamma point DP-GEN's labels may not be alloop's, so a person must say."""
    more = {"fp_style": "vasp", "fp_pp_path": "../paw", "fp_incar": "INCAR"}
    source = dpgen_folder(fp_pp_files=["Li_sv/POTCAR", "B/POTCAR", "O/POTCAR", "Si/POTCAR"], **more)
    make_potcar_library(tmp_path / "paw")
    (source / "INCAR").write_text(f"ENCUT = 600\nPREC = Accurate\nKSPACING = 0.5\nKGAMMA = {gamma}\n")
    made = import_dpgen(source, tmp_path / "campaign")
    param = config.load(made.root / "param.json")
    (name,) = {data.level for data in param.bootstrap.data}
    if gamma == ".TRUE.":
        assert made.inventory["to_fill_in"] == []
        assert name == target_level(param.label, param.elements, made.root).name
        assert [str(problem) for problem in preflight(Campaign(made.root), param) if "level" in str(problem)] == []
    else:
        assert name == UNKNOWN_LEVEL


def test_campaign_that_starts_from_models_of_its_own(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(0, training_init_model=True, training_iter0_model_path=["old/00?"])
    (source / "iter.000000" / "00.train").rename(source / "old")
    (source / "iter.000000").rmdir()
    (source / "record.dpgen").unlink()
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert made.inventory["iterations"] == 0
    first = made.root / made.param["train"]["init_models"][0]
    assert first.with_name("model.ckpt.index").read_text() == "iteration 0 0 index"
    assert begin(made.root, config.load(made.root / "param.json")).state.labels("training")


def test_source_is_not_changed(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    before = {file: file.lstat().st_mtime_ns for file in source.rglob("*")}
    import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert {file: file.lstat().st_mtime_ns for file in source.rglob("*")} == before


def test_nothing_is_overwritten_and_nothing_half_made_is_left(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    target = tmp_path / "campaign"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(InputError, match="is not an empty folder"):
        import_dpgen(source, target)
    (target / "mine").unlink()
    (source / "configs" / "LBS-20-60-20" / "POSCAR.0").write_text("no structure")
    with pytest.raises(InputError, match=r"POSCAR\.0 cannot be read as vasp/poscar"):
        import_dpgen(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["campaign", "glass"]
    assert list(target.iterdir()) == []


def test_campaign_without_a_glass_is_refused_with_every_reason(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    atoms = Atoms("Li4B4O20Si4", positions=np.random.default_rng(0).uniform(0, 9, (32, 3)), cell=[9] * 3, pbc=True)
    for file in source.glob("configs/*/*"):
        write(file, atoms, format="vasp")
    with pytest.raises(InputError, match=r"sys_configs\[1\].*its oxides would take 16 O, but it holds 20"):
        import_dpgen(source, tmp_path / "campaign")


def test_elements_outside_the_type_map_are_named(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    write(source / "configs/LBS-20-60-20/POSCAR.0", Atoms("NaCl", positions=[[0] * 3, [3] * 3], cell=[8] * 3))
    with pytest.raises(InputError, match=r"POSCAR\.0 cannot be read as vasp/poscar.*type_map"):
        import_dpgen(source, tmp_path / "campaign")


def test_data_alloop_cannot_train_on_are_kept_aside(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    (source / "init" / "LBS-20-60-20" / "set.000" / "virial.npy").unlink()
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert len(made.param["bootstrap"]["data"]) == 5
    assert (made.root / "imported" / "data" / "init000-LBS-20-60-20" / "set.000" / "energy.npy").is_file()
    reasons = {entry["key"]: entry["why"] for entry in made.inventory["not_translated"]}
    assert "4 labelled frames are kept aside: has no virial.npy" in reasons["LBS-20-60-20"]
    for file in source.rglob("virial.npy"):
        file.unlink()
    with pytest.raises(InputError, match="no labelled data that alloop could train on"):
        import_dpgen(source, tmp_path / "other", labeler="teter-rehearsal")


def test_system_without_a_type_map_of_its_own_gets_the_campaigns(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    (source / "init" / "LBS-20-60-20" / "type_map.raw").unlink()
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    copied = made.root / "imported" / "data" / "init000-LBS-20-60-20" / "type_map.raw"
    assert copied.read_text().split() == ["Li", "B", "O", "Si"]


def test_ensemble_of_another_size_starts_from_scratch(dpgen_folder: Make, tmp_path: Path) -> None:
    made = import_dpgen(dpgen_folder(numb_models=4), tmp_path / "campaign", labeler="teter-rehearsal")
    assert "init_models" not in made.param["train"]
    assert any(entry["key"] == "models" for entry in made.inventory["not_translated"])


def test_many_start_structures_are_thinned(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    for number in range(2, 30):
        shutil.copyfile(source / "configs/LBS-20-60-20/POSCAR.0", source / f"configs/LBS-20-60-20/POSCAR.{number}")
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert len(made.param["bootstrap"]["structures"]) == 22
    assert len(list((made.root / "imported/original/sys_configs/LBS-20-60-20").iterdir())) == 30
    assert any("20 of 30 start structures" in entry["why"] for entry in made.inventory["not_translated"])


def test_data_and_structures_elsewhere(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder()
    (source / "init").rename(tmp_path / "data")
    (source / "configs").rename(tmp_path / "starts")
    param = json.loads((source / "param.json").read_text())
    del param["init_data_prefix"], param["sys_configs_prefix"]
    param["init_data_sys"] = [str(tmp_path / "data" / "LBS-20-60-20"), "../data/LBS-40-20-40"]
    param["sys_configs"] = [["../starts/LBS-20-60-20/*"], [str(tmp_path / "starts" / "LBS-40-20-40" / "POSCAR.*")]]
    (source / "param.json").write_text(json.dumps(param))
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert len(made.param["bootstrap"]["structures"]) == 4
    assert made.inventory["initial_frames"] == 8
    assert [entry["entry"] for entry in made.inventory["data"][:2]] == ["outside.000", "outside.001"]


def test_next_job_counts_from_the_labelled_iterations(dpgen_folder: Make, tmp_path: Path) -> None:
    source = dpgen_folder(model_devi_jobs=[job(), job(), job(temps=[3000])])
    made = import_dpgen(source, tmp_path / "campaign", labeler="teter-rehearsal")
    assert made.param["explore"]["temperatures_K"] == [3000.0]
    assert made.param["stop"] == {"max_iterations": 1}
