"""`alloop stop --cancel-jobs`, from the command line to a fake queue: with a driver and without one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaign_kit import LIMIT, param
from pools_kit import World
from typer.testing import CliRunner

from alloop import cli, loop
from alloop.campaign import Campaign
from alloop.errors import CampaignHeldError, InputError
from alloop.pools import cancelling
from alloop.pools.fleet import open_fleet
from alloop.process import this_process
from alloop.store import write_json

SLURM = {"vasp": {"type": "slurm", "tasks": ["label"], "walltime_minutes": 60}}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0.02)


@pytest.fixture
def campaign(world: World, tmp_path: Path) -> Campaign:
    """A campaign whose driver has ended and left two jobs, one waiting and one running."""
    made = Campaign(tmp_path)
    made.take(param(pools=SLURM), take_over=False, limit=LIMIT)
    made.release()
    pool = world.drive(jobs=2)
    world.until(lambda: len(world.queue.jobs()) == 2 and all(world.record(n)["id"] for n in world.names()), batches=2)
    world.queue.run("1")
    pool.close(cancel_jobs=False)
    return made


def stop(campaign: Campaign, *options: str) -> Any:
    return CliRunner().invoke(cli.app, ["stop", *options, "-C", str(campaign.root)])


def test_without_a_driver_the_jobs_on_record_are_cancelled(world: World, campaign: Campaign) -> None:
    held: list[bool] = []
    before = campaign.load().next_number
    assert stop(campaign).exit_code == 0 and len(world.queue.jobs()) == 2, "not without being told to"
    local, last = param(pools={"vasp": {"tasks": ["label"]}}), Campaign(campaign.root).load().starts[-1]
    with pytest.raises(InputError, match="alloop stop --cancel-jobs"):
        open_fleet(local, campaign.run_folder, "id", 1)

    with pytest.MonkeyPatch.context() as patch:
        look = cancelling.query

        def looked(kind: str) -> Any:
            held.append(Campaign(campaign.root).driver_alive())
            with pytest.raises(CampaignHeldError):
                Campaign(campaign.root).take(param(pools=SLURM), take_over=False, limit=LIMIT)
            return look(kind)

        patch.setattr(cancelling, "query", looked)
        done = stop(campaign, "--cancel-jobs")
    assert done.exit_code == 0, done.output
    assert "2 batch job(s) cancelled" in done.output and all(name in done.output for name in world.names())
    assert world.queue.jobs() == []
    assert held and all(held), "no driver could start meanwhile"
    assert all(world.record(name)["gone"] for name in world.names())
    assert all((world.run_folder / "jobs" / f"{name}.end").exists() for name in world.names())

    state = Campaign(campaign.root).load()
    assert not campaign.driver_alive() and state.next_number == before + 1
    assert {key: state.starts[-1][key] for key in ("config", "levels")} == {k: last[k] for k in ("config", "levels")}
    open_fleet(local, campaign.run_folder, "id", 1).close()
    assert "nothing to cancel" in stop(campaign, "--cancel-jobs").output
    assert Campaign(campaign.root).load().next_number == state.next_number


def test_job_whose_submission_nobody_saw_is_found_by_its_name(world: World, campaign: Campaign) -> None:
    for name in world.names():
        write_json(world.run_folder / "jobs" / f"{name}.json", world.record(name) | {"id": None})
    assert "2 batch job(s) cancelled" in stop(campaign, "--cancel-jobs").output
    assert world.queue.jobs() == []


def test_what_does_not_leave_the_queue_is_named(
    world: World, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "LEAVING_SECONDS", 0.3)
    monkeypatch.setattr(cancelling.jobqueue, "cancel", lambda kind, ids: None)
    done = stop(campaign, "--cancel-jobs")
    assert "the queue still shows" in done.output and all(name in done.output for name in world.names())
    assert not any(world.record(name)["gone"] for name in world.names())


def test_queue_that_does_not_answer_is_told(world: World, campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "LEAVING_SECONDS", 0.3)
    world.queue.misbehave("query", "fail")
    done = stop(campaign, "--cancel-jobs")
    assert isinstance(done.exception, InputError) and "Unable to contact slurm controller" in str(done.exception)
    assert not any(world.record(name)["gone"] for name in world.names())
    assert not campaign.driver_alive()


@pytest.mark.parametrize("asked", [True, False])
def test_living_driver_is_asked_and_cancels_them_itself(
    world: World, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    driver = Campaign(campaign.root)
    driver.take(param(pools=SLURM), take_over=False, limit=LIMIT)
    number = driver.state.next_number
    said: list[str] = []

    def stopped_from_outside(self: loop.Driver) -> loop.Ending:
        said.append(stop(campaign, *["--cancel-jobs"] * asked).output)
        assert loop.cancel_requested(driver) is asked and loop.stop_requested(driver) == ("now" if asked else "finish")
        assert len(world.queue.jobs()) == 2, "it is the driver that does it"
        assert Campaign(campaign.root).load().next_number == number
        return loop.HANDED_OVER  # an end that leaves jobs alone

    monkeypatch.setattr(loop.Driver, "run", stopped_from_outside)
    own = param(pools=SLURM)
    loop.run(driver, own, loop.limits(own, 1), SimpleNamespace(say=said.append))  # type: ignore[arg-type]
    assert said == [f"the driver will stop and {'end what runs' if asked else 'let running tasks finish'}\n"]
    assert len(world.queue.jobs()) == (0 if asked else 2)


def test_driver_of_another_host_is_watched_before_its_jobs_are_touched(
    world: World, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alloop.campaign.FOREIGN_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr("alloop.campaign.BEAT_SECONDS", 0.05)
    beat = this_process().to_json() | {"host": "elsewhere", "epoch": 1, "time": "2020-01-01T00:00:00+00:00"}
    write_json(campaign.run_folder / "driver.json", beat)
    living = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Campaign, "read_beat", lambda self: beat | {"counter": next(living)})
        done = stop(campaign, "--cancel-jobs")
    assert isinstance(done.exception, CampaignHeldError) and len(world.queue.jobs()) == 2
    done = stop(campaign, "--cancel-jobs")
    assert "elsewhere went without a word" in done.output and world.queue.jobs() == []


def test_plain_stop_without_a_driver_leaves_word_for_a_successor(campaign: Campaign) -> None:
    assert "will not start" in stop(campaign).output
    assert json.loads((campaign.run_folder / "stop.json").read_text()) == {"mode": "finish", "cancel_jobs": False}
    assert stop(campaign, "--cancel-jobs").exit_code == 0
    assert loop.stop_requested(campaign) == "now", "also after the campaign was held for a moment"


def test_only_what_left_the_queue_is_called_cancelled(
    world: World, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "LEAVING_SECONDS", 0.3)
    monkeypatch.setattr(cancelling.jobqueue, "cancel", lambda kind, ids: None)
    assert "batch job(s) cancelled" not in stop(campaign, "--cancel-jobs").output
