"""Requests of persons: decided at once without a driver, by the driver if one lives, and exactly once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from campaign_kit import LIMIT, asked_labels, bootstrap_content, content, driven, param
from rich.console import Console

from alloop import loop, requests
from alloop.campaign import Campaign
from alloop.errors import CampaignHeldError, InputError
from alloop.pools import Ended, Slot
from alloop.report.progress import Watcher
from alloop.store import alive_here, make_task


def with_labels(root: Path, count: int = 4) -> Campaign:
    """A campaign this process drives, which has asked for labels; the first two are given up."""
    campaign = driven(root)
    campaign.decide("seed_labels", iteration=-1, **asked_labels(campaign, count))
    for key, kind in zip(list(campaign.state.picks), ("unconverged", "edddav"), strict=False):
        campaign.decide("quarantine", key=key, name="x", **{"class": kind, "message": "m", "detail": ""})
    return campaign


def opened(root: Path) -> Campaign:
    campaign = Campaign(root)
    campaign.load()
    return campaign


def test_without_a_driver_the_decision_is_taken_at_once(tmp_path: Path) -> None:
    with_labels(tmp_path).release()
    campaign = opened(tmp_path)
    keys = requests.quarantined(campaign, [], "edddav", everything=False)
    assert requests.ask(campaign, "retry", keys=keys) == "done"
    again = opened(tmp_path).state
    assert list(again.quarantined) == [next(iter(again.picks))] and keys[0] in again.waiting
    assert keys[0] in again.retried


def test_chunk_of_an_iteration_that_has_chosen_its_frames_is_not_tried_again(tmp_path: Path) -> None:
    campaign = with_labels(tmp_path)
    chunk, other = (make_task("explore", "g", f"glass.t0.c{n:02d}", {"n": n}) for n in range(2))
    campaign.decide("explore", iteration=0, **content([chunk, other]))
    for key in (chunk.key, other.key):
        campaign.decide("quarantine", key=key, name="x", **{"class": "numeric", "message": "m", "detail": ""})
    assert requests.quarantined(campaign, [chunk.name], None, everything=False) == [chunk.key]
    campaign.decide("select", iteration=0, level=campaign.level, picks=[])
    for names, failed in (([chunk.name], None), ([], "numeric")):
        with pytest.raises(InputError, match=r"glass\.t0\.c00.* has chosen its frames"):
            requests.quarantined(campaign, names, failed, everything=False)
    labels = sorted(campaign.state.quarantined.keys() & campaign.state.picks.keys())
    assert requests.quarantined(campaign, [], None, everything=True) == labels


def test_a_living_driver_takes_the_request_once(tmp_path: Path) -> None:
    driver = with_labels(tmp_path)
    key = list(driver.state.picks)[3]
    outcome: list[str] = []
    asking = threading.Thread(
        target=lambda: outcome.append(requests.ask(opened(tmp_path), "exclude", keys=[key], reason="odd", undo=False))
    )
    asking.start()
    while not requests.waiting(driver):
        pass
    (file, _, _), *_ = requests.waiting(driver)
    kept = file.read_bytes()
    assert [kind for kind, _ in requests.take(driver)] == ["exclude"]
    asking.join()
    assert outcome == ["done"] and driver.state.excluded[key]["reason"] == "odd"
    file.write_bytes(kept)  # a driver killed between decision and removal leaves the file behind
    number = driver.state.next_number
    requests.take(driver)
    assert driver.state.next_number == number and not file.exists()


def test_damaged_and_unknown_requests_are_left_alone(tmp_path: Path) -> None:
    driver = with_labels(tmp_path)
    folder = driver.run_folder / "requests"
    folder.mkdir()
    (folder / "1-damaged.json").write_text('{"kind": "ret')
    (folder / "2-unknown.json").write_text(json.dumps({"kind": "train", "content": {}}))
    assert requests.take(driver) == [] and len(list(folder.iterdir())) == 2


def test_excluded_labels_leave_the_data_sets_and_may_come_back(tmp_path: Path) -> None:
    with_labels(tmp_path).release()
    campaign = opened(tmp_path)
    key = list(campaign.state.picks)[3]
    campaign.state.settle_done(key)
    role = campaign.state.picks[key]["role"]
    assert campaign.state.labels(role) == [key]
    requests.ask(campaign, "exclude", keys=[key], reason="odd", undo=False)
    campaign.state.settle_done(key)
    assert campaign.state.labels(role) == []
    requests.ask(campaign, "exclude", keys=[key], reason="", undo=True)
    campaign.state.settle_done(key)
    assert campaign.state.labels(role) == [key]


@pytest.mark.parametrize(
    ("names", "failed", "everything", "words"),
    [
        ([], None, False, "--class unconverged"),
        ([], "hang", False, "nothing is quarantined with class hang"),
        (["nobody"], None, False, "names 0 quarantined tasks"),
        (["LBS-20-60-20.n63.t00.s0000", "x"], None, False, "'x' names 0"),
    ],
)
def test_what_is_to_be_retried_must_be_quarantined(tmp_path: Path, names, failed, everything, words: str) -> None:
    with_labels(tmp_path).release()
    with pytest.raises(InputError, match=words):
        requests.quarantined(opened(tmp_path), names, failed, everything=everything)


def test_retry_by_name_prefix_of_key_and_all(tmp_path: Path) -> None:
    with_labels(tmp_path).release()
    campaign = opened(tmp_path)
    first, second = campaign.state.quarantined
    task = campaign.state.tasks[first]
    for name in (first, first[:6], task.name, f"{task.name}-{first}", f"/some/where/{task.name}-{first}"):
        assert requests.quarantined(campaign, [name], None, everything=False) == [first]
    assert requests.quarantined(campaign, [], None, everything=True) == sorted([first, second])


def test_relabelling_needs_another_level_labels_and_no_driver(tmp_path: Path) -> None:
    driver = with_labels(tmp_path)
    other = param(label={"labeler": "chgnet"})
    with pytest.raises(CampaignHeldError, match="alloop stop"):
        requests.relabel(Campaign(tmp_path), other, really=True)
    driver.release()
    with pytest.raises(InputError, match="nothing to do"):
        requests.relabel(Campaign(tmp_path), param(), really=True)
    with pytest.raises(InputError, match="no campaign has begun"):
        requests.relabel(Campaign(tmp_path / "elsewhere"), other, really=True)
    fresh = tmp_path / "fresh"
    Campaign(fresh).take(param(), take_over=False, limit=LIMIT)
    (fresh / "iterations" / "run" / "driver.json").unlink()
    with pytest.raises(InputError, match="no label was asked for"):
        requests.relabel(Campaign(fresh), other, really=True)


class NoPool:
    """Pools that have no room; waiting for them ends the driver's cycle."""

    alive = staticmethod(alive_here)

    def free_slots(self) -> list[Slot]:
        return []

    def demand(self, wanted: object) -> None:
        pass

    def troubles(self) -> list[str]:
        return []

    def wait(self, seconds: float) -> list[Ended]:
        raise KeyboardInterrupt


def test_request_left_waiting_is_heard_before_a_new_driver_would_give_up(tmp_path: Path) -> None:
    driver = driven(tmp_path)
    driver.decide("bootstrap", iteration=-1, **bootstrap_content())
    key = next(iter(driver.state.waiting))
    driver.decide("quarantine", key=key, name="x", **{"class": "crash", "message": "m", "detail": ""})
    folder = driver.run_folder / "requests"
    folder.mkdir()
    now = "2999-01-01T00:00:00+00:00"
    (folder / "1-left.json").write_text(json.dumps({"kind": "retry", "content": {"keys": [key], "time": now}}))
    own = param()
    cycle = loop.Driver(driver, own, loop.limits(own, 1), NoPool(), Watcher(Console(quiet=True)))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        cycle.run()
    assert not driver.state.quarantined and key in driver.state.waiting
