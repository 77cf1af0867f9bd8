"""A driver that is told to hand over leaves its work running; the next one adopts it and leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_campaign import SLEEPS, SMALL, SlurmCampaign
from slurm_daemons import Slurm, until

from alloop.errors import NOT_CONVERGED

pytestmark = [pytest.mark.ci, pytest.mark.slow]


@pytest.fixture
def campaign(slurm: Slurm, tmp_path: Path) -> Iterator[SlurmCampaign]:
    found = SlurmCampaign(tmp_path / "campaign", slurm, **SMALL)
    yield found
    found.end_everything()


def test_driver_hands_over(slurm: Slurm, campaign: SlurmCampaign) -> None:
    campaign.sleeps = SLEEPS | {"label": {"seconds": 25.0}}
    campaign.start()
    asleep = "*/label/*/attempts/*/progress.json"
    until(lambda: len(list((campaign.folder / "iterations").glob(asleep))) >= 3, 90, "labels that have begun to sleep")
    campaign.process.send_signal(signal.SIGUSR1)
    left = {owner for owners in campaign.attempts_running().values() for owner in owners}
    assert campaign.process.wait(30) == NOT_CONVERGED, campaign.log()
    assert (campaign.run_folder / "handed-over").exists()
    assert any(owner.alive() for owner in left), "running work goes on"
    campaign.sleeps = SLEEPS
    campaign.start()
    assert campaign.process.wait(180) == NOT_CONVERGED, campaign.log()
    assert "still runs; taken over" in campaign.log()
    account = campaign.account()
    assert account["repeated"] == 0 and not account["labels_lost"], account
    until(lambda: campaign.scheduler() is None, 10, "end of the scheduler")
    until(lambda: not campaign.workers(), 30, "end of the jobs")
