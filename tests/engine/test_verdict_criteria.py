from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest

from alloop.cost import Costs
from alloop.decisions.convergence import (
    accuracy_criterion,
    audit_criteria,
    error_criteria,
    improvement_criteria,
    unmeasured,
)
from alloop.report.outlook import audit_lines, core_hours_per_iteration, learning_line
from alloop.selection.convergence import verdict
from alloop.stop_params import StopParam

SETS = ("new", "audit", "held_out_bootstrap", "held_out_explore")
NAMES = {
    "new": "on new labels",
    "held_out_bootstrap": "held-out bootstrap labels",
    "held_out_explore": "held-out exploration labels",
}
STOP = StopParam.model_validate({"accurate_fraction": 0.98, "force_rmse_eV_A": 0.2})


def errors(**rmse: float | None) -> dict[str, Any]:
    """Errors of an ensemble that meets all criteria, but for the sets named: another RMSE, or None for no labels."""
    found: dict[str, Any] = {name: {"labels": 5, "force_rmse_eV_A": 0.15} for name in SETS}
    for name, value in rmse.items():
        found[name] = {"labels": 0 if value is None else 5, "force_rmse_eV_A": value}
    return found


def classes(accurate: int = 98, candidate: int = 2, failed: int = 0) -> dict[str, int]:
    return {"accurate": accurate, "candidate": candidate, "failed": failed}


def problems(of_classes: dict[str, int], of_errors: dict[str, Any]) -> list[str]:
    before = copy.deepcopy(of_errors)
    found = [accuracy_criterion(of_classes, STOP, 0, {}), *error_criteria(of_errors, STOP)]
    assert of_errors == before
    return [criterion.sentence for criterion in found if criterion.state != "met"]


def test_all_criteria_met_also_exactly_on_the_line() -> None:
    assert problems(classes(), errors()) == []
    assert problems(classes(), errors(new=0.2, held_out_bootstrap=0.2, held_out_explore=0.2)) == []


@pytest.mark.parametrize("found", [classes(97, 3), classes(97, 0, 3), classes(97, 1, 2)])
def test_too_few_accurate_frames_alone(found: dict[str, int]) -> None:
    assert problems(found, errors()) == ["accurate fraction is 0.97, below the wanted 0.98"]


@pytest.mark.parametrize(("missed", "met"), [(0, True), (2, False), (5000, False)])
def test_records_that_lost_trajectories_never_made_count_against(missed: int, met: bool) -> None:
    """Hot runs that are lost at their first record must not vanish among the good ones."""
    first = accuracy_criterion(classes(), STOP, missed, {})
    assert (first.state == "met") is met
    assert met or f"{missed} records of lost trajectories" in first.sentence


def test_one_bad_glass_and_temperature_is_not_hidden_by_the_others() -> None:
    good, bad = classes(1000, 0), classes(46, 50, 4)
    strata = {f"LBS-20-60-20 {number}K": good for number in range(26)} | {"LBS-5-35-60 3000K": bad}
    pooled = classes(26046, 50, 4)
    found = accuracy_criterion(pooled, STOP, 0, strata)
    assert found.state == "unmet"
    assert "0.998, as wanted" in found.sentence, "of all records together it is enough"
    assert "worst of 27 glasses and temperatures: LBS-5-35-60 3000K, 0.46, below the wanted 0.784" in found.sentence
    for level, state in ((0.0, "met"), (0.46, "met"), (0.47, "unmet")):
        asked = STOP.model_copy(update={"accurate_fraction_worst": level})
        assert accuracy_criterion(pooled, asked, 0, strata).state == state
    few = strata | {"LBS-5-35-60 3000K": classes(10, 39)}
    assert accuracy_criterion(pooled, STOP, 0, few).state == "met", "49 records are too few to judge by"
    lost = few | {"LBS-5-35-60 3000K": classes(10, 0) | {"missed": 40}}
    assert accuracy_criterion(pooled, STOP, 0, lost).state == "unmet", "records that lost runs never made count"


@pytest.mark.parametrize("name", list(NAMES))
@pytest.mark.parametrize("rmse", [0.201, math.nan, math.inf])
def test_one_force_error_alone(name: str, rmse: float) -> None:
    (problem,) = problems(classes(), errors(**{name: rmse}))
    assert NAMES[name] in problem and ("not been measured" if math.isnan(rmse) else f"{rmse:.3g} eV/A") in problem


@pytest.mark.parametrize("name", ["held_out_bootstrap", "held_out_explore"])
def test_a_held_out_set_without_labels_is_not_met(name: str) -> None:
    (problem,) = problems(classes(), errors(**{name: None}))
    assert problem == f"force RMSE on {NAMES[name]} has not been measured"


def test_without_new_labels_the_audit_decides() -> None:
    assert problems(classes(), errors(new=None)) == []
    (problem,) = problems(classes(), errors(new=None, audit=0.3))
    assert "audit" in problem and "0.3 eV/A" in problem
    assert problems(classes(), errors(audit=0.3)) == [], "with new labels it does not"


def test_nothing_measured_is_not_converged() -> None:
    (problem,) = problems(classes(), errors(new=None, audit=None))
    assert "audit" in problem


def test_no_frame_seen_is_not_converged() -> None:
    assert problems(classes(0, 0, 0), errors()) == ["accurate fraction is 0, below the wanted 0.98"]


def test_every_problem_is_named() -> None:
    found = problems(classes(1, 0, 99), errors(new=1.0, held_out_bootstrap=math.nan, held_out_explore=None))
    assert len(found) == 4


def audit(rmse: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    pooled = {"rmse_eV_A": rmse, "low_eV_A": low, "high_eV_A": high, "glass": None, "band": None}
    return {"errors": [pooled | {"labels": 20, "trajectories": 9}], "groups": [], "unmeasured": []} | more


def group(glass: str, band: str, rmse: float, labels: int = 8, trajectories: int = 4) -> dict[str, Any]:
    interval = {"rmse_eV_A": rmse, "low_eV_A": 0.5 * rmse, "high_eV_A": 2 * rmse}
    return interval | {"glass": glass, "band": band, "labels": labels, "trajectories": trajectories, "since": 3}


ASKED = STOP.model_copy(update={"audit_force_rmse_eV_A": 0.3})


def test_audit_is_a_criterion_only_if_asked_for() -> None:
    assert audit_criteria(audit(9.0, 8.0, 10.0), STOP) == []
    states = {
        "met": audit(0.2, 0.1, 0.29),
        "unmet": audit(0.4, 0.2, 0.9),
        "unknown": audit(0.2, 0.1, 0.5),
    }
    for state, found in states.items():
        assert [one.state for one in audit_criteria(found, ASKED)] == [state]
    assert audit_criteria(audit(0.2, None, None), ASKED)[0].state == "unknown", "one trajectory tells nothing of others"
    assert audit_criteria(audit(0.2, 0.1, 0.2, errors=[]), ASKED)[0].state == "unknown"


def test_a_bad_glass_or_band_is_not_hidden_by_the_rest() -> None:
    cold = group("LBS-20-60-20", "below 600 K", 0.1)
    hot = group("LBS-40-40-20", "from 2250 K", 0.5, 5, 2)

    def states(*groups: dict[str, Any]) -> list[str]:
        return [one.state for one in audit_criteria(audit(0.2, 0.15, 0.25, groups=list(groups)), ASKED)]

    assert states(cold) == ["met", "met"]
    assert states(cold, hot) == ["met", "unmet"]
    sentence = audit_criteria(audit(0.2, 0.15, 0.25, groups=[cold, hot]), ASKED)[1].sentence
    assert "worst of 2 measured: LBS-40-40-20 at from 2250 K (audits since iteration 3), is 0.5 eV/A" in sentence
    assert states(cold, group("a", "b", math.inf)) == ["met", "unmet"]
    for few in ((4, 2), (6, 1)):
        assert states(cold, group("LBS-40-40-20", "from 2250 K", 0.5, *few)) == ["met", "met"]


def test_what_the_audit_does_not_measure_is_said_and_not_met() -> None:
    explored = [("a", band) for band in ("cold", "hot", "mild", "warm")]
    groups = [group("a", "cold", 0.1), group("a", "hot", 0.1, labels=4), group("a", "warm", 0.1, 7, 1)]
    lacking = unmeasured(groups, explored)
    assert lacking == ["a at hot (1 more)", "a at mild (5 more)", "a at warm (of another trajectory)"]
    found = audit_criteria(audit(0.2, 0.1, 0.3, groups=groups, unmeasured=lacking), ASKED)
    assert [one.state for one in found] == ["met", "met", "unknown"]
    assert not verdict(found).converged
    assert (
        verdict(found).reason == f"force RMSE of the audit is not known for want of random labels: {', '.join(lacking)}"
    )
    assert audit_criteria(audit(0.2, 0.1, 0.3, unmeasured=lacking), STOP) == []
    told = {"audit": {"errors": [], "by_class": {}, "unmeasured": lacking}}
    lines = audit_lines(told | {"calibration": {"coverage": [], "widened": ""}})
    assert lines == [f"not measured, for want of random labels: {', '.join(lacking)}"]


def test_of_many_that_are_not_measured_it_is_said_how_many_and_where_all_are() -> None:
    lacking = unmeasured([], [(glass, band) for glass in "abc" for band in ("cold", "hot")])
    found = audit(0.2, 0.1, 0.3, unmeasured=lacking)
    told = "6 glasses and temperature bands, such as a at cold (5 more); alloop stats shows all"
    assert audit_criteria(found, ASKED)[-1].sentence.endswith(f"for want of random labels: {told}")
    calibration = {"coverage": [], "widened": ""}
    lines = audit_lines({"audit": {"errors": [], "by_class": {}, "unmeasured": lacking}, "calibration": calibration})
    assert lines == [f"not measured, for want of random labels: {told}"]


def test_an_iteration_costs_what_was_spent_but_for_the_bootstrap() -> None:
    costs, hour = Costs(), {"seconds": 3600.0, "cores": 1}
    costs.add("bootstrap", None, None, hour)
    costs.add("label", None, {"reason": "bootstrap"}, hour)
    for kind in ("train", "explore", "explore"):
        costs.add(kind, None, None, hour)
    costs.add("label", None, {"reason": "candidate"}, hour)
    costs.add_failure("label", None, {"reason": "candidate"}, hour)
    decisions: dict[Any, Any] = {("verdict", number): {} for number in range(2)} | {("train", 1): {}}
    campaign: Any = SimpleNamespace(costs=costs, state=SimpleNamespace(decisions=decisions))
    assert core_hours_per_iteration(campaign) == pytest.approx(5 / 2)
    decisions.clear()
    assert core_hours_per_iteration(campaign) is None


def test_improvement_is_a_criterion_only_if_asked_for() -> None:
    falling = [[50.0, 0.8], [100.0, 0.4], [200.0, 0.2], [400.0, 0.1]]
    flat = [[50.0, 0.200], [100.0, 0.1999], [200.0, 0.2001], [400.0, 0.2]]
    asked = STOP.model_copy(update={"least_improvement": 0.05})
    assert improvement_criteria(falling, STOP) == []
    assert [one.state for one in improvement_criteria(falling, asked)] == ["unmet"]
    assert [one.state for one in improvement_criteria(flat, asked)] == ["met"]
    same = [*falling[:2], falling[1], falling[1]]
    assert "not known" in improvement_criteria([falling[3]] * 3, asked)[0].sentence, (
        "no label more, no improvement to judge"
    )
    assert improvement_criteria(same, asked)[0].state == "unknown", "two numbers of labels make no curve"
    for points in ([], falling[:1], falling[:2]):
        assert [one.state for one in improvement_criteria(points, asked)] == ["unknown"]


def test_what_the_last_labels_were_worth_is_told_whether_asked_for_or_not() -> None:
    points = [[50.0, 0.8], [100.0, 0.4], [200.0, 0.2], [400.0, 0.1]]
    told = learning_line({"learning": points})
    assert told is not None and told.startswith("the last 200 labels changed the force error by -50.0% (")
    assert "2 ensemble(s) are too few" in (learning_line({"learning": points[:2]}) or "")
    assert learning_line({"learning": points[:1]}) is learning_line({"learning": []}) is learning_line(None) is None
