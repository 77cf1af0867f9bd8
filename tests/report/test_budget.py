"""The budget: when it is used up, and what status says of it before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_kit import ask_labels, begun, end_well, parsed
from rich.console import Console

from alloop.cost import Costs
from alloop.errors import InputError
from alloop.report.cost import budget_record, budget_warnings, labels_left, shares_used, used_up
from alloop.report.status import build_status
from alloop.report.status_text import print_status
from alloop.state import State


def spent(core_hours: float = 0.0, gpu_hours: float = 0.0, labels: int = 0) -> Costs:
    costs = Costs()
    costs.add("train", None, None, {"seconds": 3600.0 * core_hours, "threads": 1})
    costs.add("train", None, None, {"seconds": 3600.0, "threads": 0, "gpus": gpu_hours})
    costs.by_kind["train"].core_seconds -= 3600.0
    costs.paid_labels = labels
    return costs


@pytest.mark.parametrize(
    ("budget", "costs", "reason"),
    [
        ({}, spent(1e9, 1e9, 10**9), None),
        ({"core_hours": 2}, spent(1.999), None),
        ({"core_hours": 2}, spent(2.0), "2 core-hours"),
        ({"core_hours": 2, "labels": 5}, spent(1.0, labels=5), "5 labels"),
        ({"gpu_hours": 1}, spent(99.0, 0.5), None),
        ({"gpu_hours": 1}, spent(0.0, 1.0), "1 GPU-hours"),
        ({"labels": 5}, spent(0.0, 0.0, 4), None),
    ],
)
def test_used_up(budget: dict[str, Any], costs: Costs, reason: str | None) -> None:
    found = used_up(costs, State(), parsed(budget=budget).budget)
    assert found is None if reason is None else f"the budget of {reason} is used up" in str(found)


def test_labels_under_way_count_as_made(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    keys = ask_labels(campaign, 3)
    end_well(campaign, keys[0])
    budget = parsed(budget={"labels": 3}).budget
    assert used_up(campaign.costs, campaign.state, budget) is None
    campaign.state.begin(keys[1])
    assert used_up(campaign.costs, campaign.state, budget) is None
    campaign.state.begin(keys[2])
    assert "raise budget.labels" in str(used_up(campaign.costs, campaign.state, budget))


def test_imported_labels_cost_nothing_of_the_budget(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    imported, paid = ask_labels(campaign, 5, given=True), ask_labels(campaign, 3, first=5)
    budget = parsed(budget={"labels": 3}).budget
    for key in imported:
        campaign.state.begin(key)
    assert used_up(campaign.costs, campaign.state, budget) is None
    assert labels_left(campaign.costs, campaign.state, budget) == 3
    campaign.state.begin(paid[0])
    end_well(campaign, paid[1])
    assert labels_left(campaign.costs, campaign.state, budget) == 1
    for free in (parsed().budget, parsed(budget={"labels": 3, "when_used_up": "warn"}).budget):
        assert labels_left(campaign.costs, campaign.state, free) == float("inf")


@pytest.mark.parametrize(("core_hours", "warned"), [(7.9, False), (8.0, True), (12.0, True)])
def test_status_warns_from_80_percent(tmp_path: Path, core_hours: float, warned: bool) -> None:
    campaign = begun(tmp_path, budget={"core_hours": 10.0, "labels": 100, "when_used_up": "warn"})
    campaign.costs = spent(core_hours, labels=3)
    status = build_status(campaign, "alive")
    assert status["budget"]["core_hours"] == {"limit": 10.0, "used": core_hours, "share": core_hours / 10}
    assert status["budget"]["labels"]["share"] == 0.03 and status["budget"]["when_used_up"] == "warn"
    assert any("of the budget used" in line for line in status["warnings"]) == warned
    console = Console(width=120, record=True)
    print_status(status, console)
    text = console.export_text()
    assert f"{100 * core_hours / 10:.0f} % of 10 core-hours, 3 % of 100 labels" in text


def test_no_budget_no_record(tmp_path: Path) -> None:
    campaign = begun(tmp_path)
    assert budget_record(campaign.state.starts[-1]["config"], campaign.costs) is None and budget_warnings(None) == []
    assert build_status(campaign, "alive")["budget"] is None
    assert budget_record(None, Costs()) is None
    assert shares_used(campaign.costs, parsed().budget) == {}


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"core_hours": 0}, "budget.core_hours"),
        ({"labels": 1.5}, "budget.labels"),
        ({"core_hour": 5}, "core_hours"),
        ({"when_used_up": "panic"}, "budget.when_used_up"),
    ],
)
def test_budgets_that_make_no_sense(section: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parsed(budget=section)
