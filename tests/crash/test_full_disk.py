"""A campaign whose disk is full for a while, and files that could be written in part only."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_kit import failure_of, prepared_label

from alloop import attempt, store
from alloop.store import Store, create_json_once, read_json, write_json

SCRIPT = Path(__file__).with_name("full_disk.py")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.ci
@pytest.mark.slow
def test_full_disk_pauses_a_campaign_and_loses_nothing(in_memory_folder: Path, small_disk: Path) -> None:
    place = in_memory_folder / "place"
    place.mkdir()
    command = [sys.executable, str(SCRIPT), str(place), str(small_disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for found in json.loads(done.stdout):
        assert not found["ended_early"], found
        assert found["exit"] == 0, found
        assert not found["torn"] and not found["problems"], found
        assert found["same_end"], found
        _, left, floor_GB = found["case"]
        room_for_a_record = left > 0 and not floor_GB  # with which the driver itself may meet no full disk
        assert found["said"] or room_for_a_record, found


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB."""
    before, heard = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, heard)


def test_file_that_can_be_written_in_part_only_leaves_the_old_one(tmp_path: Path, small_files: None) -> None:
    file = tmp_path / "value.json"
    write_json(file, "old")
    with pytest.raises(OSError) as caught:
        write_json(file, "x" * 5000)
    assert caught.value.errno == errno.EFBIG
    assert read_json(file) == "old"
    with pytest.raises(OSError):
        create_json_once(tmp_path / "once.json", "x" * 5000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]
    assert create_json_once(tmp_path / "once.json", "new")


def full_for(times: int, act: Callable[..., Any]) -> Callable[..., Any]:
    left = [times]

    def acting(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return act(*arguments, **options)

    return acting


def test_finished_work_waits_for_space_to_be_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, folder = prepared_label(tmp_path, 0)
    monkeypatch.setattr(attempt, "SPACE_SECONDS", 0.0)
    monkeypatch.setattr(attempt, "publish", full_for(5, store.publish))
    assert attempt.run_tasks([folder], None) == 0
    assert Store(tmp_path).check_result(task)
    assert store.failures(folder) == []


def test_attempt_that_cannot_write_a_word_counts_against_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = prepared_label(tmp_path, 0)
    monkeypatch.setattr(sys, "argv", ["attempt", str(folder)])
    monkeypatch.setattr(attempt, "_publish_patiently", full_for(1, store.publish))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert attempt.main() == store.NO_SPACE
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "no space left" in capsys.readouterr().err
    store.record_death(folder, store.NO_SPACE, alive=lambda record: False)
    assert failure_of(folder)["class"] == "infra"
