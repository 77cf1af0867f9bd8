from __future__ import annotations

from typing import Any

import pytest

from alloop.faults import RULES, TASK_ATTEMPTS, ruling, signature


def failure(kind: str, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"class": kind, "message": message, "detail": "x" * 5000} | more


def test_given_up_after_the_limit_with_the_last_failure() -> None:
    assert ruling([], 3).given_up is None
    assert ruling([failure("bug"), failure("crash")], 3).given_up is None
    problem = ruling([failure("bug"), failure("crash"), failure("numeric", "no convergence")], 3).given_up
    assert problem is not None
    assert (problem["class"], problem["message"], len(problem["detail"])) == ("numeric", "no convergence", 4000)


def test_final_failure_is_not_tried_again() -> None:
    problem = ruling([failure("unconverged", final=True)], 3).given_up
    assert problem is not None and problem["class"] == "unconverged"


def test_late_is_no_failure_and_killed_is_tried_more_often() -> None:
    assert ruling([failure("late")] * 50, 1).given_up is None
    assert ruling([failure("interrupted")] * 50, 1).given_up is None
    limit = RULES["killed"].limit
    assert limit is not None and limit > TASK_ATTEMPTS
    assert ruling([failure("killed")] * (limit - 1), 3).given_up is None
    problem = ruling([failure("killed")] * limit, 3).given_up
    assert problem is not None and problem["class"] == "killed" and "5 times" in problem["message"]
    mixed = [failure("killed")] * (limit - 1) + [failure("late")] * 9 + [failure("bug")] * 2
    assert ruling(mixed, 3).given_up is None


def test_infra_waits_longer_each_time_and_costs_no_try_of_its_own() -> None:
    waits = [ruling([failure("infra")] * count, 1).wait_s for count in (1, 2, 3, 12)]
    assert waits == [5.0, 10.0, 20.0, 600.0]
    assert ruling([failure("infra")] * 12, 1).given_up is None
    assert ruling([failure("infra")] * 20, 1).given_up is not None, "not for ever: it would hide what a person must see"


def test_walltime_asks_for_twice_the_time() -> None:
    found = ruling([failure("walltime", seconds=300.0)], 3)
    assert (found.given_up, found.wait_s, found.needs_s) == (None, 0.0, 600.0)
    assert ruling([failure("walltime", seconds=300.0)] * 5, 3).given_up is not None


@pytest.mark.parametrize("other", [("KeyError: 'b'", 3), ("KeyError: 'a'", 4), ("ValueError: 'a'", 3)])
def test_same_bug_is_known_by_exception_and_place(other: tuple[str, int]) -> None:
    def bug(message: str, line: int) -> str:
        detail = f'Traceback\n  File "a.py", line 1, in run\n  File "b.py", line {line}, in f\n    x\n{message}\nlog'
        return signature(failure("bug", message) | {"detail": detail})

    first = bug("KeyError: 'a'", 3)
    assert (bug(*other) == first) == (other == ("KeyError: 'b'", 3))


def test_walltime_of_unknown_length_asks_for_no_more_than_usual() -> None:
    failure = {"class": "walltime", "message": "m", "detail": "", "seconds": None}
    assert not ruling([failure], 3).needs_s
