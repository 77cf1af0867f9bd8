"""Means over replicas and their errors, with models of the ensemble that drove them in turn."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from alloop.report.html.replicas import (
    Replicas,
    counted,
    melt_of,
    model_of,
    replicas,
    together,
    told,
    told_error,
)

COUNT = count()


def run(value: float | None, model: int = 0, rate: float = 10.0, name: str = "") -> dict[str, Any]:
    own = {"glass": "g", "atoms": 60, "cooling_rate_K_ps": rate, "driven_by": model, "x": {"y": value}}
    return own | {"run": name or f"g.n60.r{next(COUNT)}"}


def branches(replica: int, *values: float, model: int = 0) -> list[dict[str, Any]]:
    """Runs that were cooled alike and differ in how long they stayed at 1000 K."""
    names = [f"g.n60.2Kps.{200 * k}ps.r{replica}" for k in range(1, 1 + len(values))]
    return [run(value, model, 2.0, name) for value, name in zip(values, names, strict=True)]


def alone(values: Any, models: Any) -> Replicas:
    return together((value, str(k), model) for k, (value, model) in enumerate(zip(values, models, strict=True)))


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
    same = alone([1.0, 3.0, 3.0, 1.0], [0, 0, 1, 1])
    assert same.model_deviation == 0 and same.standard_error == pytest.approx(np.sqrt(4 / 3) / 2)


def test_as_many_models_as_replicas_change_nothing() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert alone(values, range(3)).standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(3))


def test_one_run_has_no_error() -> None:
    own = alone([1.0], [0])
    assert (own.standard_error, own.half95, told(own), told(None)) == (None, None, "1.0", "-")


def test_branches_of_one_melt_have_their_deviation_and_no_error_of_the_mean() -> None:
    rows = branches(0, 1.0, 2.0, 6.0)
    (own,) = replicas(rows, "x", "y").values()
    assert own.mean == 3.0 and (own.standard_error, own.half95, own.model_deviation) == (None, None, None)
    assert own.branch_deviation == own.bar == pytest.approx(np.sqrt(7))
    assert told(own) == "3.0 (sd 2.6)" and counted(rows) == "1 (3 branches)"
    sentence = told_error(rows)
    assert sentence.startswith("sd is the standard deviation of 3 branches of one melt") and "±" not in sentence


def test_branches_count_once_where_there_are_several_melts() -> None:
    rows = [*branches(0, 1.0, 2.0, 6.0), *branches(1, 4.0, model=1), *branches(2, 8.0, 8.0, model=2)]
    (own,) = replicas(rows, "x", "y").values()
    assert own.values.tolist() == [3.0, 4.0, 8.0] and own.mean == 5.0 and own.branch_deviation is None
    error = np.std([3.0, 4.0, 8.0], ddof=1) / np.sqrt(3)
    assert own.standard_error == own.bar == pytest.approx(error)
    assert own.half95 == pytest.approx(4.302653 * error, rel=1e-5), "two degrees of freedom, not five"
    assert counted(rows) == "3 (6 branches)" and counted(rows[3:4]) == "1"
    assert told_error(rows).endswith("Branches of one melt are no independent replicas: their mean counts as one.")


def test_a_melt_is_told_by_the_replica_in_the_name_of_a_run() -> None:
    names = ("g.n60.2Kps.200ps.r1", "g.n60.10Kps.r1", "g.n60.10Kps.r1.force-field", "g.n60.r10", "g.n60.t01")
    assert [melt_of({"run": name}) for name in names] == ["r1", "r1", "r1", "r10", "g.n60.t01"]


def test_the_sentence_says_what_the_error_holds() -> None:
    assert "both the scatter between runs and that between models" in told_error([run(1.0), run(2.0, 1)])
    assert "no scatter of models" in told_error([run(1.0), run(2.0)])
    assert told_error([run(1.0), run(2.0, 1, rate=2.0)]).startswith("There is one run of each")


def test_the_model_of_a_run_is_that_of_its_chunks_which_a_model_drives() -> None:
    classical: dict[str, Any] = {"spec": {"force_field": {}}}
    assert model_of([classical, {"spec": {"driven_by": 2}}]) == 2
    assert model_of([classical, {"spec": {}}]) == 0
