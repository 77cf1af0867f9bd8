from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # engine_kit and engine_labelers are plain modules beside the tests
sys.path.append(str(HERE.parents[1] / "benchmarks"))  # the simulator


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process with the test labelers importable; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}

    def run(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        output = (tmp_path / f"output.{len(started)}").open("wb")
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
        output.close()
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
