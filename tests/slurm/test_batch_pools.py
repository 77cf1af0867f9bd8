"""Batch pools on a real Slurm: what dies, what is cancelled and what runs out of time costs no finished work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from slurm_daemons import Slurm, until
from slurm_kit import Campaign, SmallDriver, pool_param, python_double

from alloop import store
from alloop.pools.drain import attempts_in_job
from alloop.process import ProcessIdentity

pytestmark = [pytest.mark.ci, pytest.mark.slow]
HERE = Path(__file__).parent


@pytest.fixture
def campaign(slurm: Slurm, tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


@pytest.fixture
def drivers() -> Iterator[list[SmallDriver]]:
    """Drivers that are closed at the end, with their jobs."""
    opened: list[SmallDriver] = []
    yield opened
    for driver in opened:
        driver.close(cancel_jobs=True)


def worker_process(job: str) -> psutil.Process:
    """The dask worker of a job."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "distributed.cli.dask_worker" in line and job in line:
            return process
    raise AssertionError(f"no worker of {job}")


def job_of(campaign: Campaign, key: str) -> str:
    return campaign.attempts(key)[-1]["job"]


@pytest.fixture(scope="module")
def out_of_time(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Campaign, SmallDriver, str]]:
    """A task that takes longer than its job may, driven beside the other tests: Slurm takes 70-90 s to end it."""
    campaign = Campaign(tmp_path_factory.mktemp("walltime"))
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, walltime_minutes=1)})
    key = campaign.sleeper(300)
    driver.want("vasp", key)
    over = threading.Event()

    def drive() -> None:
        while not over.is_set() and not driver.ended:
            driver.step()
            time.sleep(0.3)

    thread = threading.Thread(target=drive)
    thread.start()
    yield campaign, driver, key
    over.set()
    thread.join()
    driver.close(cancel_jobs=True)


def test_two_pools_on_two_partitions(
    slurm: Slurm, campaign: Campaign, drivers: list[SmallDriver], out_of_time: object
) -> None:
    gpus = pool_param(
        campaign.root, queue="gpu", gpus=2, slots_per_job=2, options={"job_extra_directives": ["--gres=gpu:2"]}
    )
    cpus = pool_param(campaign.root, jobs=2, slots_per_job=2, threads=2, idle_minutes=0.05)
    driver = SmallDriver(campaign, {"vasp": cpus, "trainers": gpus})
    drivers.append(driver)
    labels = [campaign.sleeper(2.5) for _ in range(6)]
    trainings = [campaign.sleeper(2) for _ in range(2)]
    failing = campaign.sleeper(0, fails=True)
    driver.want("vasp", *labels, failing)
    driver.want("trainers", *trainings)
    driver.until(lambda: len(driver.ended) == 9, 60, "nine ends")
    assert {(ended.return_code, ended.cause) for ended in driver.ended if ended.keys != (failing,)} == {(0, "")}
    assert [(e.return_code, e.cause) for e in driver.ended if e.keys == (failing,)] == [(1, "")]
    seen = [campaign.result(key) for key in labels]
    assert {found["ALLOOP_POOL"] for found in seen} == {"vasp"}
    assert {found["ALLOOP_CORES"] for found in seen} == {"2"}
    assert len({found["ALLOOP_JOB"] for found in seen}) == 2, "two jobs at most, and both are used"
    assert sorted(campaign.result(key)["CUDA_VISIBLE_DEVICES"] for key in trainings) == ["0", "1"]
    assert all(not pool.troubles() for pool in driver.host.pools.values())
    names = {found["ALLOOP_JOB"] for found in seen}
    driver.until(lambda: not names & set(slurm.ask("squeue", "-h", "-o", "%j").split()), 30, "end of idle jobs")
    records = [store.read_json(campaign.run_folder / "jobs" / f"{name}.json") for name in names]
    assert all(record["told"] for record in records), "they were let go, not cancelled"


def test_cancelled_job_is_replaced_and_its_batch_reported(
    slurm: Slurm, campaign: Campaign, drivers: list[SmallDriver]
) -> None:
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root)})
    drivers.append(driver)
    key = campaign.sleeper(60)
    driver.want("vasp", key)
    driver.until(lambda: campaign.attempts(key), 30, "attempt")
    first = job_of(campaign, key)
    slurm.ask("scancel", "--name", first)
    driver.until(lambda: driver.ended, 30, "end of the batch")
    assert [(ended.keys, ended.cause) for ended in driver.ended] == [((key,), "infra")]
    assert campaign.failures(key) == ["killed"]
    driver.want("vasp", key)
    driver.until(lambda: len(campaign.attempts(key)) == 2, 30, "another attempt")
    assert job_of(campaign, key) != first


def test_what_needs_more_time_than_a_job_has_left_waits_for_a_fresh_one(
    campaign: Campaign, drivers: list[SmallDriver]
) -> None:
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, walltime_minutes=2)})
    drivers.append(driver)
    short, long = campaign.sleeper(6), campaign.sleeper(0.1)
    driver.want("vasp", short)
    slot = driver.until(driver.pool("vasp").free_slots, 30, "slot") if not driver.running else []
    driver.until(lambda: driver.ended, 30, "end of the short one")
    assert not slot or slot[0].remaining_s < 115
    driver.want("vasp", long, needs_s=110)
    driver.until(lambda: len(driver.ended) == 2, 40, "end of the long one")
    assert job_of(campaign, long) != job_of(campaign, short)
    driver.want("vasp", campaign.sleeper(0), needs_s=1000)
    driver.step()
    assert any("raise pools.vasp.walltime_minutes" in trouble for trouble in driver.pool("vasp").troubles())


def test_killed_worker_costs_no_attempt(campaign: Campaign, drivers: list[SmallDriver]) -> None:
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, slots_per_job=2)})
    drivers.append(driver)
    keys = [campaign.sleeper(8), campaign.sleeper(8)]
    driver.want("vasp", *keys)
    driver.until(lambda: all(campaign.attempts(key) for key in keys), 30, "attempts")
    job = job_of(campaign, keys[0])
    worker_process(job).kill()
    driver.until(lambda: len(driver.ended) == 2, 40, "both ends")
    assert all(campaign.done(key) and len(campaign.attempts(key)) == 1 for key in keys)
    later = campaign.sleeper(0.1)
    driver.want("vasp", later)
    driver.until(lambda: campaign.done(later), 40, "work in the same job")
    assert job_of(campaign, later) == job


def test_killed_scheduler_costs_no_attempt(campaign: Campaign, drivers: list[SmallDriver]) -> None:
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, slots_per_job=2, idle_minutes=2)})
    drivers.append(driver)
    keys = [campaign.sleeper(10)]
    driver.want("vasp", *keys)
    driver.until(lambda: all(campaign.attempts(key) for key in keys), 30, "attempts")
    job = job_of(campaign, keys[0])
    first = ProcessIdentity.from_json(store.read_json(campaign.run_folder / "scheduler.json"))
    assert first.alive() and os.getsid(first.pid) == first.pid
    os.kill(first.pid, signal.SIGKILL)
    driver.until(lambda: len(driver.ended) == 1, 40, "end")
    assert campaign.done(keys[0]) and len(campaign.attempts(keys[0])) == 1
    later = campaign.sleeper(0.1)
    driver.want("vasp", later)
    driver.until(lambda: campaign.done(later), 60, "work under another scheduler")
    assert ProcessIdentity.from_json(store.read_json(campaign.run_folder / "scheduler.json")) != first
    assert job_of(campaign, later) == job, "the allocation is kept"


def test_second_driver_takes_over_what_the_first_left(
    slurm: Slurm, campaign: Campaign, drivers: list[SmallDriver]
) -> None:
    left = subprocess.run([sys.executable, str(HERE / "leaving_driver.py"), str(campaign.root), "15"], timeout=60)
    assert left.returncode == -signal.SIGKILL
    record = store.read_json(campaign.run_folder / "scheduler.json")
    keys = [campaign.sleeper(15.0) for _ in range(4)]
    jobs = {job_of(campaign, key) for key in keys}
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, jobs=2, slots_per_job=2)}, epoch=2)
    drivers.append(driver)
    assert sorted(driver.adopt()) == sorted(keys)
    later = campaign.sleeper(0.1)
    driver.want("vasp", later)
    driver.until(lambda: len(driver.host.engine.link.workers) == 2, 20, "connected workers")
    for _ in range(5):
        driver.step()
        assert driver.pool("vasp").free_slots() == [], "their slots are taken"
    assert store.read_json(campaign.run_folder / "scheduler.json") == record, "the scheduler is taken over"
    driver.until(lambda: len(driver.ended) == 5, 60, "five ends")
    assert all(campaign.done(key) and len(campaign.attempts(key)) == 1 for key in [*keys, later])
    assert job_of(campaign, later) in jobs


def test_removed_pool_is_watched_to_its_end(campaign: Campaign, drivers: list[SmallDriver]) -> None:
    first = SmallDriver(campaign, {"old": pool_param(campaign.root)})
    key = campaign.sleeper(9)
    first.want("old", key)
    first.until(lambda: campaign.attempts(key), 30, "attempt")
    first.close(cancel_jobs=False)
    driver = SmallDriver(campaign, {"new": pool_param(campaign.root)}, epoch=2)
    drivers.append(driver)
    assert driver.adopt() == [key]
    later = campaign.sleeper(0.1)
    driver.want("new", later)
    driver.until(lambda: len(driver.ended) == 2, 60, "both ends")
    assert campaign.done(key) and len(campaign.attempts(key)) == 1
    assert campaign.attempts(later)[0]["pool"] == "new"


def test_node_on_which_nothing_starts_is_avoided(campaign: Campaign, drivers: list[SmallDriver]) -> None:
    broken = campaign.root / "python-without-c1"
    broken.write_text(f'#!/bin/sh\n[ "$SLURMD_NODENAME" = c1 ] && exit 1\nexec {python_double(campaign.root)} "$@"\n')
    broken.chmod(0o755)
    options = {"job_extra_directives": ["-w c1"]}
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, python=str(broken), options=options)})
    drivers.append(driver)
    key = campaign.sleeper(0.1)

    def again() -> bool:
        if not driver.running:
            driver.want("vasp", key)
        return len(driver.ended) == 3

    driver.until(again, 60, "three failures")
    assert {ended.cause for ended in driver.ended} == {"infra"}
    assert any("c1" in trouble for trouble in driver.pool("vasp").troubles())
    assert driver.pool("vasp").free_slots() == []


def test_dead_controller_is_waited_for(slurm: Slurm, campaign: Campaign, drivers: list[SmallDriver]) -> None:
    driver = SmallDriver(campaign, {"vasp": pool_param(campaign.root, jobs=2)})
    drivers.append(driver)
    running, waiting = campaign.sleeper(30), campaign.sleeper(0.1)
    driver.want("vasp", running)
    driver.until(lambda: campaign.attempts(running), 30, "attempt")
    slurm.save_jobs()
    slurm.kill_controller()
    try:
        driver.want("vasp", waiting)
        says = driver.pool("vasp").troubles
        driver.until(lambda: any("submission failed" in trouble for trouble in says()), 60, "failing submission")
        assert not driver.ended
    finally:
        slurm.start_controller()
    driver.until(lambda: len(driver.ended) == 2, 90, "both ends")
    assert all(campaign.done(key) and len(campaign.attempts(key)) == 1 for key in (running, waiting))
    driver.until(lambda: not driver.pool("vasp").troubles(), 20, "calm")


def test_job_at_its_walltime(slurm: Slurm, out_of_time: tuple[Campaign, SmallDriver, str]) -> None:
    campaign, driver, key = out_of_time
    until(lambda: bool(driver.ended), 120, "the end of the walltime")
    assert [(ended.keys, ended.cause) for ended in driver.ended] == [((key,), "walltime")]
    assert campaign.failures(key) == ["walltime"]
    until(lambda: not any(attempts_in_job(job_of(campaign, key))), 10, "end of the attempt")
