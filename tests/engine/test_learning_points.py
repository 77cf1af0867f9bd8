"""The learning curve's points: all ensembles on the same held-out labels, whatever was held out since."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.decisions.convergence import improvement_criteria
from alloop.decisions.measured import learning_points
from alloop.frames import write_arrays
from alloop.stop_params import StopParam

BOOTSTRAP = [f"b{number}" for number in range(5)]


class Evaluated:
    """A campaign of which only trainings and evaluations are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: Any = SimpleNamespace(decisions={}, done=set(), picks={})
        self.state.decided = lambda kind, iteration: (kind, iteration) in self.state.decisions

    def result(self, key: str) -> Path:
        return self.folder / key

    def add(self, iteration: int, training: int, bootstrap: dict[str, float], explore: dict[str, float]) -> None:
        """An ensemble and its force errors (eV/Å of each component) on held-out labels; its two models differ."""
        sets = {"held_out_bootstrap": list(bootstrap), "held_out_explore": list(explore), "new": [], "audit": []}
        task = {"key": f"e{iteration}", "spec": {"sets": sets}}
        self.state.decisions["evaluate", iteration] = {"tasks": [task]}
        self.state.decisions["train", iteration] = {"common": {"training": ["x"] * training}}
        self.state.done.add(f"e{iteration}")
        self.result(f"e{iteration}").mkdir()
        errors = bootstrap | explore
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
    points = learning_points(evaluated, 3)
    assert points == [[50.0 * 2**number, pytest.approx(0.4 * 2.0**-number)] for number in range(4)]
    asked = StopParam.model_validate({"least_improvement": 0.05})
    assert [one.state for one in improvement_criteria(points, asked)] == ["unmet"]


def test_with_too_few_in_common_the_bootstraps_decide(evaluated: Any) -> None:
    evaluated.add(0, 50, {"b0": 9.0}, {"x0": 9.0})
    for number in (1, 2):
        evaluated.add(number, 100 * number, dict.fromkeys(BOOTSTRAP, 0.2 / number), {f"x{number}": 9.0})
    assert learning_points(evaluated, 2) == [[100.0, pytest.approx(0.2)], [200.0, pytest.approx(0.1)]]


def test_with_few_held_out_labels_nothing_is_said(evaluated: Any) -> None:
    assert learning_points(evaluated, 0) == []
    for number in range(3):
        evaluated.add(number, 50, dict.fromkeys(BOOTSTRAP[:4], 0.2), {f"x{number}": 0.2})
    assert learning_points(evaluated, 2) == []


def test_ensembles_of_another_level_of_theory_are_no_points(evaluated: Any) -> None:
    for number in range(3):
        evaluated.add(number, 50 + number, dict.fromkeys(BOOTSTRAP, 0.2), {})
    evaluated.state.decisions["promote", 1] = {}
    assert [labels for labels, _ in learning_points(evaluated, 2)] == [52.0]
