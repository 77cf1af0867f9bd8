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
from engine_kit import (
    attempt_command,
    failure_of,
    fingerprint,
    level,
    prepared_label,
    publish_text,
    structure,
    wait_for,
    write_attempt,
)

from alloop import attempt as runner
from alloop import store
from alloop.campaign import label_task
from alloop.labelers import load
from alloop.process import ProcessIdentity
from alloop.store import MANIFEST, Store, read_json, write_json
from alloop.structure import from_record
from alloop.tasks.label import read_label

Start = Callable[..., subprocess.Popen[bytes]]


def attempts_left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "attempts").iterdir()]


@pytest.fixture
def sleeper(start: Start) -> ProcessIdentity:
    return ProcessIdentity.of(start(["sleep", "120"]).pid)


def test_several_tasks_in_one_process(tmp_path: Path, start: Start) -> None:
    """All fates at once: each task has its own end, and none spoils its neighbours."""
    good, good_folder = prepared_label(tmp_path, 0)
    done, done_folder = prepared_label(tmp_path, 1)
    raising, raising_folder = prepared_label(tmp_path, 2, level("engine_labelers:Raises"))
    nan, nan_folder = prepared_label(tmp_path, 3, level("engine_labelers:NoNumber"))
    missing, missing_folder = prepared_label(tmp_path, 4, level("engine_labelers:Absent"))
    last, last_folder = prepared_label(tmp_path, 5)
    publish_text(done_folder, done.key, "{}")
    before = fingerprint(done_folder)
    order = (good_folder, done_folder, raising_folder, nan_folder, missing_folder, last_folder)
    process = start(attempt_command(*order))
    assert process.wait(60) == 1, "some failed"

    place = Store(tmp_path)
    assert place.check_result(good) and place.check_result(last)
    assert fingerprint(done_folder) == before, "a finished task is not touched"
    for task in (raising, nan, missing):
        assert not place.is_done(task)
    raised = failure_of(raising_folder)
    assert raised["class"] == "bug"
    assert raised["message"] == "RuntimeError: the self-consistent cycle did not converge"
    assert "SCF step 60" in raised["detail"] and "warning from below Python" in raised["detail"]
    assert "engine_labelers.py" in raised["detail"], "the traceback tells where"
    assert (failure_of(nan_folder)["class"], failure_of(nan_folder)["message"]) == (
        "numeric",
        "TaskError: forces not finite",
    )
    assert failure_of(missing_folder)["class"] == "bug"

    record = read_json(good_folder / "result" / MANIFEST)["record"]
    assert record["pid"] == process.pid and record["threads"] == 1 and record["seconds"] > 0
    assert attempts_left(good_folder) == [record["attempt"]]
    assert not (good_folder / "attempts" / record["attempt"] / "work").exists()
    frame = read_label(good_folder / "result")
    expected = load("teter-rehearsal", {}).label(from_record(structure(0)))
    assert frame.energy_eV == expected.energy_eV
    assert np.array_equal(frame.forces_eV_A, expected.forces_eV_A)
    assert np.array_equal(frame.virial_eV, expected.virial_eV)


def test_wrong_path_is_a_bug_unless_the_machine_has_a_part_in_it(tmp_path: Path, start: Start) -> None:
    """An `infra` failure is tried twenty times and blames the node; one bug would shut out node after node."""
    expected = {
        "no-such-file": "bug",
        "file.txt/below": "bug",
        "folder": "bug",
        "denied": "bug",
        "stale": "infra",
        "launch": "infra",
        "launch in no folder": "infra",
    }
    (tmp_path / "file.txt").touch()
    folders = [
        prepared_label(tmp_path, number, level("engine_labelers:WrongPath", how=how, place=str(tmp_path)))[1]
        for number, how in enumerate(expected)
    ]
    assert start(attempt_command(*folders)).wait(60) == 1
    found = {how: failure_of(folder)["class"] for how, folder in zip(expected, folders, strict=True)}
    assert found == expected


def test_file_of_an_input_is_missing_by_the_node_s_fault_only_while_it_sees_no_result(
    tmp_path: Path, start: Start
) -> None:
    place, found = Store(tmp_path), []
    for number in range(2):
        first, first_folder = prepared_label(tmp_path, number)
        wrong = level("engine_labelers:WrongPath", how="no.json", place=str(first_folder / "result"))
        second = label_task("iter.000000/label", f"second.{number}", structure(9), wrong, (first.key,))
        folder = place.prepare(second, "campaign-id", {first.key: first.folder})
        if number:
            publish_text(first_folder, first.key, "{}")
        assert start(attempt_command(folder)).wait(60) == 1
        found.append(failure_of(folder)["class"])
    assert found == ["infra", "bug"]


def test_follower_of_a_failed_task_waits_for_its_next_try(tmp_path: Path, start: Start) -> None:
    """A chunk that ran without its predecessor would publish for ever that there is nothing to go on from."""
    place = Store(tmp_path)
    first, first_folder = prepared_label(tmp_path, 0, level("engine_labelers:Raises"))
    second = label_task("iter.000000/label", "second", structure(1), level(), (first.key,))
    third = label_task("iter.000000/label", "third", structure(2), level(), (second.key,))
    second_folder = place.prepare(second, "campaign-id", {first.key: first.folder})
    third_folder = place.prepare(third, "campaign-id", {second.key: second.folder})
    other, other_folder = prepared_label(tmp_path, 3)
    folders = (first_folder, second_folder, third_folder, other_folder)
    assert start(attempt_command(*folders)).wait(60) == 1
    assert failure_of(first_folder)["class"] == "bug"
    for task, folder in ((second, second_folder), (third, third_folder)):
        assert not place.is_done(task) and attempts_left(folder) == [], "neither a result nor a failure"
    assert place.is_done(other)
    assert start(attempt_command(second_folder, third_folder)).wait(60) == 0
    assert place.is_done(second) and place.is_done(third), "once the first is given up, they find out for themselves"


def test_each_result_is_published_as_its_task_ends(tmp_path: Path, start: Start) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    first, first_folder = prepared_label(tmp_path, 0)
    _, second_folder = prepared_label(tmp_path, 1, level("engine_labelers:Gated", gate=str(gate)))
    process = start(attempt_command(first_folder, second_folder))
    wait_for(lambda: Store(tmp_path).is_done(first))
    wait_for(lambda: store.live_attempt(second_folder))
    assert process.poll() is None
    gate.unlink()
    assert process.wait(30) == 0
    assert (second_folder / "result").is_dir()


def test_second_try_after_a_failure_counts_it(tmp_path: Path, start: Start) -> None:
    task, folder = prepared_label(tmp_path, 0)
    gone = ProcessIdentity.of(os.getpid()).to_json() | {"start_ticks": 1}
    failed = write_attempt(folder, "failed", gone, {"class": "bug", "message": "m", "detail": "", "time": "1"})
    killed = write_attempt(folder, "killed", gone)
    for earlier in (failed, killed):
        (earlier / "work").mkdir()
    assert start(attempt_command(folder)).wait(30) == 0
    assert Store(tmp_path).check_result(task)
    assert read_json(folder / "result" / MANIFEST)["record"]["failed_attempts"] == 1
    assert (failed / "work").exists(), "what a failed attempt left can be looked at"
    assert not (killed / "work").exists(), "the scratch of a killed one is of no more use"


def test_task_with_a_live_attempt_elsewhere_is_left_alone(
    tmp_path: Path, start: Start, sleeper: ProcessIdentity
) -> None:
    task, folder = prepared_label(tmp_path, 0)
    write_attempt(folder, "other", sleeper.to_json())
    assert start(attempt_command(folder)).wait(30) == 0
    assert attempts_left(folder) == ["other"] and not Store(tmp_path).is_done(task)
    os.kill(sleeper.pid, 9)
    wait_for(lambda: not sleeper.alive())
    assert start(attempt_command(folder)).wait(30) == 0
    assert Store(tmp_path).check_result(task)


def test_live_process_that_already_failed_at_the_task_does_not_hold_it(
    tmp_path: Path, start: Start, sleeper: ProcessIdentity
) -> None:
    """It goes on with other tasks of its batch; waiting for it would be waiting for the wrong work."""
    task, folder = prepared_label(tmp_path, 0)
    failed = {"class": "bug", "message": "m", "detail": "", "time": "1"}
    write_attempt(folder, "other", sleeper.to_json(), failed)
    assert start(attempt_command(folder)).wait(30) == 0
    assert Store(tmp_path).check_result(task)


def test_result_that_lands_between_the_two_looks_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = prepared_label(tmp_path, 0)

    def begin_late(task_folder: Path, waited_s: float | None) -> store.Attempt:
        publish_text(task_folder, task.key, "{}")
        return store.begin_attempt(task_folder, waited_s)

    monkeypatch.setattr(runner, "begin_attempt", begin_late)
    assert runner.run_tasks([folder], None) == 0
    assert len(attempts_left(folder)) == 1, "only the publisher's"


@pytest.mark.parametrize(
    ("driver_epoch", "runs"), [(7, True), (8, False), (None, True), ("no file", True), ("half a file", True)]
)
def test_no_task_is_begun_for_a_driver_that_lost_the_campaign(
    tmp_path: Path, start: Start, driver_epoch: Any, runs: bool
) -> None:
    task, folder = prepared_label(tmp_path, 0)
    (tmp_path / "iterations" / "run").mkdir()
    beat = tmp_path / "iterations" / "run" / "driver.json"
    if driver_epoch == "half a file":
        beat.write_text('{"epoch": ')
    elif driver_epoch != "no file":
        write_json(beat, {"epoch": driver_epoch})
    assert start(attempt_command(folder, epoch=7)).wait(30) == 0
    assert Store(tmp_path).is_done(task) == runs
    assert bool(attempts_left(folder)) == runs


def test_batch_stops_between_tasks_when_another_driver_takes_over(tmp_path: Path, start: Start) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    first, first_folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    second, second_folder = prepared_label(tmp_path, 1)
    run_folder = tmp_path / "iterations" / "run"
    run_folder.mkdir()
    write_json(run_folder / "driver.json", {"epoch": 3})
    process = start(attempt_command(first_folder, second_folder, epoch=3))
    wait_for(lambda: any(first_folder.glob("attempts/*/work")))
    write_json(run_folder / "driver.json", {"epoch": 9})
    gate.unlink()
    assert process.wait(30) == 0
    assert Store(tmp_path).check_result(first), "work under way is finished, it is paid for"
    assert not Store(tmp_path).is_done(second) and attempts_left(second_folder) == []


def test_no_task_is_begun_once_a_person_asked_to_stop(tmp_path: Path, start: Start) -> None:
    task, folder = prepared_label(tmp_path, 0)
    (tmp_path / "iterations" / "run").mkdir()
    write_json(tmp_path / "iterations" / "run" / "stop.json", {"mode": "finish"})
    assert start(attempt_command(folder, epoch=7)).wait(30) == 0
    assert not Store(tmp_path).is_done(task) and attempts_left(folder) == []


@pytest.mark.parametrize(("stopped", "kind"), [(True, "interrupted"), (False, "killed")])
def test_attempt_that_a_person_had_ended_is_no_failure_of_its_own(
    tmp_path: Path, start: Start, stopped: bool, kind: str
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    _, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    process = start(attempt_command(folder))
    wait_for(lambda: any("labelling" in log.read_text() for log in folder.glob("attempts/*/log.txt")))
    if stopped:
        (tmp_path / "iterations" / "run").mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / "iterations" / "run" / "stop.json", {"mode": "now"})
    process.terminate()
    assert process.wait(30) != 0
    assert failure_of(folder)["class"] == kind


def test_late_publisher_changes_nothing(tmp_path: Path, start: Start) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    task, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    process = start(attempt_command(folder))
    wait_for(lambda: list(folder.glob("attempts/*/work")))  # it has looked for a result, and works
    assert publish_text(folder, task.key, '{"first": true}')
    before = fingerprint(folder / "result")
    gate.unlink()
    assert process.wait(30) == 0
    assert fingerprint(folder / "result") == before
    (failure,) = store.failures(folder)
    assert failure["class"] == "late"


def test_killed_attempt_leaves_no_result_and_the_next_one_succeeds(tmp_path: Path, start: Start) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    task, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    process = start(attempt_command(folder))
    wait_for(lambda: any("labelling" in log.read_text() for log in folder.glob("attempts/*/log.txt")))
    process.kill()
    assert process.wait(30) == -9
    assert not Store(tmp_path).is_done(task) and store.failures(folder) == []
    store.record_death(folder, -9)
    (failure,) = store.failures(folder)
    assert failure["class"] == "killed" and "labelling" in failure["detail"]
    gate.unlink()
    assert start(attempt_command(folder)).wait(30) == 0
    assert Store(tmp_path).check_result(task)


def test_labeler_that_takes_the_process_with_it(tmp_path: Path, start: Start) -> None:
    _, folder = prepared_label(tmp_path, 0, level("engine_labelers:Exits"))
    process = start(attempt_command(folder))
    assert process.wait(30) == 3
    store.record_death(folder, 3)
    assert failure_of(folder)["class"] == "crash" and "code 3" in failure_of(folder)["message"]


def test_full_disk_is_the_fault_of_the_machine(tmp_path: Path, start: Start) -> None:
    """A file too large for the limit fails like one too large for the disk."""
    task, folder = prepared_label(tmp_path, 0)
    big = structure(0)
    task_file = read_json(folder / "task.json")
    task_file["spec"]["structure"] = big | {
        "symbols": big["symbols"] * 64,
        "positions_A": [
            [x + 4.0 * (n % 4), y + 4.0 * (n // 4 % 4), z + 6.0 * (n // 16)]
            for n in range(64)
            for x, y, z in big["positions_A"]
        ],
        "cell_A": (4 * np.array(big["cell_A"])).tolist(),
    }
    write_json(folder / "task.json", task_file)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000));"
        "sys.argv = ['attempt', sys.argv[1]]; runpy.run_module('alloop.attempt', run_name='__main__')"
    )
    assert start([sys.executable, "-c", limited, str(folder)]).wait(60) == 1
    assert not Store(tmp_path).is_done(task)
    assert failure_of(folder)["class"] == "infra"


def test_attempt_leads_its_own_session_and_outlives_its_parent(tmp_path: Path, start: Start) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    task, folder = prepared_label(tmp_path, 0, level("engine_labelers:Gated", gate=str(gate)))
    code = (
        "import json, os, sys; from alloop.pools.local import run_process;"
        "run_process(json.loads(sys.argv[1]), dict(os.environ), sys.argv[2])"
    )
    command = json.dumps(attempt_command(folder))
    parent = start([sys.executable, "-c", code, command, str(tmp_path / "attempts.log")])
    owner = wait_for(lambda: store.live_attempt(folder))
    try:
        assert os.getsid(owner.pid) == owner.pid != parent.pid
        parent.kill()
        parent.wait(30)
        assert owner.alive()
        gate.unlink()
        wait_for(lambda: Store(tmp_path).is_done(task))
        assert Store(tmp_path).check_result(task)
        wait_for(lambda: not owner.alive())
    finally:
        if owner.alive():
            os.kill(owner.pid, 9)
