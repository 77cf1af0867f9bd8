"""What happens in a job once its worker has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alloop.pools.drain import attempts_in_job, end_file

JOB = "al-c0ffee-vasp-drain"


class DrainedJob:
    """The end of a job script on this host, and attempts in it (processes that look like one)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "jobs").mkdir()
        self.address = folder / "scheduler.address"
        self.address.write_text("tls://old:1\n")
        self.name = f"{JOB}-{os.getpid()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "ALLOOP_JOB": self.name,
            "ALLOOP_RUN": str(folder),
            "ALLOOP_ADDRESS": str(self.address),
            "ALLOOP_SCHEDULER": "tls://old:1",
            "ALLOOP_JOB_END": str(time.time() + 3600),
        }

    def attempt(self, *, leads: bool = True, job: str | None = None) -> subprocess.Popen[bytes]:
        environment = self.environment | {"ALLOOP_JOB": job or self.name}
        command = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "alloop.attempt"]
        self.processes.append(subprocess.Popen(command, env=environment, start_new_session=leads))
        return self.processes[-1]

    def drain(self, code: int = 0, short: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "alloop.pools.drain", "--code", str(code), "--short", str(short)]
        self.processes.append(subprocess.Popen(command, env=self.environment | environment))
        return self.processes[-1]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[DrainedJob]:
    made = DrainedJob(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def within(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & (1 << (number - 1)))


def test_attempts_are_told_by_job_command_and_session(job: DrainedJob) -> None:
    mine = job.attempt()
    job.attempt(job="al-other")
    job.attempt(leads=False)
    job.processes.append(subprocess.Popen(["sleep", "60"], env=job.environment, start_new_session=True))
    within(lambda: [process.pid for process in attempts_in_job(job.name)] == [mine.pid])


def test_crashed_worker_starts_again(job: DrainedJob) -> None:
    job.attempt()
    assert job.drain(code=137).wait(15) == 0


def test_worker_that_crashes_again_and_again_is_left(job: DrainedJob) -> None:
    attempt = job.attempt()
    drain = job.drain(code=1, short=4)
    with pytest.raises(subprocess.TimeoutExpired):
        drain.wait(4)
    attempt.kill()
    attempt.wait()
    assert drain.wait(30) == 1


def test_new_scheduler_starts_the_worker_again(job: DrainedJob) -> None:
    drain = job.drain()
    with pytest.raises(subprocess.TimeoutExpired):
        drain.wait(3)
    job.address.write_text("tls://new:1\n")
    assert drain.wait(10) == 0


def test_job_that_is_told_to_end_waits_for_its_attempts(job: DrainedJob) -> None:
    attempt = job.attempt()
    end_file(job.folder, job.name).touch()
    drain = job.drain()
    with pytest.raises(subprocess.TimeoutExpired):
        drain.wait(4)
    attempt.kill()
    attempt.wait()
    assert drain.wait(10) == 1


def test_no_worker_starts_at_the_end_of_the_walltime(job: DrainedJob) -> None:
    assert job.drain(code=137, ALLOOP_JOB_END=str(time.time() + 10)).wait(15) == 1


def test_signal_of_the_batch_system_reaches_the_attempts(job: DrainedJob) -> None:
    attempt = job.attempt()
    drain = job.drain()
    within(lambda: catches(drain.pid, signal.SIGTERM))
    drain.terminate()
    assert attempt.wait(10) == -15
    assert drain.wait(10) == 1
