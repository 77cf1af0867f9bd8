"""Whole campaigns on two partitions of a real Slurm, of which everything is killed on the way that can be."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_campaign import SLEEPS, SMALL, SlurmCampaign
from slurm_daemons import Slurm, until

from alloop.errors import NOT_CONVERGED
from alloop.store import attempts, read_json

pytestmark = [pytest.mark.ci, pytest.mark.slow]


@pytest.fixture
def campaign(slurm: Slurm, tmp_path: Path) -> Iterator[SlurmCampaign]:
    found = SlurmCampaign(tmp_path / "campaign", slurm, **SMALL)
    yield found
    found.end_everything()


def test_running_labels_are_adopted_and_no_kill_repeats_or_loses_work(campaign: SlurmCampaign) -> None:
    rng = random.Random(5)
    campaign.sleeps = SLEEPS | {"label": {"seconds": [25.0, 2.0]}}
    campaign.start(jobs=2)
    deadline = time.monotonic() + 120
    while len(labels := _labels_running(campaign)) < 4:
        assert time.monotonic() < deadline and not campaign.ended(), campaign.log()
        time.sleep(0.1)
    assert campaign.kill("driver", rng)
    before = {folder: [path.name for path in attempts(folder)] for folder in labels}
    campaign.sleeps = SLEEPS
    campaign.start(queue="gpu", jobs=1)
    deadline = time.monotonic() + 90
    while not all((folder / "result").is_dir() for folder in labels):
        assert time.monotonic() < deadline and not campaign.ended(), campaign.log()
        time.sleep(0.2)
    assert campaign.log().count("still runs; taken over") >= 4
    for folder in labels:
        assert [path.name for path in attempts(folder)] == before[folder], "one attempt, the one the dead driver began"
        assert read_json(folder / "result" / "MANIFEST.json")["record"]["attempt"] == before[folder][0]
    for victim in ("worker", "scheduler", "driver"):
        campaign.wait_for_attempts(60)
        if campaign.kill(victim, rng) and victim == "driver":
            campaign.start(queue="cpu", jobs=2)
    assert campaign.process is not None
    assert campaign.process.wait(timeout=300) == NOT_CONVERGED, campaign.log()
    account = campaign.account()
    assert not account["unexplained"] and not account["begun_after_the_end"] and not account["labels_lost"], account
    assert account["repeated"] <= account["in_flight_at_kills"] and not account["quarantined"], account


def test_cancelled_and_expired_jobs_and_a_dead_controller_cost_no_label(
    campaign: SlurmCampaign,
) -> None:
    """Jobs of a minute, too short for the labels; Slurm takes 70-90 s to end them, and all else dies meanwhile."""
    rng = random.Random(7)
    campaign.alloop = [sys.executable, str(Path(__file__).parent / "hasty_alloop.py")]
    campaign.sleeps = SLEEPS | {"label": {"seconds": 300.0}}
    campaign.start(walltime_minutes=1)
    until(lambda: len(_labels_running(campaign)) >= 4, 90, "labels that have begun to sleep")
    before = campaign.jobs_at_work()
    assert len(before) == 2 and campaign.kill("job", rng)
    for victim in ("controller", "scheduler", "driver"):
        assert campaign.kill(victim, rng), victim
    campaign.start(walltime_minutes=1)
    until(lambda: bool(campaign.expired()) or campaign.ended(), 120, "a label ended by the walltime of its job")
    campaign.sleeps = SLEEPS | {"label": {"seconds": 0.5}}
    assert campaign.kill("driver", rng)
    campaign.start(walltime_minutes=30)
    campaign.kill("job", rng)  # the one that took the place of the first would sleep on
    until(lambda: _job_of_pool(campaign, "trainers") or campaign.ended(), 90, "a training in a job")
    assert campaign.kill("job", rng)
    assert campaign.process is not None
    assert campaign.process.wait(timeout=200) == NOT_CONVERGED, campaign.log()
    account = campaign.account()
    assert account["expired"] >= 1 and not account["quarantined"], account
    assert not account["unexplained"] and not account["begun_after_the_end"] and not account["labels_lost"], account
    assert 0 < account["repeated"] <= account["in_flight_at_kills"] + account["expired"], account


def _job_of_pool(campaign: SlurmCampaign, pool: str) -> bool:
    """Tell whether an attempt runs in a job of a pool."""
    return any(f"-{pool}-" in name for name in campaign.jobs_at_work())


def _labels_running(campaign: SlurmCampaign) -> list[Path]:
    """The labels that have read how long they are to sleep, and do."""
    running = campaign.attempts_running()
    root = campaign.folder / "iterations"
    return [
        folder
        for folder in root.glob("*/label/*")
        if folder.name in running and any(folder.glob("attempts/*/progress.json"))
    ]
