"""``templates/driver.sbatch``: a chain of batch jobs, each of which drives the campaign for a while."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_daemons import Slurm, until

pytestmark = [pytest.mark.ci, pytest.mark.slow]
TEMPLATE = Path(__file__).parents[2] / "templates" / "driver.sbatch"

DOUBLE = """#!/bin/bash
# A double of alloop: runs until it is told how to end, or until SIGUSR1 makes it hand over.
trap : TERM
trap 'touch iterations/run/handed-over; exit 3' USR1
echo "$SLURM_JOB_ID $*" >> runs
while [ ! -e end ]; do sleep 0.1; done
code=$(cat end); rm end
[ "$code" = kill ] && kill -9 $$
exit "$code"
"""


class Chain:
    """Driver jobs in one campaign folder."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        (folder / "bin").mkdir()
        (folder / "bin" / "alloop").write_text(DOUBLE)
        (folder / "bin" / "alloop").chmod(0o755)
        (folder / "iterations" / "run").mkdir(parents=True)
        shutil.copy(TEMPLATE, folder / "driver.sbatch")
        self.slurm.environment["PATH"] = f"{folder / 'bin'}:{slurm.environment['PATH']}"
        self.name = folder.name
        options = ("--mem=100M", "-c", "1", "--time=5", "--chdir", str(folder), "--job-name", self.name)
        script = folder / "driver.sbatch"
        script.write_text(script.read_text().replace("--mem=8G", "--mem=100M").replace("=alloop\n", f"={self.name}\n"))
        self.first = slurm.ask("sbatch", "--parsable", *options, str(script)).strip()

    def jobs(self) -> dict[str, str]:
        """State by job id."""
        text = self.slurm.ask("squeue", "-h", "-n", self.name, "-o", "%i %T %r")
        return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()}

    def runs(self) -> list[str]:
        """The jobs in which alloop was started."""
        file = self.folder / "runs"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    def successor(self) -> str:
        """Wait until the running driver's successor is queued, and return its id."""
        number = len(self.runs())
        until(lambda: "PENDING Dependency" in self.jobs().values(), 15, f"successor of run {number}")
        return next(job for job, state in self.jobs().items() if state == "PENDING Dependency")

    def tell(self, how: str) -> None:
        (self.folder / "aside").write_text(how)
        (self.folder / "aside").rename(self.folder / "end")


@pytest.fixture
def chain(slurm: Slurm, tmp_path: Path) -> Iterator[Chain]:
    before = slurm.environment["PATH"]
    made = Chain(slurm, tmp_path)
    until(lambda: made.runs() == [made.first], 15, "first run")
    yield made
    slurm.environment["PATH"] = before
    slurm.ask("scancel", "-n", made.name)


def test_no_second_start_and_a_signal_before_the_time_is_up(chain: Chain) -> None:
    """Slurm would start a requeued driver again, beside its successor; the signal is what a hand-over begins with."""
    for job in (chain.first, chain.successor()):
        assert " Requeue=0 " in chain.slurm.ask("scontrol", "show", "job", job)
        script = chain.slurm.ask("scontrol", "write", "batch_script", job, "-")
        header = list(itertools.takewhile(lambda line: not line or line.startswith("#"), script.splitlines()))
        signals = [line for line in header if line.startswith("#SBATCH --signal")]
        assert signals == ["#SBATCH --signal=B:USR1@300"], "to the shell, which traps it, five minutes before the end"
        assert re.search(r"^trap '.*kill -USR1 \"\$driver\"' USR1", script, re.MULTILINE)


def test_successor_does_not_start_once_a_person_asked_to_stop(chain: Chain) -> None:
    second = chain.successor()
    (chain.folder / "iterations" / "run" / "stop.json").write_text("{}")  # as alloop stop does
    chain.tell("kill")
    until(lambda: chain.jobs() == {second: "PENDING BeginTime"}, 30, "delayed successor")
    chain.slurm.ask("scontrol", "update", f"JobId={second}", "StartTime=now")
    until(lambda: not chain.jobs(), 60, "end of the chain")
    assert chain.runs() == [chain.first]
    log = next(chain.folder.glob(f"*{second}.log"))
    assert "this successor does not start" in log.read_text()


def test_driver_hands_over_until_it_is_done(chain: Chain) -> None:
    second = chain.successor()
    chain.slurm.ask("scancel", "--batch", "--signal=USR1", chain.first)
    until(lambda: chain.runs() == [chain.first, second], 30, "second run")
    chain.successor()
    chain.tell("0")
    until(lambda: not chain.jobs(), 30, "end of the chain")
    assert chain.runs() == [chain.first, second]


@pytest.mark.parametrize("code", ["2", "3", "5"])
def test_end_that_needs_a_person_has_no_successor(chain: Chain, code: str) -> None:
    chain.successor()
    chain.tell(code)
    until(lambda: not chain.jobs(), 30, "end of the chain")
    assert chain.runs() == [chain.first]


def test_killed_driver_is_followed_after_a_while(chain: Chain) -> None:
    second = chain.successor()
    chain.tell("kill")
    until(lambda: chain.jobs() == {second: "PENDING BeginTime"}, 30, "delayed successor")


def test_cancelled_driver_has_no_successor(chain: Chain) -> None:
    chain.successor()
    chain.slurm.ask("scancel", chain.first)
    until(lambda: not chain.jobs(), 30, "end of the chain")
    assert (chain.folder / "iterations" / "run" / "handed-over").exists()
