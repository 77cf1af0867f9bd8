from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_kit import wait_for

from alloop.process import ProcessIdentity, this_process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_live_process_is_alive_and_a_dead_one_is_not(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessIdentity.of(sleeper.pid)
    assert identity.alive() and identity.is_local()
    assert ProcessIdentity.from_json(identity.to_json() | {"started": "today"}) == identity
    sleeper.kill()
    sleeper.wait()
    assert not identity.alive()
    with pytest.raises(ProcessLookupError, match=str(sleeper.pid)):
        ProcessIdentity.of(sleeper.pid)


def test_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessIdentity.of(sleeper.pid)
    sleeper.kill()
    wait_for(lambda: " Z " in Path(f"/proc/{sleeper.pid}/stat").read_text())
    assert not identity.alive()


def test_recycled_pid_other_boot_and_other_host_are_not_alive() -> None:
    me = this_process()
    assert me.alive() and me.pid == os.getpid()
    assert not dataclasses.replace(me, start_ticks=me.start_ticks + 1).alive()
    assert not dataclasses.replace(me, boot="another boot").alive()
    assert dataclasses.replace(me, boot="another boot").is_local()
    elsewhere = dataclasses.replace(me, host="another host")
    assert not elsewhere.alive() and not elsewhere.is_local()


def test_command_name_with_blanks_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([str(program), "60"])
    try:
        wait_for(lambda: "(b)" in Path(f"/proc/{process.pid}/stat").read_text())
        identity = ProcessIdentity.of(process.pid)
        assert identity.alive()
        assert abs(identity.start_ticks - this_process().start_ticks) < 1e6
        assert identity.start_ticks >= this_process().start_ticks
    finally:
        process.kill()
        process.wait()
