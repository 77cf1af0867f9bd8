"""Status from the snapshot: without a driver it tells what loading the campaign tells, or loads it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_kit import begun, end_well, fail_once, picks, task_folder

import alloop
from alloop import notify, requests
from alloop.campaign import Campaign
from alloop.process import ProcessIdentity
from alloop.report import snapshot
from alloop.report.snapshot import TROUBLES, Snapshots, read_status, write_snapshot
from alloop.report.status import build_status
from alloop.state import task_entries
from alloop.store import begin_attempt, make_task, write_json

DECISION = {"trajectories": {}, "last_chunk": {}}


@pytest.fixture
def sleeper() -> Iterator[ProcessIdentity]:
    """A process that lives through the test, as an attempt would."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield ProcessIdentity.of(process.pid)
    finally:
        process.kill()
        process.wait()


def exploring(root: Path, **changes: Any) -> Campaign:
    """A campaign in its first iteration: two models trained, chunks explored, ten labels picked so far."""
    campaign = begun(root, **changes)
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=picks(campaign, 10, 100))
    for key in list(campaign.state.waiting):
        end_well(campaign, key)
    common = {role: campaign.state.labels(role) for role in ("training", "held_out")}
    train = [make_task("train", "iter.000000/train", f"model.{n:02d}", common | {"seed": n}) for n in range(2)]
    campaign.decide("train", iteration=0, inputs=[], common=common, tasks=task_entries(train, common))
    for task in train:
        trained(campaign, task.key)
    names = [f"LBS-20-60-20.n63.{kelvin}K.t00.c00" for kelvin in (300, 400, 500)]
    chunks = [make_task("explore", "iter.000000/explore", name, {"name": name}) for name in names]
    campaign.decide("explore", iteration=0, inputs=[], common={}, tasks=task_entries(chunks, {}), **DECISION)
    end_well(campaign, chunks[0].key)
    ask(campaign, 10, 0)
    return campaign


def trained(campaign: Campaign, key: str, *, accept: bool = True, **summary: Any) -> None:
    folder = task_folder(campaign, key)
    attempt = begin_attempt(folder)
    write_json(attempt.out / "summary.json", {"model": "model.pb"} | summary)
    (attempt.out / "model.pb").write_text("model")
    from report_kit import RECORD

    from alloop.store import publish

    assert publish(attempt, key, RECORD)
    assert not accept or campaign.accept(key)


def ask(campaign: Campaign, count: int, first: int, **more: Any) -> list[str]:
    found = picks(campaign, count, first, stratum="LBS-20-60-20 300K", time_ps=0.1, **more)
    campaign.decide("pick", iteration=0, level=campaign.level, picks=found)
    return [pick["key"] for pick in found]


def leave(campaign: Campaign) -> None:
    """The driver writes its last snapshot and is killed."""
    write_snapshot(campaign)
    beat = campaign.run_folder / "driver.json"
    write_json(beat, json.loads(beat.read_text()) | {"start_ticks": 1})


def loaded_status(root: Path) -> dict[str, Any]:
    campaign = Campaign(root)
    campaign.load()
    return told(build_status(campaign, "not running"))


def told(status: dict[str, Any]) -> dict[str, Any]:
    """A status but for the time it was taken, and for which of equal flagged labels is the example."""
    flagged = [entry | {"example": ""} for entry in status["flagged"]]
    return {key: value for key, value in status.items() if key != "time"} | {"flagged": flagged}


@pytest.fixture
def never_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Campaign) -> None:
        raise AssertionError("the campaign was loaded")

    monkeypatch.setattr(Campaign, "load", load)


def from_snapshot(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The status, in the telling of which the campaign must not be loaded."""
    with monkeypatch.context() as patch:
        patch.setattr(Campaign, "load", None)
        return told(read_status(Campaign(root)))


def test_nothing_has_happened_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = exploring(tmp_path)
    campaign.state.begin(next(key for key in campaign.state.waiting if key in campaign.state.picks))  # it has died too
    leave(campaign)
    assert json.loads((tmp_path / "iterations" / "state.json").read_text())["status"]["labels"]["in_flight"] == 1
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path)
    assert found["driver"] == "not running" and found["labels"]["in_flight"] == 0


def test_labels_that_ended_after_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = exploring(tmp_path, budget={"labels": 14})
    keys = list(campaign.state.waiting)
    labels = [key for key in keys if campaign.state.tasks[key].kind == "label"]
    campaign.decide("exclude", keys=labels[:1], reason="", time="", undo=False)
    leave(campaign)
    before = loaded_status(tmp_path)
    for number, key in enumerate(labels[:4]):
        fail_once(campaign, key, 30.0 + number)
        end_well(campaign, key, accept=False, notes={"code": f"vasp {number % 2}", "flags": ["force_ceiling"]})
    end_well(campaign, next(key for key in keys if key not in labels), accept=False)
    fail_once(campaign, labels[5], 99.0)
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path)
    assert found["labels"]["done"] == before["labels"]["done"] + 4 and found["labels"]["excluded"] == 1
    assert found["tasks"]["explore"]["done"] == before["tasks"]["explore"]["done"] + 1
    assert found["iterations"][0]["labels"] == 4 and found["cost"]["by_kind"]["label"]["failures"] == 5
    assert found["budget"]["labels"]["used"] == 14 and any("100 % of the budget" in w for w in found["warnings"])
    assert found["flagged"][0]["count"] == 3, "an excluded one has been looked at"
    assert any("2 versions" in line for line in found["warnings"])


def test_work_that_goes_on_without_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: ProcessIdentity
) -> None:
    campaign = exploring(tmp_path)
    first, second, *_ = campaign.state.waiting
    for key in (first, second):
        attempt = begin_attempt(task_folder(campaign, key))
        write_json(attempt.folder / "attempt.json", sleeper.to_json())
    write_json(attempt.folder / "progress.json", {"done": 0.25})
    campaign.state.begin(first)
    leave(campaign)
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path)
    assert sum(counts["running"] for counts in found["tasks"].values()) == 2
    assert [entry["done"] for entry in found["running"]] == [0.25]


def test_models_trained_after_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = exploring(tmp_path)
    common = {role: campaign.state.labels(role) for role in ("training", "held_out")}
    train = [make_task("train", "iter.000001/train", f"model.{n:02d}", common | {"seed": 7 + n}) for n in range(3)]
    campaign.decide("train", iteration=1, inputs=[], common=common, tasks=task_entries(train, common))
    leave(campaign)
    old = from_snapshot(tmp_path, monkeypatch)["models"]
    assert len(old) == 2 and "iter.000000" in old[0]
    trained(campaign, train[2].key, accept=False)
    trained(campaign, train[0].key, accept=False)
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path) and [path.split("/")[3][:8] for path in found["models"]] == [
        "model.00",
        "model.02",
    ]


@pytest.mark.parametrize("driver_saw_it", [True, False])
def test_warns_where_no_model_describes_environments(tmp_path: Path, driver_saw_it: bool) -> None:
    """The first model of the first ensemble is that of the whole campaign; it may end after the driver has died."""
    campaign = begun(tmp_path)
    common = {"training": [], "held_out": []}
    task = make_task("train", "iter.000000/train", "model.00", common | {"describe": True})
    campaign.decide("train", iteration=0, inputs=[], common=common, tasks=task_entries([task], common))
    assert campaign.state.describer == task.key
    if not driver_saw_it:
        leave(campaign)
    trained(campaign, task.key, accept=driver_saw_it, no_describer="ValueError: no such layer\nand more")
    if driver_saw_it:
        leave(campaign)
    found = told(read_status(Campaign(tmp_path)))
    assert found == loaded_status(tmp_path)
    (warning,) = found["warnings"]
    assert "model.00" in warning and warning.endswith("ValueError: no such layer")


def test_picks_and_quarantine_after_the_snapshot_are_folded_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = exploring(tmp_path)
    leave(campaign)
    keys = ask(campaign, 5, 200)
    for _ in range(3):
        fail_once(campaign, keys[0])
    campaign.decide("quarantine", key=keys[0], name="x", message="no", detail="", **{"class": "numeric"})
    ask(campaign, 2, 300, level="another level")
    end_well(campaign, keys[1], accept=False)
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path)
    assert found["labels"]["quarantined"] == 1 and found["quarantined"][0]["class"] == "numeric"
    assert found["decisions"] == campaign.state.next_number


def a_verdict(campaign: Campaign) -> None:
    errors = {"labels": 0, "force_rmse_eV_A": None, "force_components": 0}
    sets = dict.fromkeys(("new", "audit", "held_out_bootstrap", "held_out_explore"), errors)
    campaign.decide("verdict", iteration=0, converged=False, reason="no", errors=sets)


def an_exclusion(campaign: Campaign) -> None:
    campaign.decide("exclude", keys=campaign.state.labels("training")[:1], reason="", time="", undo=False)


def a_retry(campaign: Campaign) -> None:
    (key, *_) = campaign.state.waiting
    campaign.decide("quarantine", key=key, name="x", message="no", detail="", **{"class": "numeric"})
    campaign.decide("retry", keys=[key], time="2999")


def a_broken_result(campaign: Campaign) -> None:
    (key, *_) = campaign.state.waiting
    (end_well(campaign, key, accept=False) / "result" / "label.json").write_text("")


def many_decisions(campaign: Campaign) -> None:
    for number in range(snapshot._NEWER_AT_MOST + 2):
        ask(campaign, 1, 1000 + number)


def another_form(campaign: Campaign) -> None:
    file = campaign.store.iterations / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"form": 3}))


def torn(campaign: Campaign) -> None:
    file = campaign.store.iterations / "state.json"
    file.write_bytes(file.read_bytes()[:-100])


def deleted(campaign: Campaign) -> None:
    (campaign.store.iterations / "state.json").unlink()


def nonsense(campaign: Campaign) -> None:
    (campaign.store.iterations / "state.json").write_text('{"form": 4, "decisions": 1, "status": {}, "open": [[1]]}')


@pytest.mark.parametrize(
    "event",
    [a_verdict, an_exclusion, a_retry, a_broken_result, many_decisions, another_form, torn, deleted, nonsense],
)
def test_where_the_snapshot_cannot_tell_the_campaign_is_loaded(tmp_path: Path, event: Any) -> None:
    campaign = exploring(tmp_path)
    leave(campaign)
    event(campaign)
    assert told(read_status(Campaign(tmp_path))) == loaded_status(tmp_path)


def test_snapshot_of_a_campaign_that_was_taken_away_is_not_believed(tmp_path: Path) -> None:
    campaign = exploring(tmp_path)
    leave(campaign)
    for file in campaign.decisions_folder.iterdir():
        file.unlink()
    assert read_status(Campaign(tmp_path))["campaign"] is None


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_counts_are_those_of_a_full_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, sleeper: ProcessIdentity
) -> None:
    """Labels, chunks and failures in any order, before and after the driver's death."""
    rng = random.Random(seed)
    campaign = exploring(tmp_path)
    ask(campaign, 20, 400, level=rng.choice(["another level", campaign.level["name"]]))

    def something(key: str, *, driver: bool) -> None:
        chance = rng.random()
        if chance < 0.3:
            end_well(campaign, key, accept=driver, notes={"code": f"vasp {rng.randint(1, 2)}"})
        elif chance < 0.5:
            fail_once(campaign, key, rng.uniform(1, 100))
            if driver:
                campaign.failures(key)
        elif chance < 0.6:
            attempt = begin_attempt(task_folder(campaign, key))
            write_json(attempt.folder / "attempt.json", sleeper.to_json())
            if driver:
                campaign.state.begin(key)
        elif chance < 0.7 and driver:
            campaign.decide("quarantine", key=key, name="x", message="no", detail="", **{"class": "bug"})

    for key in list(campaign.state.waiting):
        something(key, driver=True)
    if rng.random() < 0.5:
        other = {"name": "third", "content": {"labeler": "third"}}
        chosen = [pick | {"key": f"{n:016x}", "level": "third"} for n, pick in enumerate(picks(campaign, 3))]
        campaign.decide("relabel", iteration=0, level=other, picks=chosen)
    leave(campaign)
    assert from_snapshot(tmp_path, monkeypatch) == loaded_status(tmp_path)
    for key in [*campaign.state.waiting, *campaign.state.running, *campaign.state.quarantined]:
        if not any(owner for owner in campaign.attempts_at(key) if (owner / "out").exists()):
            something(key, driver=False)
        found = from_snapshot(tmp_path, monkeypatch)
    assert found == loaded_status(tmp_path)
    labels = found["labels"]
    parts = ("done", "in_flight", "waiting", "quarantined", "pretraining", "superseded")
    assert sum(labels[part] for part in parts) == len(campaign.state.picks)
    assert labels["done"] == labels["training"] + labels["held_out"] + labels["excluded"]


@pytest.mark.parametrize("kind", ["exclude", "retry"])
def test_decision_of_a_person_leaves_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    campaign = exploring(tmp_path)
    (key, *_) = campaign.state.waiting
    campaign.decide("quarantine", key=key, name="x", message="no", detail="", **{"class": "numeric"})
    leave(campaign)
    if kind == "retry":
        requests.ask(Campaign(tmp_path), "retry", keys=[key], time="2999")
    else:
        requests.ask(Campaign(tmp_path), "exclude", keys=[key], reason="odd", time="", undo=False)
    assert from_snapshot(tmp_path, monkeypatch) == loaded_status(tmp_path)


def test_live_drivers_view_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = exploring(tmp_path)
    write_snapshot(campaign)
    found = from_snapshot(tmp_path, monkeypatch)
    assert found == told(build_status(campaign, "alive"))


def test_failed_notification_is_among_the_warnings(tmp_path: Path) -> None:
    campaign = exploring(tmp_path)
    leave(campaign)
    write_json(campaign.run_folder / notify._FAILED, {"event": "paused", "problem": "failed with code 2"})
    assert any("notify.command for paused failed with code 2" in w for w in read_status(campaign)["warnings"])


@pytest.mark.parametrize(("takes_s", "pause_s"), [(0.2, 10.0), (0.01, 5.0)])
def test_snapshots_take_two_percent_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_s: float, pause_s: float
) -> None:
    """And come every 5 s at most; the last one of a run comes in any case."""
    clock, written = [100.0], []

    def write(_: Campaign) -> None:
        written.append(clock[0])
        clock[0] += takes_s

    campaign = exploring(tmp_path)
    monkeypatch.setattr(snapshot, "write_snapshot", write)
    monkeypatch.setattr(snapshot, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    snapshots = Snapshots(campaign)
    snapshots.write()
    clock[0] += pause_s - 0.01
    snapshots.write()
    assert len(written) == 1
    clock[0] += 0.02
    snapshots.write()
    assert len(written) == 2
    snapshots.write(force=True)
    assert len(written) == 3


def test_snapshot_brings_the_index_along(tmp_path: Path) -> None:
    campaign = exploring(tmp_path)
    Snapshots(campaign).write()
    assert campaign.index.read().keys() == campaign.state.done


def test_driver_that_lost_the_campaign_writes_no_snapshot(tmp_path: Path) -> None:
    from alloop.errors import CampaignHeldError

    campaign = exploring(tmp_path)
    assert campaign.files.create(campaign.state.next_number, {"number": campaign.state.next_number, "kind": "start"})
    with pytest.raises(CampaignHeldError):
        Snapshots(campaign).write(force=True)
    assert not (tmp_path / "iterations" / "state.json").exists()


@pytest.mark.parametrize("heavy", ["numpy", "ase", "alloop.config", "alloop.labelers", "scipy"])
def test_status_imports_nothing_heavy(tmp_path: Path, heavy: str) -> None:
    campaign = exploring(tmp_path)
    leave(campaign)
    code = (
        "import sys\nfrom alloop import cli\n"
        f"sys.argv = ['alloop', 'status', '-C', {str(tmp_path)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        f"raise SystemExit(3 if {heavy!r} in sys.modules else 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(alloop.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "converged?" in done.stdout


def test_troubles_of_the_pools_are_told_while_a_driver_lives(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    write_json(campaign.run_folder / TROUBLES, ["pool vasp: the queue does not answer"])
    assert "pool vasp: the queue does not answer" in read_status(Campaign(tmp_path))["warnings"]
    campaign.release()
    assert not read_status(Campaign(tmp_path))["warnings"]
