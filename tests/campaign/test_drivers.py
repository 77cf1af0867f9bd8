"""One driver at a time: refusal, take-over of a stopped one, stopping from outside."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from harness import EARLY, alloop, driver, live_attempts, meet_attempt, write_param

pytestmark = pytest.mark.slow


def _listing(folder: Path) -> dict[str, str]:
    files = sorted(file for file in (folder / "iterations" / "decisions").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_second_driver_is_refused_and_a_stopped_one_is_taken_over(tmp_path: Path) -> None:
    folder = write_param(tmp_path / "two", **EARLY)
    with driver(folder) as first:
        meet_attempt(first, "train", 2.0)
        before = _listing(folder)
        refused = alloop(folder, "run")
        assert refused.returncode == 4, refused.stdout + refused.stderr
        assert "holds the campaign" in refused.stderr
        assert "--take-over" in refused.stderr
        assert _listing(folder) == before

        os.kill(first.process.pid, signal.SIGSTOP)
        assert alloop(folder, "run").returncode == 4
        with driver(folder, "--take-over") as second:
            deadline = time.monotonic() + 60
            while "slots" not in second.text():
                assert time.monotonic() < deadline, second.text()
                time.sleep(0.1)
            taken = _listing(folder)
            os.kill(first.process.pid, signal.SIGCONT)
            assert first.wait(60) == 4, first.text()
            assert "taken over" in first.text()
            assert {name: taken[name] for name in taken} == {n: h for n, h in _listing(folder).items() if n in taken}
            assert second.process.poll() is None, second.text()
            second.kill(everything=True)
    assert not live_attempts(folder)


def test_interrupt_lets_running_work_end_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_param(tmp_path / "interrupt")
    with driver(folder) as started:
        meeting = meet_attempt(started, "label", 1.0)
        os.killpg(started.process.pid, signal.SIGINT)  # as a terminal does: to the whole process group
        assert started.wait(120) == 3, started.text()
        assert "alloop run" in started.text()
        assert "Traceback" not in started.text()
    assert not live_attempts(folder)
    task = next((folder / "iterations").glob(f"**/{meeting.task}"))
    assert (task / "result" / "MANIFEST.json").is_file(), "the running label was not let finish"


def test_stop_now_from_another_shell_ends_running_work(tmp_path: Path) -> None:
    notify = {"command": 'echo "$ALLOOP_EVENT|$ALLOOP_MESSAGE" >> "$ALLOOP_FOLDER/told"'}
    folder = write_param(tmp_path / "stop", notify=notify, **EARLY)
    assert "nothing to stop" in alloop(folder, "stop").stdout
    with driver(folder) as started:
        meet_attempt(started, "train", 2.0)
        assert alloop(folder, "stop", "--now").returncode == 0
        assert started.wait(60) == 3, started.text()
    assert not live_attempts(folder)
    assert (folder / "told").read_text().startswith("stopped|stopped by a person")
