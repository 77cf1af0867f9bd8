"""What the commands of batch systems print, and what is made of it."""

from __future__ import annotations

import threading
import time

import pytest

from alloop.pools import queues
from alloop.pools.queues import (
    CommandError,
    QueuedJob,
    by_name,
    first_host,
    job_free_environment,
    parse_bjobs,
    parse_qstat_f,
    parse_qstat_xml,
    parse_squeue,
    run_command,
)


def test_squeue() -> None:
    text = (
        "812|al-c0ffee-vasp-abcde|RUNNING|node[07-09,12]\n813|al-c0ffee-vasp-abcdf|PENDING|\n"
        "814|other|COMPLETING|n1\n815|dead|TIMEOUT|n1\n816|held|REQUEUE_HOLD|\nslurm_load_jobs: warning\n"
    )
    assert parse_squeue(text) == [
        QueuedJob("812", "al-c0ffee-vasp-abcde", "running", "node07"),
        QueuedJob("813", "al-c0ffee-vasp-abcdf", "waiting", None),
        QueuedJob("814", "other", "running", "n1"),
        QueuedJob("816", "held", "waiting", None),
    ]


def test_qstat_of_pbs() -> None:
    text = """Job Id: 12.pbs01
    Job_Name = al-c0ffee-abcde
    job_state = R
    exec_host = r1i0n3/0*16+r1i0n4/0*16
    Variable_List = PBS_O_HOME=/home/me,PBS_O_PATH=/usr/bin:
\t/home/me/a = b/bin,PBS_O_QUEUE=workq

Job Id: 13.pbs01
    Job_Name = al-c0ffee-abcdf
    job_state = Q

Job Id: 14.pbs01
    Job_Name = over
    job_state = C

Job Id: 15.pbs01
    Job_Name = held
    job_state = H
"""
    assert parse_qstat_f(text) == [
        QueuedJob("12.pbs01", "al-c0ffee-abcde", "running", "r1i0n3"),
        QueuedJob("13.pbs01", "al-c0ffee-abcdf", "waiting", None),
        QueuedJob("15.pbs01", "held", "waiting", None),
    ]


def test_qstat_of_pbs_with_jobs_that_end_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> str:
        asked.append(command)
        if command[0] == "qselect":
            return "12.pbs01\n13.pbs01\n"
        if "13.pbs01" in command:
            raise CommandError("qstat -f 12.pbs01 13.pbs01: qstat: Unknown Job Id 13.pbs01")
        return "Job Id: 12.pbs01\n    Job_Name = a\n    job_state = Q\n"

    assert list(queues._query_pbs(run)) == ["a"]
    assert asked[-1] == ["qstat", "-f", "12.pbs01"]


def test_bjobs() -> None:
    text = "77|al-c0ffee-vasp-a|RUN|16*hostA:16*hostB\n78|al-c0ffee-vasp-b|PEND|-\n79|c|UNKWN|hostC\n80|d|EXIT|hostA\n"
    assert parse_bjobs(text) == [
        QueuedJob("77", "al-c0ffee-vasp-a", "running", "hostA"),
        QueuedJob("78", "al-c0ffee-vasp-b", "waiting", None),
        QueuedJob("79", "c", "running", "hostC"),
    ]


def test_bjobs_without_jobs() -> None:
    def run(command: list[str]) -> str:
        raise CommandError("bjobs: No unfinished job found")

    assert queues._query_lsf(run) == {}
    with pytest.raises(CommandError):
        queues._query_lsf(lambda command: (_ for _ in ()).throw(CommandError("LSF is down")))


def test_qstat_of_grid_engine() -> None:
    def job(number: int, name: str, state: str, queue: str) -> str:
        return (
            f'<job_list state="x"><JB_job_number>{number}</JB_job_number><JB_name>{name}</JB_name>'
            f"<state>{state}</state><queue_name>{queue}</queue_name></job_list>"
        )

    text = (
        "<?xml version='1.0'?><job_info><queue_info>"
        + job(1, "al-a", "r", "all.q@node01")
        + "</queue_info><job_info>"
        + job(2, "al-b", "qw", "")
        + job(3, "al-c", "Eqw", "")
        + job(4, "al-d", "hqw", "")
        + "</job_info></job_info>"
    )
    assert parse_qstat_xml(text) == [
        QueuedJob("1", "al-a", "running", "node01"),
        QueuedJob("2", "al-b", "waiting", None),
        QueuedJob("3", "al-c", "stuck", None),
        QueuedJob("4", "al-d", "waiting", None),
    ]
    with pytest.raises(CommandError):
        parse_qstat_xml("error: commlib error: got select error")


def test_nothing_in_the_queue() -> None:
    assert parse_squeue("") == parse_qstat_f("") == parse_bjobs("") == []
    assert parse_qstat_xml("<job_info><queue_info/><job_info/></job_info>") == []


def test_of_two_jobs_with_one_name_the_running_one_counts() -> None:
    jobs = [QueuedJob("2", "a", "running", "n1"), QueuedJob("1", "a", "waiting")]
    assert by_name(jobs)["a"].id == "2"


@pytest.mark.parametrize(
    ("text", "host"), [("n1", "n1"), ("n[1-3]", "n1"), ("n[001,003]", "n001"), ("8*h1:8*h2", "h1"), ("", None)]
)
def test_first_host(text: str, host: str | None) -> None:
    assert first_host(text) == host


def test_variables_of_the_drivers_own_job_are_not_passed_on() -> None:
    old = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "99", "PBS_JOBID": "2", "LSB_JOBID": "3"}
    kept = {"SBATCH_ACCOUNT": "a", "PE_ENV": "gnu", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/home/me", "PATH": "/bin"}
    assert job_free_environment(old | kept) == kept


def test_command_that_hangs_is_ended_with_its_children() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"no answer in 0\.5 s"):
        run_command("sleep 60 & sleep 60", 0.5)
    assert time.monotonic() - began < 5


def test_command_nobody_waits_for_any_more() -> None:
    abort = threading.Event()
    threading.Timer(0.3, abort.set).start()
    with pytest.raises(CommandError, match="not waited for"):
        run_command(["sleep", "60"], 30.0, abort)


def test_command_that_fails_or_is_not_there() -> None:
    with pytest.raises(CommandError, match="Invalid partition"):
        run_command("echo sbatch: error: Invalid partition >&2; exit 1", 5.0)
    with pytest.raises(CommandError, match="ended with code 3"):
        run_command("exit 3", 5.0)
    with pytest.raises(CommandError, match="no-such-command"):
        run_command(["no-such-command"], 5.0)
