"""The simulator: campaigns in virtual time come to their end in both orders, whatever the machine is like."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simulate
from campaign_kit import LIMIT, asked_labels, bootstrap_content, param
from simulated_campaign import ALL_MADE, HOUR, Duration, SimPool, Simulation, World
from simulated_record import replayed

from alloop.campaign import Campaign
from alloop.store import begin_attempt, fail, publish, write_json

BATCH = {"type": "slurm", "tasks": ["label"], "jobs": 3, "slots_per_job": 2, "walltime_minutes": 240}


def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run the program; return the one run of each order."""
    file = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--seeds", "1", "--json", str(file), *options])
    simulate.main()
    runs = json.loads(file.read_text())["runs"]
    assert runs.keys() == {"barrier", "streaming"}
    return {order: records[0] for order, records in runs.items()}


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--walltime-h 4",
        "--walltime-h 12 --queue-wait-h 1 --tail pareto",
        "--walltime-h 3 --queue-wait-h 2 --fails 0.3",
    ],
)
def test_both_orders_make_all_labels_on_any_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str
) -> None:
    runs = simulated(monkeypatch, tmp_path, "--labels", "60", *options.split())
    for record in runs.values():
        assert record["ended"] == ALL_MADE and record["labels"] == 80
        assert all(share <= 1 for share in record["utilisation"].values())
    assert runs["streaming"]["makespan_h"] < runs["barrier"]["makespan_h"]


def test_waits_in_the_queue_and_walltimes_take_time() -> None:
    def makespan_h(**more: Any) -> float:
        pools = {name: SimPool(pool.slots, **more) for name, pool in World().pools.items()}
        simulation = Simulation(World(labels=60, labels_per_iteration=20, pools=pools), barrier=True, seed=1)
        simulation.run()
        return simulation.result()["makespan_h"]

    free, waited = makespan_h(), makespan_h(queue_wait=Duration(5 * HOUR))
    assert waited > free + 2
    assert makespan_h(queue_wait=Duration(5 * HOUR), walltime_s=4 * HOUR) > waited + 10


def test_work_that_no_job_is_long_enough_for_ends_the_campaign() -> None:
    pools = World().pools | {"gpu": SimPool(4, walltime_s=HOUR)}
    simulation = Simulation(replace(World(), pools=pools), barrier=False, seed=1)
    simulation.run()
    assert "raise walltime_minutes" in simulation.result()["ended"]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A campaign with labels in a batch pool: 4 of 8 attempts at them were lost by nodes, its jobs waited an hour."""
    campaign = Campaign(tmp_path)
    campaign.take(param(pools={"vasp": BATCH}), take_over=False, limit=LIMIT | {"slots": 8, "barrier": False})
    campaign.decide("bootstrap", iteration=-1, **bootstrap_content())
    campaign.decide("seed_labels", iteration=-1, **asked_labels(campaign, 4))
    for key, task in campaign.state.tasks.items():
        for lost in range(2 if task.kind == "label" else 1):
            attempt = begin_attempt(campaign.folder(key))
            if lost:
                fail(attempt.folder, "infra", "its node was lost")
                fail(begin_attempt(campaign.folder(key)).folder, "walltime", "its job reached its walltime")
            else:
                assert publish(attempt, key, {"seconds": 600.0, "threads": 1, "failed_attempts": 2})
    (campaign.run_folder / "jobs").mkdir()
    for number in range(3):
        job = {"pool": "vasp", "created": 1000.0, "ends": 1000.0 + 3600 + 60 * 240 if number else None}
        write_json(campaign.run_folder / "jobs" / f"{number}.json", job)
    campaign.release()
    return tmp_path


def test_replay_keeps_the_pools_the_failures_and_the_waits_on_record(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world, real = replayed(recorded)
    assert world.pools["local"] == SimPool(2)
    assert world.pools["vasp"] == SimPool(6, 2, Duration(0, record=(3600.0, 3600.0)), 4 * HOUR)
    assert (world.runs_on["label"], world.runs_on["train"]) == ("vasp", "local")
    assert world.fails == {"label": {"infra": 0.5}}, "a walltime that ends an attempt comes with the pool's jobs"
    assert world.durations["label"].record == (600.0,) * 4
    assert (real["queue_waits"], real["failures"]) == ({"vasp": 2}, {"label": {"infra": 4}})
    runs = simulated(monkeypatch, tmp_path, "--replay", str(recorded))
    assert all(record["ended"] == ALL_MADE for record in runs.values())
    assert all(record["wasted_h"]["vasp"] > 0 and not record["wasted_h"]["local"] for record in runs.values())
