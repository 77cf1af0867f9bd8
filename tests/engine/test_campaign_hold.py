from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from campaign_kit import LIMIT, asked_labels, bootstrap_content, driven, param
from engine_kit import fingerprint, publish_text, write_attempt

from alloop import campaign as campaign_module
from alloop import cli, loop
from alloop.campaign import Campaign
from alloop.errors import HELD_BY_ANOTHER, CampaignHeldError, InputError, NeedsPersonError
from alloop.policy import Now, policy
from alloop.pools import Ended, Slot
from alloop.process import this_process
from alloop.store import alive_here, read_json, write_json


def leave_beat(root: Path, **changes: Any) -> dict[str, Any]:
    """The heartbeat of another driver."""
    beat = this_process().to_json() | {"epoch": 1, "counter": 4, "time": datetime.now(UTC).isoformat()} | changes
    (root / "iterations" / "run").mkdir(parents=True, exist_ok=True)
    write_json(root / "iterations" / "run" / "driver.json", beat)
    return beat


# ---------------------------------------------------------------------------------------- decisions


def test_load_folds_the_same_state_each_time(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    key = campaign.state.decisions["bootstrap", -1]["tasks"][1]["key"]
    publish_text(campaign.prepare(key), key, "{}", "frames.npz")
    assert campaign.accept(key)
    gone = campaign.state.decisions["bootstrap", -1]["tasks"][2]["key"]
    campaign.decide("quarantine", key=gone, name="glass.t02", message="three failures", **{"class": "bug"})
    driver_state = campaign.state
    first, second = Campaign(tmp_path).load(), Campaign(tmp_path).load()
    assert first == second == driver_state
    assert list(first.waiting) == list(second.waiting) == list(driver_state.waiting)
    assert (first.done, set(first.quarantined), first.next_number) == ({key}, {gone}, 4)
    assert list(first.tasks) == [task["key"] for task in campaign.state.decisions["bootstrap", -1]["tasks"]]


def test_running_attempts_are_seen_when_loading(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    running, dead, _ = campaign.state.tasks
    write_attempt(campaign.prepare(running), "a", this_process().to_json())
    write_attempt(campaign.prepare(dead), "a", this_process().to_json() | {"start_ticks": 1})
    assert Campaign(tmp_path).load().running == {running}


def test_missing_decision_is_refused(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    (campaign.decisions_folder / "00000001.json").unlink()
    with pytest.raises(InputError, match=r"lacks decision file\(s\) \[1\]"):
        Campaign(tmp_path).load()


def test_broken_result_is_found_by_the_driver_and_only_by_it(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    key = next(iter(campaign.state.tasks))
    publish_text(campaign.prepare(key), key, "{}", "frames.npz")
    (campaign.result(key) / "frames.npz").write_text("longer than before")
    before = fingerprint(tmp_path)
    assert key in Campaign(tmp_path).load().waiting
    assert fingerprint(tmp_path) == before, "who only looks changes nothing"
    assert not campaign.accept(key)
    assert not campaign.store.is_done(campaign.state.tasks[key])


def test_result_that_exists_before_it_is_asked_for_is_not_asked_again(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    content = bootstrap_content()
    campaign.state.apply({"number": 1, "kind": "bootstrap"} | content)  # only to learn where the task would live
    key = content["tasks"][0]["key"]
    publish_text(campaign.prepare(key), key, "{}", "frames.npz")
    campaign.load()
    campaign.decide("bootstrap", iteration=-1, **content)
    assert key in campaign.state.done and key not in campaign.state.waiting
    assert campaign.state.stage_counts("bootstrap", -1) == (1, 3)
    again = driven(tmp_path, take_over=True)
    assert key in again.state.done and key not in again.state.waiting


def test_number_taken_by_another_driver(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    write_json(campaign.decisions_folder / "00000002.json", {"number": 2, "kind": "start", "foreign": True})
    before, state = fingerprint(tmp_path), campaign.state.next_number
    with pytest.raises(CampaignHeldError, match="decision 2"):
        campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    assert fingerprint(tmp_path) == before
    assert campaign.state.next_number == state and not campaign.state.decided("bootstrap")


# ---------------------------------------------------------------------------------------- one driver


def test_live_local_driver_keeps_others_out(tmp_path: Path) -> None:
    driven(tmp_path)
    before = fingerprint(tmp_path)
    with pytest.raises(CampaignHeldError, match="--take-over"):
        driven(tmp_path)
    assert fingerprint(tmp_path) == before
    assert CampaignHeldError.exit_code == HELD_BY_ANOTHER == 4


def test_run_command_ends_with_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "param.json", param().model_dump(mode="json", exclude_defaults=True))
    driven(tmp_path)
    monkeypatch.setattr("alloop.preflight.require", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["alloop", "run", "-C", str(tmp_path)])
    before = fingerprint(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot": "an earlier boot"}, {"pid": 2**22 + 1}])
def test_dead_local_driver_is_followed_at_once(tmp_path: Path, change: dict[str, Any]) -> None:
    campaign = driven(tmp_path)
    first_epoch = campaign.epoch
    leave_beat(tmp_path, **change)
    began = time.monotonic()
    follower = driven(tmp_path)
    assert time.monotonic() - began < campaign_module.BEAT_SECONDS
    assert follower.epoch == follower.state.next_number - 1 != first_epoch
    assert read_json(follower.run_folder / "driver.json")["epoch"] == follower.epoch
    assert follower.state.identity["id"] == campaign.state.identity["id"], "it is the same campaign"


def test_take_over_needs_no_silence(tmp_path: Path) -> None:
    old = driven(tmp_path)
    new = driven(tmp_path, take_over=True)
    assert new.epoch != old.epoch
    new.check_held()
    with pytest.raises(CampaignHeldError):
        old.check_held()


@pytest.mark.parametrize("clock", ["2001-01-01T00:00:00+00:00", "2101-01-01T00:00:00+00:00"])
def test_silent_driver_of_another_host_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """Clocks of two hosts are never compared: a beat from the past and one from the future count the same."""
    monkeypatch.setattr(campaign_module, "FOREIGN_SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(campaign_module, "BEAT_SECONDS", 0.05)
    leave_beat(tmp_path, host="another host", time=clock)
    began = time.monotonic()
    campaign = driven(tmp_path)
    assert time.monotonic() - began >= 0.4
    assert read_json(campaign.run_folder / "driver.json")["host"] == this_process().host


def test_beating_driver_of_another_host_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_module, "FOREIGN_SILENCE_SECONDS", 20.0)
    monkeypatch.setattr(campaign_module, "BEAT_SECONDS", 0.05)
    leave_beat(tmp_path, host="another host")
    beating = threading.Timer(0.2, leave_beat, (tmp_path,), {"host": "another host", "counter": 5})
    beating.start()
    try:
        with pytest.raises(CampaignHeldError, match="another host"):
            driven(tmp_path)
    finally:
        beating.join()
    assert not (tmp_path / "iterations" / "decisions").exists()


def test_beat_changes_so_that_others_see_it(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    first = campaign.read_beat()
    campaign.beat()
    assert campaign.read_beat() == first, "not at every call"
    campaign.beat(force=True)
    assert campaign.read_beat() != first


def test_release_removes_the_own_beat_only(tmp_path: Path) -> None:
    old = driven(tmp_path)
    new = driven(tmp_path, take_over=True)
    old.release()
    assert new.read_beat() is not None
    new.release()
    assert new.read_beat() is None and not new.driver_alive()


# ---------------------------------------------------------------------------------------- a driver that lost


class IdlePool:
    """Pools in which nothing happens but what the test says has ended."""

    alive = staticmethod(alive_here)

    def __init__(self, ended: list[Ended]) -> None:
        self.ended = ended
        self.started: list[tuple[str, ...]] = []
        self.looks = 0
        self.told: list[list[int]] = []

    def free_slots(self) -> list[Slot]:
        return [Slot("local", "0"), Slot("local", "1")]

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        self.started.append(keys)

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        self.started.append(keys)

    def demand(self, wanted: object) -> None:
        self.looks += 1

    def end(self, owners: list[dict[str, Any]]) -> None:
        self.told.append([owner["pid"] for owner in owners])

    def troubles(self) -> list[str]:
        return []

    def wait(self, seconds: float) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended


class Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def nothing_decided(campaign: Campaign) -> list[Ended]:
    return []


def tasks_waiting(campaign: Campaign) -> list[Ended]:
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    return []


def task_done(campaign: Campaign) -> list[Ended]:
    tasks_waiting(campaign)
    key = next(iter(campaign.state.tasks))
    publish_text(campaign.prepare(key), key, "{}", "frames.npz")
    (campaign.result(key) / "frames.npz").write_text("xx")  # a broken one, which a driver would quarantine
    for other in list(campaign.state.tasks):
        campaign.state.begin(other)
    return [Ended((key,), 0)]


def task_died(campaign: Campaign) -> list[Ended]:
    tasks_waiting(campaign)
    for key in list(campaign.state.tasks):
        write_attempt(campaign.prepare(key), "a", this_process().to_json() | {"start_ticks": 1})
        campaign.state.begin(key)
    return [Ended(tuple(campaign.state.running), -9)]


@pytest.mark.parametrize("situation", [nothing_decided, tasks_waiting, task_done, task_died])
def test_driver_that_lost_the_campaign_ends_and_changes_nothing(
    tmp_path: Path, situation: Callable[[Campaign], list[Ended]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = driven(tmp_path)
    pool = IdlePool(situation(old))
    if situation is task_died:
        monkeypatch.setattr(loop.Driver, "_adopt", lambda self: None)
    driver = loop.Driver(old, param(), loop.Limits(2, 2), pool, Silent())  # type: ignore[arg-type]
    write_json(
        old.decisions_folder / f"{old.state.next_number:08d}.json",
        {"number": old.state.next_number, "kind": "start"},
    )
    before = fingerprint(tmp_path / "iterations")
    with pytest.raises(CampaignHeldError):
        driver.run()
    for act in (old.check_held, lambda: old.beat(force=True), lambda: old.decide("verdict", iteration=0)):
        with pytest.raises(CampaignHeldError):
            act()
    assert fingerprint(tmp_path / "iterations") == before
    assert pool.started == []


def test_driver_that_may_go_on_does_act(tmp_path: Path) -> None:
    """The counterpart of the test above: in the same situations the holder decides, launches and settles."""
    campaign = driven(tmp_path)
    ended = task_died(campaign)
    driver = loop.Driver(campaign, param(), loop.Limits(2, 2), IdlePool(ended), Silent())  # type: ignore[arg-type]
    driver._settle(0)
    assert len(list(campaign.store.iterations.glob("bootstrap/seed/*/attempts/a/failed.json"))) == 3
    assert not campaign.state.running and len(campaign.state.waiting) == 3
    driver._launch(policy(campaign.state, driver.limits, Now(tuple(driver.pool.free_slots()))).launch)
    assert [len(keys) for keys in driver.pool.started] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("core_hours", "labels", "stops"), [(1e-9, None, True), (None, 1, False)])
def test_batches_begin_no_further_task_once_the_hours_are_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core_hours: float | None, labels: int | None, stops: bool
) -> None:
    """Of labels those that run are paid for already; core-hours they would only use up further."""
    campaign = driven(tmp_path)
    campaign.costs.add("train", None, None, {"seconds": 3600.0, "threads": 1})
    campaign.costs.paid_labels = 1
    own = param(budget={"core_hours": core_hours, "labels": labels})
    driver = loop.Driver(campaign, own, loop.Limits(2, 2), IdlePool([]), Silent())  # type: ignore[arg-type]
    ending = loop.Ending(3, "the budget is used up", "budget")
    monkeypatch.setattr(driver, "_begin", lambda: None)
    monkeypatch.setattr(driver, "_cycle", lambda: ending)
    assert driver.run() == ending
    assert (loop.stop_requested(campaign) == "finish") is stops


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (NeedsPersonError("train is paused"), [("failed", "train is paused")]),
        (ValueError("a bug"), [("failed", "a bug")]),
        (CampaignHeldError("taken over"), []),
        (loop.HANDED_OVER, []),
        (loop.STOPPED, [("stopped", loop.STOPPED.reason)]),
    ],
    ids=["needs a person", "bug", "taken over", "handed over", "stopped"],
)
def test_person_s_command_hears_of_every_end_of_a_run_but_of_no_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Exception | loop.Ending, told: list[tuple[str, str]]
) -> None:
    campaign, own = driven(tmp_path), param(notify={"command": "mail"})
    heard: list[tuple[str, str]] = []

    def run(driver: loop.Driver) -> loop.Ending:
        if isinstance(end, Exception):
            raise end
        return end

    def tell(command: str, event: str, message: str, of: Campaign, **_: Any) -> None:
        assert command == "mail" and of is campaign and of.driver_alive(), "before the campaign is let go of"
        heard.append((event, message))

    monkeypatch.setattr(loop.Driver, "run", run)
    monkeypatch.setattr(loop.notify, "tell", tell)
    with pytest.raises(type(end)) if isinstance(end, Exception) else contextlib.nullcontext():
        loop.run(campaign, own, loop.limits(own, 1), Silent())  # type: ignore[arg-type]
    assert heard == told and not campaign.driver_alive()


# ---------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "'tiny'"),
        ({"seed": 4}, "another campaign"),
        ({"label": {"labeler": "chgnet"}}, "level of theory changed"),
        ({"label": {"options": {"dispersion": True}}}, "level of theory changed"),
        ({"elements": ["O", "Si", "B", "Li"]}, "elements changed"),
    ],
)
def test_another_campaign_in_the_same_folder_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    campaign = driven(tmp_path)
    campaign.decide("seed_labels", iteration=-1, **asked_labels(campaign))
    campaign.release()
    before = fingerprint(tmp_path)
    with pytest.raises(InputError, match=message):
        Campaign(tmp_path).take(param(**change), take_over=False, limit=LIMIT)
    assert fingerprint(tmp_path) == before


def test_glass_that_comes_after_the_bootstrap_is_refused(tmp_path: Path) -> None:
    campaign = driven(tmp_path)
    known = param().model_dump(mode="json")["glasses"]
    new = {"name": "another", "mole_fractions": {"SiO2": 1.0}, "density_g_cm3": 2.2}
    campaign.check_identity(param(glasses=[*known, new]))
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    campaign.check_identity(param(glasses=known))
    with pytest.raises(InputError, match="another came after the bootstrap"):
        campaign.check_identity(param(glasses=[*known, new]))


def test_level_of_theory_may_change_before_a_label_was_asked_for(tmp_path: Path) -> None:
    driven(tmp_path).release()
    campaign = Campaign(tmp_path)
    campaign.take(param(label={"labeler": "chgnet"}), take_over=False, limit=LIMIT)
    assert campaign.state.level == campaign.state.target_level == "chgnet"


def test_change_that_keeps_old_results_valid_is_accepted_and_recorded(tmp_path: Path) -> None:
    driven(tmp_path).release()
    changed = param(stop={"max_iterations": 5}, label={"max_attempts": 7})
    campaign = Campaign(tmp_path)
    campaign.take(changed, take_over=False, limit=LIMIT)
    assert campaign.state.starts[-1]["config"]["stop"]["max_iterations"] == 5
    assert campaign.state.identity["config"]["stop"]["max_iterations"] == 20
    campaign.release()
    driven(tmp_path).check_held()


def test_a_driver_that_waits_for_what_runs_looks_after_its_pools_and_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch pool hears of the end of an attempt out of dask's sight only when it is looked after."""
    campaign = driven(tmp_path)
    tasks_waiting(campaign)
    key = next(iter(campaign.state.tasks))
    write_attempt(campaign.prepare(key), "a", this_process().to_json() | {"start_ticks": 1})
    campaign.state.begin(key)

    class Looked(IdlePool):
        def wait(self, seconds: float) -> list[Ended]:
            return [Ended((key,), -9)] if self.looks >= 4 else []

    monkeypatch.setattr(loop, "ASK_AGAIN_SECONDS", 0.0)
    pool = Looked([])
    driver = loop.Driver(campaign, param(), loop.Limits(2, 2), pool, Silent())  # type: ignore[arg-type]
    loop.request_stop(campaign, now=True)
    alive = [this_process().to_json()]
    monkeypatch.setattr(loop.store, "live_records", lambda *_: alive if pool.looks < 4 else [])
    assert driver._finish(loop.STOPPED) is loop.STOPPED
    assert pool.looks == 4 and pool.told == [[os.getpid()]] * 4


@pytest.mark.parametrize("fails", [1, 99])
def test_a_beat_that_cannot_be_read_is_no_sign_of_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    beat, looks = leave_beat(tmp_path, host="another host"), 0

    def stale(path: Path) -> Any:
        nonlocal looks
        looks += 1
        if looks <= fails:
            raise OSError(116, "Stale file handle")
        return read_json(path)

    monkeypatch.setattr(campaign_module, "read_json", stale)
    monkeypatch.setattr(campaign_module, "_LOOK_AGAIN_SECONDS", 0.0)
    if fails == 1:
        assert Campaign(tmp_path).read_beat() == beat
    else:
        with pytest.raises(OSError, match="Stale"):
            Campaign(tmp_path).read_beat()
