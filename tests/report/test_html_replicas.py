"""Means over replicas and their errors, with models of the ensemble that drove them in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alloop.report.html.replicas import Replicas, model_of, replicas, told, told_error


def run(value: float | None, model: int = 0, rate: float = 10.0) -> dict[str, Any]:
    return {"glass": "g", "atoms": 60, "cooling_rate_K_ps": rate, "driven_by": model, "x": {"y": value}}


def test_replicas_of_one_model_have_a_standard_error_and_no_deviation_between_models() -> None:
    (own,) = replicas([run(1.0), run(2.0), run(3.0), run(None)], "x", "y").values()
    assert (own.mean, own.model_deviation) == (2.0, None)
    assert own.standard_error == pytest.approx(1 / np.sqrt(3))
    assert own.half95 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)
    assert told(own) == "2.0 ± 0.6"


def test_models_that_disagree_make_the_error_larger_than_their_replicas_alone() -> None:
    rows = [run(value, model) for value, model in ((1.0, 0), (3.0, 1), (1.0, 0), (3.0, 1))]
    (own,) = replicas(rows, "x", "y").values()
    assert own.model_deviation == pytest.approx(np.sqrt(2))
    assert own.standard_error == pytest.approx(1.0), "two models, not four independent runs"
    assert told(own, 100) == "200.0 ± 100.0 (141.4)"
    same = Replicas(np.array([1.0, 3.0, 3.0, 1.0]), np.array([0, 0, 1, 1]))
    assert same.model_deviation == 0 and same.standard_error == pytest.approx(np.sqrt(4 / 3) / 2)


def test_as_many_models_as_replicas_change_nothing() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert Replicas(values, np.arange(3)).standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(3))


def test_one_run_has_no_error() -> None:
    own = Replicas(np.array([1.0]), np.array([0]))
    assert (own.standard_error, own.half95, told(own), told(None)) == (None, None, "1.0", "-")


def test_the_sentence_says_what_the_error_holds() -> None:
    assert "both the scatter between runs and that between models" in told_error([run(1.0), run(2.0, 1)])
    assert "no scatter of models" in told_error([run(1.0), run(2.0)])
    assert told_error([run(1.0), run(2.0, 1, rate=2.0)]).startswith("There is one run of each")


def test_the_model_of_a_run_is_that_of_its_chunks_which_a_model_drives() -> None:
    classical: dict[str, Any] = {"spec": {"force_field": {}}}
    assert model_of([classical, {"spec": {"driven_by": 2}}]) == 2
    assert model_of([classical, {"spec": {}}]) == 0
