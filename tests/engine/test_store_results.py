from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_kit import fingerprint, prepared_label, publish_text, structure, write_attempt
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop import store
from alloop.campaign import label_task
from alloop.decision_files import DecisionFiles
from alloop.failpoint import VARIABLE
from alloop.process import this_process
from alloop.store import MANIFEST, Store, create_json_once, make_task, read_json, result_problem, write_json
from alloop.structure import content_key


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


# ---------------------------------------------------------------------------------------- results


def test_result_appears_by_publishing_only(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    place = Store(tmp_path)
    assert not place.is_done(task) and not (folder / "result").exists()
    attempt = store.begin_attempt(folder)
    (attempt.out / "label.json").write_text("{}")
    assert not place.is_done(task), "an attempt's output is no result"
    assert store.publish(attempt, task.key, {"seconds": 1.0, "threads": 1})
    assert place.is_done(task) and place.check_result(task)
    assert not attempt.out.exists(), "the result is the very folder of the attempt, renamed"


def test_first_publisher_wins_and_the_second_changes_nothing(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    first, second = store.begin_attempt(folder), store.begin_attempt(folder)
    (first.out / "label.json").write_text("first")
    (second.out / "label.json").write_text("second")
    (second.out / "more.json").write_text("second")
    assert store.publish(first, task.key, {"who": 1})
    before = fingerprint(folder / "result")
    assert not store.publish(second, task.key, {"who": 2})
    assert fingerprint(folder / "result") == before
    assert not second.out.exists()
    assert read_json(folder / "result" / MANIFEST)["record"]["who"] == 1


def test_death_just_before_publishing_leaves_no_result(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    code = (
        "import sys; from pathlib import Path; from engine_kit import publish_text;"
        "publish_text(Path(sys.argv[1]), sys.argv[2], 'x')"
    )
    here = str(Path(__file__).parent)
    ended = run_python(code, str(folder), task.key, PYTHONPATH=here, **{VARIABLE: "publish:before"})
    assert ended.returncode == -9, ended.stderr
    assert not Store(tmp_path).is_done(task)
    ended = run_python(code, str(folder), task.key, PYTHONPATH=here, **{VARIABLE: "publish:after"})
    assert ended.returncode == -9, ended.stderr
    assert Store(tmp_path).check_result(task)


def damage_byte(result: Path) -> None:
    data = bytearray((result / "label.json").read_bytes())
    data[3] ^= 1
    (result / "label.json").write_bytes(data)


def cut(result: Path) -> None:
    os.truncate(result / "label.json", 5)


def remove(result: Path) -> None:
    (result / "label.json").unlink()


def manifest_of_another(result: Path) -> None:
    manifest = read_json(result / MANIFEST)
    (result / MANIFEST).write_text(json.dumps(manifest | {"key": "0123456789abcdef"}))


def no_manifest(result: Path) -> None:
    (result / MANIFEST).unlink()


def half_manifest(result: Path) -> None:
    os.truncate(result / MANIFEST, 40)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_byte, "label.json: checksum differs"),
        (cut, "label.json: 5 bytes instead of 12"),
        (remove, "missing file label.json"),
        (manifest_of_another, "manifest of another task: 0123456789abcdef"),
        (no_manifest, "unreadable manifest"),
        (half_manifest, "unreadable manifest"),
    ],
)
def test_bad_result_goes_to_quarantine_and_the_work_can_be_done_again(tmp_path: Path, damage: Any, reason: str) -> None:
    task, folder = prepared_label(tmp_path, 0)
    place = Store(tmp_path)
    assert publish_text(folder, task.key, "hello, label")
    damage(folder / "result")
    assert place.is_done(task), "a result that exists must be looked at, not overlooked"
    assert not place.check_result(task)
    assert not place.is_done(task)
    (record,) = (tmp_path / "iterations" / "quarantine").glob("*.reason.json")
    assert reason in read_json(record)["problem"] and read_json(record)["task"] == task.folder
    assert publish_text(folder, task.key, "hello, again")
    assert place.check_result(task)


def test_every_quarantined_result_keeps_its_own_reason(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    for damage in (damage_byte, cut):
        publish_text(folder, task.key, "hello, label")
        damage(folder / "result")
        assert not Store(tmp_path).check_result(task)
    quarantine = tmp_path / "iterations" / "quarantine"
    problems = {read_json(file)["problem"] for file in quarantine.glob("*.reason.json")}
    assert problems == {"label.json: checksum differs", "label.json: 5 bytes instead of 12"}
    assert all((quarantine / file.name.removesuffix(".reason.json")).is_dir() for file in quarantine.glob("*.json"))


def test_quick_look_compares_sizes_only(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    publish_text(folder, task.key, "hello, label")
    damage_byte(folder / "result")
    assert result_problem(folder / "result", task.key, checksums=False) is None
    assert result_problem(folder / "result", task.key) == "label.json: checksum differs"
    cut(folder / "result")
    assert result_problem(folder / "result", task.key, checksums=False) is not None


def test_no_flipped_byte_of_a_manifest_raises_or_hides_another_file(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    publish_text(folder, task.key, "hello, label")
    manifest = folder / "result" / MANIFEST
    good = manifest.read_bytes()
    told = json.loads(good)
    for position in range(len(good)):
        for bit in (1, 32):
            damaged = bytearray(good)
            damaged[position] ^= bit
            manifest.write_bytes(damaged)
            problem = result_problem(folder / "result", task.key)
            if problem is None:
                found = json.loads(damaged)
                assert (found["key"], found["files"]) == (told["key"], told["files"])
                assert {"seconds", "threads"} <= found["record"].keys()


@pytest.mark.parametrize("text", ["[]", "null", '"x"', '{"key": 1}', '{"files": []}', '{"files": {"a": 3}}'])
def test_manifest_that_is_json_but_no_manifest(tmp_path: Path, text: str) -> None:
    task, folder = prepared_label(tmp_path, 0)
    publish_text(folder, task.key, "hello, label")
    (folder / "result" / MANIFEST).write_text(text)
    assert result_problem(folder / "result", task.key) is not None


def test_files_in_subfolders_are_in_the_manifest(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    attempt = store.begin_attempt(folder)
    (attempt.out / "set.000").mkdir()
    (attempt.out / "set.000" / "force.npy").write_bytes(b"123")
    store.publish(attempt, task.key, {"seconds": 1.0, "threads": 1})
    (folder / "result" / "set.000" / "force.npy").write_bytes(b"124")
    assert result_problem(folder / "result", task.key) == "set.000/force.npy: checksum differs"


# ---------------------------------------------------------------------------------------- single files


def test_one_thread_of_many_creates_the_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            file = tmp_path / f"{number:08d}.json"
            won = list(pool.map(lambda who, file=file: create_json_once(file, {"who": who}), range(8)))
            assert sum(won) == 1
            assert read_json(file) == {"who": won.index(True)}
    assert not list(tmp_path.glob(".tmp.*"))


def test_one_process_of_many_creates_the_file(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from alloop.store import create_json_once
folder, who = Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready.{who}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
print([n for n in range(100) if create_json_once(folder / f"{n:08d}.json", {"who": who})])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(who)], stdout=subprocess.PIPE, text=True)
        for who in range(4)
    ]
    while len(list(tmp_path.glob("ready.*"))) < 4:
        assert all(process.poll() is None for process in processes)
    (tmp_path / "go").touch()
    won = [json.loads(process.communicate()[0]) for process in processes]
    assert sorted(number for numbers in won for number in numbers) == list(range(100))
    for who, numbers in enumerate(won):
        assert all(read_json(tmp_path / f"{number:08d}.json") == {"who": who} for number in numbers)


def test_a_link_that_happened_but_was_reported_as_an_error_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def lost_reply(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "retransmitted")

    monkeypatch.setattr(os, "link", lost_reply)
    assert create_json_once(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "link", link)
    assert not create_json_once(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from alloop.store import {function}
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    {function}(Path(sys.argv[1]), list(range(100_000)))
except OSError as error:
    print(error.errno)
"""


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "driver.json"
    write_json(file, {"old": True})
    ended = run_python(FULL_DISK.format(function="write_json"), str(file))
    assert ended.stdout.strip() == "27", ended.stderr  # EFBIG, the limit on file sizes
    assert read_json(file) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["driver.json"]


def test_full_disk_takes_no_decision_number(tmp_path: Path) -> None:
    ended = run_python(FULL_DISK.format(function="create_json_once"), str(tmp_path / "00000000.json"))
    assert ended.stdout.strip() == "27", ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_killed_before_the_rename_keeps_the_old_file(tmp_path: Path, step: str) -> None:
    file = tmp_path / "state.json"
    write_json(file, {"old": True})
    code = f"""
import os, pathlib, sys
from alloop.store import write_json
kill = lambda *_: os.kill(os.getpid(), 9)
{"pathlib.Path.rename = kill" if step == "rename" else "os.fsync = kill"}
write_json(pathlib.Path(sys.argv[1]), {{"new": True}})
"""
    assert run_python(code, str(file)).returncode == -9
    assert read_json(file) == {"old": True}


def test_sweep_removes_what_a_killed_driver_left_beside_the_decisions(tmp_path: Path) -> None:
    folder = tmp_path / "iterations" / "decisions"
    folder.mkdir(parents=True)
    (folder / ".tmp.00000003.json.ab").write_text("{")
    create_json_once(folder / "00000002.json", {})
    DecisionFiles(folder).sweep()
    assert [path.name for path in folder.iterdir()] == ["00000002.json"]


# ---------------------------------------------------------------------------------------- keys


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms(use_true_random=False))
def test_key_depends_on_content_only(spec: dict[str, Any], random: Any) -> None:
    items = list(spec.items())
    random.shuffle(items)
    task = make_task("label", "iter.000000/label", "one", spec)
    other = make_task("label", "iter.000007/label", "two", dict(items), ("input",), {"file": "somewhere"})
    assert task.key == other.key and len(task.key) == 16
    assert make_task("train", "iter.000000/label", "one", spec).key != task.key
    assert make_task("label", "iter.000000/label", "one", spec | {"more": 1}).key != task.key
    assert content_key(json.loads(json.dumps(spec))) == content_key(spec), "a spec read back has the same key"


def test_label_key_is_structure_and_level(tmp_path: Path) -> None:
    first = label_task("bootstrap/label", "a", structure(1), {"labeler": "x", "options": {}}, ("source",))
    assert label_task("iter.000003/label", "b", structure(1), {"options": {}, "labeler": "x"}, ()).key == first.key
    assert label_task("bootstrap/label", "a", structure(2), {"labeler": "x", "options": {}}, ()).key != first.key
    assert label_task("bootstrap/label", "a", structure(1), {"labeler": "y", "options": {}}, ()).key != first.key


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_spec_without_a_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        make_task("label", "g", "n", {"positions_A": [[0.0, number, 0.0]]})


def test_task_file_is_written_once(tmp_path: Path) -> None:
    task, folder = prepared_label(tmp_path, 0)
    before = fingerprint(folder)
    Store(tmp_path).prepare(task, "another-campaign", {"a": "b"})
    assert fingerprint(folder) == before
    record = read_json(folder / "task.json")
    assert (record["key"], record["spec"]["structure"]) == (task.key, structure(0))


# ---------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("code", "kind"), [(-9, "killed"), (-15, "killed"), (None, "killed"), (3, "crash"), (-11, "crash")]
)
def test_a_process_that_went_without_a_word(tmp_path: Path, code: int | None, kind: str) -> None:
    _, folder = prepared_label(tmp_path, 0)
    gone = this_process().to_json() | {"start_ticks": 1}
    attempt = write_attempt(folder, "a", gone)
    (attempt / "log.txt").write_text("\n".join(f"line {n}" for n in range(99)))
    store.record_death(folder, code)
    (failure,) = store.failures(folder)
    assert failure["class"] == kind
    assert failure["detail"].splitlines() == [f"line {n}" for n in range(69, 99)]
    before = fingerprint(folder)
    store.record_death(folder, code)
    assert fingerprint(folder) == before, "a death is recorded once"


def test_pool_knows_better_than_the_newest_attempt_why_it_was_told_to_end(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    gone = this_process().to_json() | {"start_ticks": 1}
    for number, (name, kind) in enumerate((("first", "killed"), ("second", "numeric"), ("third", "killed"))):
        attempt = write_attempt(folder, name, gone)
        store.fail(attempt, kind, "told to end")
        os.utime(attempt / "attempt.json", (number, number))
    store.record_death(folder, -15)
    assert {f["attempt"]: f["class"] for f in store.failures(folder)}["third"] == "killed"
    store.record_death(folder, -15, cause="infra")
    found = {failure["attempt"]: failure["class"] for failure in store.failures(folder)}
    assert found == {"first": "killed", "second": "numeric", "third": "infra"}


def test_what_ended_while_nobody_watched_was_interrupted(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    write_attempt(folder, "a", this_process().to_json() | {"start_ticks": 1})
    write_attempt(folder, "b", this_process().to_json())
    store.record_death(folder, None, unwatched=True)
    (failure,) = store.failures(folder)
    assert (failure["attempt"], failure["class"]) == ("a", "interrupted")


def test_scratch_is_kept_of_attempts_that_failed_by_their_own_fault_only(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    gone = this_process().to_json() | {"start_ticks": 1}
    for name in ("unrecorded", "interrupted", "killed", "late", "bug", "crash", "infra", "numeric"):
        attempt = write_attempt(folder, name, gone)
        (attempt / "work" / "train").mkdir(parents=True)
        if name != "unrecorded":
            store.fail(attempt, name, "message")
    store.drop_scratch(folder)
    kept = {work.parent.name for work in folder.glob("attempts/*/work")}
    assert kept == {"bug", "crash", "infra", "numeric"}


def test_death_is_not_recorded_of_the_living_the_distant_and_the_successful(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    write_attempt(folder, "alive", this_process().to_json())
    write_attempt(folder, "distant", this_process().to_json() | {"host": "another", "start_ticks": 1})
    published = write_attempt(folder, "published", this_process().to_json() | {"start_ticks": 1})
    (published / "out").rmdir()
    store.record_death(folder, -9)
    assert store.failures(folder) == []


def test_failures_come_in_order_of_time(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    for name, time in (
        ("a", "2024-01-01T00:00:02"),
        ("b", "2024-01-01T00:00:01"),
        ("c", "2024-01-01T00:00:03"),
    ):
        write_attempt(folder, name, this_process().to_json(), {"class": name, "time": time})
    assert [failure["class"] for failure in store.failures(folder)] == ["b", "a", "c"]


def test_live_attempt_is_one_that_still_works(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    assert store.live_attempt(folder) is None
    me = this_process()
    write_attempt(folder, "failed", me.to_json(), {"class": "bug", "time": "1"})
    published = write_attempt(folder, "published", me.to_json())
    (published / "out").rmdir()
    write_attempt(folder, "gone", me.to_json() | {"start_ticks": 1})
    assert store.live_attempt(folder) is None
    write_attempt(folder, "works", me.to_json())
    assert store.live_attempt(folder) == me


# ---------------------------------------------------------------------------------------- failpoints


def test_failpoint_fires_once_with_a_file(tmp_path: Path) -> None:
    file = tmp_path / "once"
    file.touch()
    code = "from alloop.failpoint import failpoint; failpoint('here'); print('survived')"
    ended = run_python(code, **{VARIABLE: f"elsewhere@{file}"})
    assert ended.stdout.strip() == "survived" and file.exists()
    assert run_python(code, **{VARIABLE: f"here@{file}"}).returncode == -9
    assert not file.exists()
    assert run_python(code, **{VARIABLE: f"here@{file}"}).stdout.strip() == "survived"
    assert run_python(code, **{VARIABLE: "here"}).returncode == -9


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_json_files_read_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "value.json"
    write_json(file, value)
    assert read_json(file) == value
