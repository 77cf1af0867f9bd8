"""What is read of a DP-GEN folder, what is passed over, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dpgen_kit import FORMULAS, LABELLED, job, write_iteration, write_system

from alloop.dpgen.layout import FrameName
from alloop.dpgen.reader import read_folder, read_list, read_record
from alloop.errors import InputError

Make = Callable[..., Path]


def test_everything_is_read(dpgen_folder: Make) -> None:
    folder = read_folder(dpgen_folder())
    assert folder.record[-1] == (2, 2)
    assert folder.labelled_iterations == 2
    assert [(system.original, system.frames) for system in folder.init_data] == [
        ("LBS-20-60-20", 4),
        ("LBS-40-20-40", 4),
    ]
    assert [system.original for system in folder.iterations[1].data] == [
        f"iter.000001/02.fp/data.{number:03d}/{formula}" for number, formula in FORMULAS.items()
    ]
    assert [system.formula for system in folder.iterations[0].data] == list(FORMULAS.values())
    assert [iteration.stage for iteration in folder.iterations] == [8, 8, 2]
    assert folder.last_ensemble is not None and folder.last_ensemble.number == 2
    assert [model.checkpoint.name for model in folder.last_ensemble.models if model.checkpoint] == ["model.ckpt"] * 2
    assert [[file.name for file in files] for files in folder.structures] == [["POSCAR.0", "POSCAR.1"]] * 2
    assert folder.remarks == ()


def test_lists_and_what_was_labelled(dpgen_folder: Make) -> None:
    selections = read_folder(dpgen_folder()).iterations[0].selections
    assert selections[0].counts() == {"candidate": 3, "accurate": 2, "failed": 1, "labelled": 2}
    assert selections[1].counts() == {"candidate": 2, "accurate": 3, "failed": 1, "labelled": 1}
    md = "iter.000000/01.model_devi/task.000.000000"
    assert selections[0].labelled == tuple(FrameName(md, step) for step in LABELLED[0])
    assert selections[0].labelled[0].line() == f"{md} 0"


def test_links_to_trajectories_that_are_gone_still_name_their_frames(dpgen_folder: Make) -> None:
    root = dpgen_folder()
    before = read_folder(root).iterations
    for place in root.glob("iter.*/01.model_devi/task.*/traj"):
        shutil.rmtree(place)
    assert [i.selections for i in read_folder(root).iterations] == [i.selections for i in before]


def test_labelled_frames_of_merged_trajectories_are_the_first_candidates(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    before = read_folder(root).iterations[0].selections
    for link in root.glob("iter.*/02.fp/task.*/conf.dump"):
        link.unlink()
        link.write_text("a frame")
    assert read_folder(root).iterations[0].selections == before


def test_folders_set_aside_are_left_out(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    before = read_folder(root)
    rng = np.random.default_rng(0)
    write_iteration(root, 7, job(), rng)
    (root / "iter.000007").rename(root / "iter.000000.bk000")
    write_system(root / "iter.000000" / "02.fp" / "data.000.bk000" / "Li2B6O12Si1", "LBS-20-60-20", 3, rng)
    shutil.copytree(root / "iter.000000" / "02.fp", root / "iter.000000" / "02.fp.bk000", symlinks=True)
    task = root / "iter.000000" / "02.fp" / "task.000.000000"
    shutil.copytree(task, task.with_name(task.name + ".bk000"), symlinks=True)
    assert read_folder(root) == before


def test_blank_lines_of_a_record_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "record.dpgen").write_text("0 0\n\n0 1\n   \n0 2\n\n")
    assert read_record(tmp_path / "record.dpgen") == ((0, 0), (0, 1), (0, 2))


@pytest.mark.parametrize("line", ["1", "0 9", "0 1 2", "zero 1", "-1 3"])
def test_broken_line_of_a_record_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "record.dpgen").write_text(f"0 0\n{line}\n")
    with pytest.raises(InputError, match=r"record\.dpgen, line 2: found '.*', expected an iteration and a stage"):
        read_record(tmp_path / "record.dpgen")


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no record\.dpgen"):
        read_folder(tmp_path)


def test_iterations_without_a_record(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    (root / "record.dpgen").unlink()
    with pytest.raises(InputError, match=r"holds no record\.dpgen"):
        read_folder(root)


def test_campaign_that_has_not_begun(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    (root / "record.dpgen").unlink()
    for place in root.glob("iter.*"):
        shutil.rmtree(place)
    folder = read_folder(root)
    assert folder.labelled_iterations == 0
    assert folder.iterations == () and len(folder.init_data) == 2


def test_iteration_the_record_tells_of_is_missing(dpgen_folder: Make) -> None:
    root = dpgen_folder()
    shutil.rmtree(root / "iter.000001")
    with pytest.raises(InputError, match=r"tells of iter\.000001, which is not there"):
        read_folder(root)


def test_param_of_another_name(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    (root / "param.json").rename(root / "run.json")
    with pytest.raises(InputError, match=r"no param\.json .*\n.*--param NAME"):
        read_folder(root)
    assert read_folder(root, "run.json").param["numb_models"] == 2


def test_yaml(dpgen_folder: Make) -> None:
    import yaml

    root = dpgen_folder(1)
    param = read_folder(root).param
    (root / "param.yaml").write_text(yaml.safe_dump(param))
    assert read_folder(root, "param.yaml").param == param
    (root / "param.yaml").write_text("a: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        read_folder(root, "param.yaml")


def test_machine_file_may_be_missing(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    (root / "machine.json").unlink()
    folder = read_folder(root)
    assert folder.machine == {}
    assert folder.remarks[0][0] == "machine.json"


def test_list_cut_short_is_named(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    file = root / "iter.000000" / "02.fp" / "candidate.shuffled.000.out"
    file.write_text(file.read_text() + "iter.000000/01.model_devi/task.000.0")
    with pytest.raises(
        InputError, match=r"candidate\.shuffled\.000\.out, line 4: found .* expected an MD task and a step"
    ):
        read_folder(root)


def test_atoms_of_clusters_are_read(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    file = root / "iter.000000" / "02.fp" / "rest_failed.shuffled.000.out"
    file.write_text("iter.000000/01.model_devi/task.000.000000 50 17\n")
    assert read_folder(root).iterations[0].selections[0].failed == 1
    (frame,) = read_list(file)
    assert (frame.step, frame.atom) == (50, 17)
    assert frame.line() + "\n" == file.read_text()


def test_data_that_cannot_be_trained_on_tell_why(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    system = root / "init" / "LBS-20-60-20"
    cases = {
        "has no virial.npy": lambda: (system / "set.000" / "virial.npy").unlink(),
        "arrays of different numbers of frames": lambda: np.save(system / "set.000" / "energy.npy", np.zeros((3, 1))),
        "no multiple of 63": lambda: np.save(system / "set.000" / "coord.npy", np.zeros((4, 62))),
        "force.npy cannot be read": lambda: (system / "set.000" / "force.npy").write_bytes(b"no numbers"),
        "is of mixed type": lambda: np.save(system / "set.000" / "real_atom_types.npy", np.zeros(1)),
        "is not periodic": lambda: (system / "nopbc").touch(),
        "holds Xx": lambda: (system / "type_map.raw").write_text("Li\nB\nO\nXx\n"),
        "holds no set": lambda: shutil.rmtree(system / "set.000"),
    }
    pristine = root / "pristine"
    shutil.copytree(system, pristine)
    for expected, spoil in cases.items():
        spoil()
        problem = read_folder(root).init_data[0].problem
        assert problem is not None and expected in problem
        shutil.rmtree(system)
        shutil.copytree(pristine, system)


def test_initial_data_that_are_missing_or_hdf5_are_told(dpgen_folder: Make) -> None:
    root = dpgen_folder(1, init_data_sys=["LBS-20-60-20", "nowhere", "data.hdf5#/Li2"])
    folder = read_folder(root)
    assert len(folder.init_data) == 1
    assert [what for what, _ in folder.remarks] == ["init_data_sys[1]", "init_data_sys[2]"]
    assert "HDF5" in folder.remarks[1][1]


def test_structures_that_match_nothing_are_told(dpgen_folder: Make) -> None:
    folder = read_folder(dpgen_folder(1, sys_configs=[["LBS-20-60-20/POSCAR.*"], ["nothing/*"]]))
    assert len(folder.structures[0]) == 2 and folder.structures[1] == ()
    assert folder.remarks[0][0] == "sys_configs[1]"


def test_labelling_that_was_never_collected_is_told(dpgen_folder: Make) -> None:
    root = dpgen_folder(1)
    for place in (root / "iter.000000" / "02.fp").glob("data.*"):
        shutil.rmtree(place)
    shutil.rmtree(root / "iter.000001")
    (root / "record.dpgen").write_text("".join(f"0 {stage}\n" for stage in range(8)))
    folder = read_folder(root)
    assert folder.labelled_iterations == 0
    assert "3 labelling runs were never collected (it stopped in stage 8, post_fp)" in folder.remarks[0][1]


def test_labels_behind_the_end_of_the_record_are_left_out(dpgen_folder: Make) -> None:
    """Someone set the record back to have the labelling done again: DP-GEN would not train on what is there."""
    root = dpgen_folder(2)
    (root / "record.dpgen").write_text("".join(f"0 {stage}\n" for stage in range(6)))
    folder = read_folder(root)
    assert folder.labelled_iterations == 0
    assert [iteration.data for iteration in folder.iterations] == [(), (), ()]
    assert [what for what, _ in folder.remarks] == ["iter.000000/02.fp", "iter.000001/02.fp"]
    assert "3 labelled frames are left out" in folder.remarks[0][1]


def test_labels_collected_but_not_recorded_count(dpgen_folder: Make) -> None:
    """post_fp that found too many failures has written the data before it ends without a line in the record."""
    root = dpgen_folder(1)
    shutil.rmtree(root / "iter.000001")
    (root / "record.dpgen").write_text("".join(f"0 {stage}\n" for stage in range(8)))
    folder = read_folder(root)
    assert folder.labelled_iterations == 1
    assert sum(system.frames for system in folder.iterations[0].data) == 3
