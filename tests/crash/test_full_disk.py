"""A campaign whose disk is full for a while, and files that could be written in part only."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alloop.store import create_json_once, read_json, write_json

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
def test_full_disk_pauses_a_campaign_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    command = [sys.executable, str(SCRIPT), str(place), str(small_disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for found in json.loads(done.stdout):
        assert not found["ended_early"], found
        assert found["exit"] == 0, found
        assert not found["torn"] and not found["problems"], found
        assert found["same_end"], found
        assert found["said"] or found["case"][1] > 10_000, found


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
