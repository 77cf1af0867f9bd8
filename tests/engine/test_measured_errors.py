"""Errors label by label: near collapse apart from all else, and a learning curve on the same held-out labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from campaign_kit import param

from alloop.decisions.convergence import error_criteria, improvement_criteria
from alloop.decisions.measured import by_reason, collapsing, learning_points
from alloop.frames import write_arrays
from alloop.report.outlook import error_lines
from alloop.stop_params import StopParam

PARAM = param()
BOOTSTRAP = [f"b{number}" for number in range(5)]


class Evaluated:
    """A campaign of which only trainings and evaluations are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: Any = SimpleNamespace(decisions={}, done=set(), picks={})
        self.state.decided = lambda kind, iteration: (kind, iteration) in self.state.decisions

    def result(self, key: str) -> Path:
        return self.folder / key

    def add(
        self,
        iteration: int,
        training: int,
        bootstrap: dict[str, float],
        explore: dict[str, float],
        new: dict[str, float] | None = None,
    ) -> None:
        """An ensemble and its force errors (eV/Å of each component); its two models differ.

        A label is asked for by what its name begins with, "bootstrap" or "candidate" without a dot.
        """
        sets = {"held_out_bootstrap": list(bootstrap), "held_out_explore": list(explore)}
        sets |= {"new": list(new or {}), "audit": []}
        task = {"key": f"e{iteration}", "spec": {"sets": sets}}
        self.state.decisions["evaluate", iteration] = {"tasks": [task]}
        self.state.decisions["train", iteration] = {"common": {"training": ["x"] * training}}
        self.state.done.add(f"e{iteration}")
        self.result(f"e{iteration}").mkdir()
        errors = bootstrap | explore | (new or {})
        for key in errors:
            reason = key.split(".")[0] if "." in key else "bootstrap" if key in bootstrap else "candidate"
            self.state.picks[key] = {"reason": reason}
        squared = 30.0 * np.square(list(errors.values()))
        table = {"label": np.array(list(errors)), "n_atoms": np.full(len(errors), 10)}
        table["force_se"] = np.stack([0.5 * squared, 1.5 * squared], axis=1)
        write_arrays(self.result(f"e{iteration}") / "errors.npz", table)


@pytest.fixture
def evaluated(tmp_path: Path) -> Any:
    return Evaluated(tmp_path)


def test_a_falling_error_falls_though_worse_frames_are_held_out_since(evaluated: Any) -> None:
    """On what was held out at its time each ensemble looks worse than the one before."""
    for number in range(4):
        error = 0.4 * 2.0**-number
        hotter = {f"x{later}": error * 4.0**later for later in range(number + 1)}
        evaluated.add(number, 50 * 2**number, dict.fromkeys(BOOTSTRAP, error), hotter)
    points = learning_points(evaluated, PARAM, 3)
    assert points == [[50.0 * 2**number, pytest.approx(0.4 * 2.0**-number)] for number in range(4)]
    asked = StopParam.model_validate({"least_improvement": 0.05})
    assert [one.state for one in improvement_criteria(points, asked)] == ["unmet"]


def test_with_too_few_in_common_the_bootstraps_decide(evaluated: Any) -> None:
    evaluated.add(0, 50, {"b0": 9.0}, {"x0": 9.0})
    for number in (1, 2):
        evaluated.add(number, 100 * number, dict.fromkeys(BOOTSTRAP, 0.2 / number), {f"x{number}": 9.0})
    assert learning_points(evaluated, PARAM, 2) == [[100.0, pytest.approx(0.2)], [200.0, pytest.approx(0.1)]]


def test_with_few_held_out_labels_nothing_is_said(evaluated: Any) -> None:
    assert learning_points(evaluated, PARAM, 0) == []
    for number in range(3):
        evaluated.add(number, 50, dict.fromkeys(BOOTSTRAP[:4], 0.2), {f"x{number}": 0.2})
    assert learning_points(evaluated, PARAM, 2) == []


def test_ensembles_of_another_level_of_theory_are_no_points(evaluated: Any) -> None:
    for number in range(3):
        evaluated.add(number, 50 + number, dict.fromkeys(BOOTSTRAP, 0.2), {})
    evaluated.state.decisions["promote", 1] = {}
    assert [labels for labels, _ in learning_points(evaluated, PARAM, 2)] == [52.0]


def test_what_is_near_collapse_is_no_part_of_the_learning_curve(evaluated: Any) -> None:
    for number in range(2):
        evaluated.add(number, 50, dict.fromkeys(BOOTSTRAP, 0.2), {"overlap.1": 9.0, "before_loss.1": 9.0})
    assert [error for _, error in learning_points(evaluated, PARAM, 1)] == [pytest.approx(0.2)] * 2


def test_only_short_distances_and_last_frames_are_near_collapse() -> None:
    far = {"kind": "pair_distance", "above_A": {"Si-O": 2.5}}
    close = {"kind": "pair_distance", "below_A": {"O-O": 1.9}}
    found = collapsing(param(select={"events": {"far": far, "close": close, "under_coordinated_B": {}}}))
    assert found == {"before_loss", "overlap", "close"}


def measured_with(evaluated: Any, new: dict[str, float]) -> dict[str, Any]:
    """The errors of an ensemble that is as good as wanted on both held-out sets."""
    evaluated.add(0, 50, dict.fromkeys(BOOTSTRAP, 0.1), {"x": 0.1, "before_loss.x": 40.0}, new)
    everywhere = {"labels": 5, "force_components": 150, "force_rmse_eV_A": 0.1}
    sets = dict.fromkeys(("new", "audit", "held_out_bootstrap", "held_out_explore"), everywhere)
    return {name: own | by_reason(evaluated, PARAM, 0).get(name, {}) for name, own in sets.items()}


def test_labels_near_collapse_are_measured_apart(evaluated: Any) -> None:
    new = {"overlap.1": 70.0, "before_loss.1": 10.0, "candidate.1": 0.1, "five_coordinated_Si.1": 0.3}
    errors = measured_with(evaluated, new)
    assert errors["new"]["judged"]["force_rmse_eV_A"] == pytest.approx(np.sqrt(0.05))
    assert errors["new"]["near_collapse"]["force_rmse_eV_A"] == pytest.approx(50.0)
    assert errors["new"]["by_reason"]["five_coordinated_Si"]["force_rmse_eV_A"] == pytest.approx(0.3)
    asked = StopParam.model_validate({"force_rmse_eV_A": 0.25})
    found = {one.name: one for one in error_criteria(errors, asked)}
    assert {one.state for one in found.values()} == {"met"}, "or it could never be met, and nobody would see why"
    sentence = found["force RMSE on new labels"].sentence
    assert "0.224 eV/A" in sentence and "2 labels by candidate, five_coordinated_Si" in sentence
    assert "near collapse 50 eV/A on 2 by before_loss, overlap, which is not judged" in sentence
    lines = error_lines({"errors": errors})
    assert len(lines) == 2 and "held-out exploration labels 0.1 eV/A" in lines[1] and "40 eV/A on 1" in lines[1]
    strict = StopParam.model_validate({"force_rmse_eV_A": 0.2})
    assert error_criteria(errors, strict)[0].state == "unmet"


def test_with_nothing_but_near_collapse_the_audit_decides(evaluated: Any) -> None:
    errors = measured_with(evaluated, {"overlap.1": 70.0})
    errors["audit"] = errors["audit"] | {"force_rmse_eV_A": 0.7}
    found = error_criteria(errors, StopParam.model_validate({"force_rmse_eV_A": 0.25}))
    assert [one.state for one in found] == ["unmet", "met", "met"]
    assert "audit labels" in found[0].sentence and "0.7 eV/A" in found[0].sentence
