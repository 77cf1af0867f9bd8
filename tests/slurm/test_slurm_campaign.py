"""A whole campaign on two partitions of a real Slurm, whose driver, scheduler and workers are killed on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_campaign import SLEEPS, SlurmCampaign
from slurm_daemons import Slurm

from alloop.errors import NOT_CONVERGED
from alloop.store import attempts, read_json

pytestmark = [pytest.mark.ci, pytest.mark.slow]


@pytest.fixture
def campaign(slurm: Slurm, tmp_path: Path) -> Iterator[SlurmCampaign]:
    found = SlurmCampaign(tmp_path / "campaign", stop={"max_iterations": 1})
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


def _labels_running(campaign: SlurmCampaign) -> list[Path]:
    """The labels that have read how long they are to sleep, and do."""
    running = campaign.attempts_running()
    root = campaign.folder / "iterations"
    return [
        folder
        for folder in root.glob("*/label/*")
        if folder.name in running and any(folder.glob("attempts/*/progress.json"))
    ]
