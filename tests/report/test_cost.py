"""What a campaign has cost: records of attempts, sums event by event, and the same sums found again on disk."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import prepared_label
from hypothesis import given
from hypothesis import strategies as st
from report_kit import ask_labels, begun, end_well, fail_once, parsed
from rich.console import Console

import alloop
from alloop import store
from alloop.campaign import Campaign
from alloop.cost import SHARED, Costs, Spend, Waits, allotment, price_text
from alloop.policy import ORDER
from alloop.pool_params import pool_of
from alloop.process import this_process
from alloop.report.cost import cost_record, cost_text, eta_hours, print_costs, recorded_pool_of
from alloop.report.plan import build_plan, print_plan
from alloop.report.statistics import build_statistics, print_statistics
from alloop.report.status import build_status
from alloop.report.status_text import print_status
from alloop.store import begin_attempt, read_json, write_json

# ---------------------------------------------------------------------------------------- records of attempts


def attempt_of_a_label(root: Path, **environment: str) -> tuple[Path, dict[str, Any]]:
    """A real attempt in a process of its own; its folder and the record of its manifest."""
    _, folder = prepared_label(root, 0)
    path = {"PYTHONPATH": str(Path(alloop.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "alloop.attempt", str(folder)]
    subprocess.run(command, env=os.environ | path | environment, check=True, timeout=60)
    return folder, read_json(folder / "result" / store.MANIFEST)["record"]


def test_manifest_tells_where_and_with_what_a_task_ran(tmp_path: Path) -> None:
    place = {"ALLOOP_POOL": "vasp", "ALLOOP_JOB": "4711", "ALLOOP_CORES": "32", "ALLOOP_GPUS": "2"}
    _, record = attempt_of_a_label(tmp_path, **place)
    assert {key: record[key] for key in ("pool", "job", "threads", "cores", "gpus")} == {
        "pool": "vasp",
        "job": "4711",
        "threads": 1,
        "cores": 32,
        "gpus": 2,
    }
    assert record["host"] == this_process().host and record["seconds"] > 0
    assert record["waited_s"] is None, "nobody said when the task was asked for"


def test_without_a_pool_cores_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALLOOP_POOL", "ALLOOP_JOB", "ALLOOP_SLOT", "ALLOOP_CORES", "ALLOOP_GPUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert allotment() == {"pool": None, "job": None, "slot": None, "threads": 3, "cores": 3, "gpus": 0}
    monkeypatch.setenv("ALLOOP_CORES", "many")
    assert allotment()["cores"] == 3


def waited(folder: Path) -> float | None:
    (attempt,) = store.attempts(folder)
    return read_json(attempt / "attempt.json")["waited_s"]


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(("asked_ago", "input_ago", "least"), [(50, None, 50), (50, 20, 20), (20, 50, 20)])
def test_wait_is_from_the_decision_or_from_the_last_input(
    tmp_path: Path, asked_ago: float, input_ago: float | None, least: float
) -> None:
    _, folder = prepared_label(tmp_path, 0)
    record = read_json(folder / "task.json") | {"asked": ago(asked_ago)}
    if input_ago is not None:
        result = tmp_path / "iterations" / "bootstrap" / "seed" / "t" / "result"
        result.mkdir(parents=True)
        os.utime(result, (time.time() - input_ago,) * 2)
        record["inputs"] = {"source": "bootstrap/seed/t"}
    write_json(folder / "task.json", record)
    from alloop.attempt import run_tasks

    assert run_tasks([folder], None) == 0
    assert least <= waited(folder) < least + 10
    assert read_json(folder / "result" / store.MANIFEST)["record"]["waited_s"] == waited(folder)


def test_a_further_attempt_has_not_waited(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    write_json(folder / "task.json", read_json(folder / "task.json") | {"asked": ago(50)})
    store.fail(begin_attempt(folder, 1.5).folder, "numeric", "no")
    from alloop.attempt import run_tasks

    run_tasks([folder], None)
    assert read_json(folder / "result" / store.MANIFEST)["record"]["waited_s"] is None
    assert store.failures(folder)[0]["waited_s"] == 1.5


def test_driver_says_when_a_task_was_asked_for(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    ask_labels(campaign, 1)
    asked = read_json(tmp_path / "iterations" / "decisions" / "00000003.json")["time"]
    (key,) = campaign.state.waiting
    assert campaign._asked[key] == asked
    (boot, *_) = campaign.state.tasks
    first = read_json(tmp_path / "iterations" / "decisions" / "00000002.json")["time"]
    assert read_json(campaign.prepare(boot) / "task.json")["asked"] in (None, first)


def test_failure_record_holds_what_the_attempt_took(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    (key,) = ask_labels(campaign, 1)
    fail_once(campaign, key, 100.0, pool="vasp", job="7")
    (failure,) = store.failures(campaign.folder(key))
    assert 100 <= failure["seconds"] < 105
    assert (failure["cores"], failure["gpus"], failure["pool"], failure["job"]) == (4, 1, "vasp", "7")


def test_interrupted_attempt_lasted_until_its_last_sign_of_life(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    attempt = begin_attempt(folder)
    owner = this_process().to_json() | {"start_ticks": 1, "started": ago(1000), "cores": 2, "threads": 2, "gpus": 0}
    write_json(attempt.folder / "attempt.json", owner)
    (attempt.folder / "work").mkdir()
    (attempt.folder / "work" / "OUTCAR").write_text("")
    for place in (attempt.folder / "work" / "OUTCAR", *attempt.folder.iterdir(), attempt.folder):
        os.utime(place, (time.time() - 400,) * 2)
    store.record_death(folder, None, unwatched=True)
    (failure,) = store.failures(folder)
    assert failure["class"] == "interrupted" and 599 <= failure["seconds"] <= 602


def test_failure_of_an_attempt_whose_beginning_is_unknown_costs_nothing(tmp_path: Path) -> None:
    _, folder = prepared_label(tmp_path, 0)
    attempt = begin_attempt(folder)
    write_json(attempt.folder / "attempt.json", this_process().to_json())
    store.fail(attempt.folder, "crash", "no")
    (failure,) = store.failures(folder)
    assert failure["seconds"] is None
    spend = Spend()
    spend.add_failure(failure)
    assert (spend.failures, spend.lost_core_seconds) == (1, 0.0)


# ---------------------------------------------------------------------------------------- sums


@given(st.lists(st.floats(0.2, 1e7), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantile_of_waits_is_right_to_12_percent(values: list[float], share: float) -> None:
    waits = Waits()
    for value in values:
        waits.add(value)
    exact = sorted(values)[max(0, -(-len(values) * share // 1).__int__() - 1)]
    assert exact * 0.999 <= waits.quantile_s(share) <= exact * 1.13
    again = Waits(*json.loads(json.dumps(waits.to_json())))
    assert again.quantile_s(share) == waits.quantile_s(share) and again.mean_s == waits.mean_s


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 64)), max_size=50), st.randoms())
def test_sums_do_not_depend_on_the_order(entries: list[tuple[int, int]], shuffler: random.Random) -> None:
    """Else two counts of one campaign could be rounded to different figures."""
    records = [{"seconds": ms / 1000, "cores": cores, "waited_s": ms / 1000} for ms, cores in entries]
    first, second = Spend(), Spend()
    for record in records:
        first.add(record)
        first.add_failure(record)
    shuffler.shuffle(records)
    for record in records:
        second.add_failure(record)
        second.add(record)
    assert first.to_json() | {"waits": 0} == second.to_json() | {"waits": 0}
    assert first.waits.total_s == second.waits.total_s and first.waits.counts == second.waits.counts


def test_no_wait_and_no_time_at_all() -> None:
    waits = Waits()
    assert waits.mean_s is None and waits.quantile_s(0.9) is None
    waits.add(0.0)
    assert (waits.mean_s, waits.quantile_s(0.9)) == (0.0, 0.0)


def test_costs_of_a_small_campaign(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    keys = ask_labels(campaign, 4)
    end_well(campaign, keys[0])
    fail_once(campaign, keys[1], 50.0)
    fail_once(campaign, keys[1], 50.0)
    end_well(campaign, keys[1], waited_s=None)
    fail_once(campaign, keys[2], 100.0)
    campaign.failures(keys[2])
    cost = build_status(campaign, "alive")["cost"]
    label = cost["by_kind"]["label"]
    assert (label["tasks"], label["seconds"], label["failures"]) == (2, 20.0, 3)
    spent_core_s, lost_core_s = 2 * 10 * 4, 200 * 4
    assert label["core_hours"] == pytest.approx((spent_core_s + lost_core_s) / 3600, rel=0.02)
    assert label["failed_core_hours"] == pytest.approx(lost_core_s / 3600, rel=0.02)
    assert label["gpu_hours"] == pytest.approx(220 / 3600, rel=0.02)
    assert (label["waited_mean_s"], label["waited_p90_s"]) == (2.75, pytest.approx(3.0, rel=0.12))
    assert cost["core_hours"] == pytest.approx((spent_core_s + lost_core_s + 14) / 3600, rel=0.02)
    assert cost["failed_share"] == pytest.approx(lost_core_s / (spent_core_s + lost_core_s + 14), rel=0.02)
    assert cost["core_hours_per_label"] == pytest.approx((spent_core_s + lost_core_s) / 2 / 3600, rel=0.02)
    assert {glass: row["tasks"] for glass, row in cost["by_glass"].items()} == {SHARED: 2, "LBS-20-60-20": 2}
    assert {reason: row["failures"] for reason, row in cost["by_reason"].items()} == {"candidate": 1, "overlap": 2}
    assert f"{cost['core_hours_per_label']:.3g} core-hours per label" in cost_text(cost)
    assert "in failed attempts" in cost_text(cost)


@pytest.mark.parametrize(
    ("core_hours", "told"),
    [
        (2.5e-05, "0.09 core-seconds"),
        (59 / 3600, "59 core-seconds"),
        (1 / 60, "0.0167 core-hours"),
        (32, "32 core-hours"),
    ],
)
def test_a_label_that_takes_less_than_a_minute_is_priced_in_seconds(core_hours: float, told: str) -> None:
    assert price_text(core_hours) == told


def test_imported_labels_are_not_paid(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    for key in ask_labels(campaign, 2, given=True) + ask_labels(campaign, 1, 2, "select"):
        end_well(campaign, key)
    assert campaign.costs.paid_labels == 1 and campaign.costs.by_kind["label"].tasks == 3
    spend = campaign.costs.of("label", campaign.state.level)
    assert (spend.tasks, spend.mean_seconds) == (1, spend.seconds), "of the one that was paid"
    assert len(campaign.state.durations["label"]._seconds) == 1
    (row,) = [row for row in build_plan(campaign, parsed(), 2)["tasks"] if row["kind"] == "label"]
    assert row["core_hours"] == pytest.approx(row["at_most"] * spend.all_core_seconds / 3600, abs=1e-3)


def test_the_price_of_a_label_is_that_of_the_level_labelled_now(tmp_path: Path) -> None:
    """A foundation's labels take a second; they tell nothing of what those of the campaign's own code take."""
    costs, level = Costs(), "vasp"
    record = {"seconds": 1.0, "cores": 1}
    for _ in range(99):
        costs.add("label", "glass", {"level": "foundation", "reason": "candidate"}, record)
    assert cost_record(costs, "foundation")["core_hours_per_label"] == pytest.approx(1 / 3600, abs=1e-6)
    assert cost_record(costs, level)["core_hours_per_label"] is None, "none has been measured"
    assert eta_hours(costs, {"pools": {}}, {"label": 4}, level) is None
    own = {"level": level, "reason": "candidate"}
    costs.add("label", "glass", own, {"seconds": 3600.0, "cores": 16})
    costs.add_failure("label", "glass", own, {"seconds": 1800.0, "cores": 16})
    assert cost_record(costs, level)["core_hours_per_label"] == pytest.approx(24.0)
    assert eta_hours(costs, {"pools": {}}, {"label": 4}, level) == 2.0, "on two slots"
    assert costs.paid_labels == 100, "the budget counts all"


@pytest.mark.parametrize("seed", range(3))
def test_sums_event_by_event_are_the_sums_found_on_disk(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    campaign = begun(tmp_path)
    for key in ask_labels(campaign, 30):
        for _ in range(rng.choice([0, 0, 1, 2])):
            fail_once(campaign, key, rng.uniform(1, 1000), rng.choice(["numeric", "killed"]))
            if rng.random() < 0.7:
                campaign.failures(key)
        if rng.random() < 0.6:
            end_well(campaign, key, seconds=rng.uniform(1, 100), cores=rng.choice([1, 16]), waited_s=rng.uniform(0, 9))
        else:
            campaign.failures(key)
    found = Campaign(tmp_path)
    found.load()
    level = campaign.state.level
    record = cost_record(campaign.costs, level)
    assert cost_record(found.costs, level) == record
    assert cost_record(Costs.from_json(json.loads(json.dumps(found.costs.to_json()))), level) == record
    found.load()
    assert cost_record(found.costs, level) == record, "loading twice counts once"


def test_results_of_earlier_versions_are_counted_by_their_threads(tmp_path: Path) -> None:
    spend = Spend()
    spend.add({"seconds": 10.0, "threads": 2})
    assert (spend.core_seconds, spend.gpu_seconds, spend.waits.mean_s) == (20.0, 0.0, None)


# ---------------------------------------------------------------------------------------- reports


def text_of(show: Any, record: Any) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    show(record, console)
    return console.export_text()


def test_status_stats_and_plan_tell_the_cost(tmp_path: Path) -> None:
    campaign = begun(tmp_path, budget={"core_hours": 0.1}, quench=None)
    keys = ask_labels(campaign, 3)
    end_well(campaign, keys[0])
    fail_once(campaign, keys[1], 50.0)
    campaign.failures(keys[1])
    status = build_status(campaign, "alive")
    assert "core-hours, 0.02 GPU-hours" in text_of(print_status, status)
    assert " learning " not in text_of(print_status, status)
    assert " learning   the last 9 labels" in text_of(print_status, status | {"learning": "the last 9 labels"})
    told = text_of(print_statistics, build_statistics(campaign))
    assert (
        "cost by glass" in told
        and "cost by reason of the label" in told
        and "LBS-20-60-20" in told
        and "(shared)" in told
        and "overlap" in told
    )
    assert "remaining: unknown until measured" not in told, "only labels wait, and one is measured"
    assert build_statistics(campaign)["eta_hours"] == build_status(campaign, "alive")["eta_hours"] > 0
    plan = build_plan(campaign, parsed(), 2)
    assert plan["core_hours_per_label"] == build_status(campaign, "alive")["cost"]["core_hours_per_label"] > 0
    assert f"a label costs: {plan['core_hours_per_label']:.3g} core-hours" in text_of(print_plan, plan)
    row = {row["kind"]: row for row in plan["tasks"]}["label"]
    per_label_core_s = 10 * 4 + 50 * 4
    assert row["core_hours"] == pytest.approx(row["at_most"] * per_label_core_s / 3600, rel=0.02)
    assert row["gpu_hours"] == pytest.approx(row["at_most"] * 60 / 3600, rel=0.02)
    assert plan["core_hours"] is None and plan["gpu_hours"] is None and plan["hours_on_slots"] is None
    assert "unknown until measured" in text_of(print_plan, plan)


def test_plan_of_a_campaign_all_of_whose_kinds_are_measured(tmp_path: Path) -> None:
    campaign = begun(tmp_path, budget={"labels": 10})
    for kind in ("label", "train", "explore", "evaluate", "quench"):
        campaign.costs.by_kind[kind] = Spend(tasks=1, seconds=3600.0, core_seconds=7200.0, gpu_seconds=3600.0)
    pools = {"local": {"slots": 2}, "many": {"tasks": ["label"], "slots": 1000}}
    campaign.costs.by_level[str(campaign.state.level)] = campaign.costs.by_kind["label"]
    campaign.costs.paid_labels = 1
    plan = build_plan(campaign, parsed(pools=pools, budget={"labels": 10}), 2)
    tasks = {row["kind"]: row["at_most"] for row in plan["tasks"]}
    assert plan["core_hours"] == pytest.approx(2 * sum(tasks.values()))
    assert plan["gpu_hours"] == sum(tasks.values())
    assert plan["hours_on_slots"] == pytest.approx((sum(tasks.values()) - tasks["label"]) / 2)
    assert plan["budget"]["labels"] == {"limit": 10, "used": 1, "share": 0.1}
    assert "GPU-hours" in text_of(print_plan, plan) and "budget.labels: 1 of 10" in text_of(print_plan, plan)


def test_time_still_needed_is_that_of_the_slowest_pool(tmp_path: Path) -> None:
    pools = {
        "local": {"slots": 2},
        "vasp": {"type": "slurm", "tasks": ["label"], "jobs": 4, "slots_per_job": 2, "walltime_minutes": 60},
    }
    campaign = begun(tmp_path, pools=pools)
    campaign.costs.by_level["None"] = Spend(tasks=2, seconds=7200.0)
    campaign.costs.by_kind["train"] = Spend(tasks=1, seconds=1800.0)
    costs, configuration = campaign.costs, campaign.state.starts[-1]["config"]
    assert eta_hours(costs, configuration, {"label": 16}, None) == 2.0
    assert eta_hours(costs, configuration, {"label": 16, "train": 12}, None) == 3.0
    assert eta_hours(costs, configuration, {"label": 1, "quench": 1}, None) is None
    assert eta_hours(costs, configuration, {}, None) == 0.0
    assert eta_hours(costs, None, {"label": 1}, None) is None


def test_relaxing_loads_the_pool_of_labels(tmp_path: Path) -> None:
    pools = {
        "local": {"slots": 2},
        "vasp": {"type": "slurm", "tasks": ["label"], "jobs": 4, "walltime_minutes": 60},
        "few": {"slots": 1, "tasks": ["explore", "quench"]},
    }
    own = parsed(pools=pools)
    recorded = own.model_dump(mode="json")["pools"]
    assert {kind: recorded_pool_of(recorded, kind) for kind in ORDER} == {
        kind: pool_of(own.pools, kind) for kind in ORDER
    }
    costs = Costs()
    costs.by_kind["relax"] = Spend(tasks=1, seconds=3600.0)
    assert eta_hours(costs, {"pools": recorded}, {"relax": 8}, None) == 2.0


@pytest.mark.parametrize(("guard_records", "iterations", "labels"), [(3, 2, 30), (0, 2, 0), (3, 0, 0)])
def test_plan_tells_what_the_guard_of_production_may_ask_for(
    tmp_path: Path, guard_records: int, iterations: int, labels: int
) -> None:
    campaign = begun(tmp_path / "guarded")
    wanted = parsed(select={"max_labels": 30}, quench={"guard_records": guard_records})
    plan = build_plan(campaign, wanted, iterations)
    assert plan["guard_labels_at_most"] == labels
    assert ("up to 30 labels more" in text_of(print_plan, plan)) == bool(labels)


def test_before_anything_is_measured_stats_and_plan_say_so(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    ask_labels(campaign, 3)
    found, plan = build_statistics(campaign), build_plan(campaign, parsed(), 2)
    assert found["eta_hours"] is None and plan["core_hours_per_label"] is None
    assert "remaining: unknown until measured" in text_of(print_statistics, found)
    assert "a label costs: unknown until measured" in text_of(print_plan, plan)


def test_tables_of_nothing() -> None:
    record = cost_record(Costs(), None)
    assert record["core_hours"] == 0 and record["core_hours_per_label"] is None and record["failed_share"] == 0
    assert "0.00 core-hours" in text_of(print_costs, record)


def test_plan_tells_how_many_relaxations_are_one_energy_each(tmp_path: Path) -> None:
    campaign = begun(tmp_path / "relaxed")
    sizes = {"n_atoms": [84, 300], "replicas": 2}
    plan = build_plan(campaign, parsed(quench=sizes | {"relax": {}}), 1)
    counts = {row["kind"]: row["at_most"] for row in plan["tasks"]}
    assert plan["single_points_at_most"] * 2 == counts["relax"] > 0
    assert f"{plan['single_points_at_most']} of the relaxations are one energy each" in text_of(print_plan, plan)
    assert build_plan(campaign, parsed(quench=sizes), 1)["single_points_at_most"] == 0
