"""Why attempts fail, and what follows from it: one table of failure classes and one pure ruling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TASK_ATTEMPTS = 3
"""Failures by its own fault after which a task is given up; for labels `label.max_attempts` counts."""


@dataclass(frozen=True)
class Rule:
    """limit: failures of this class after which a task is given up, None for never; backoff_s: before the next try,
    doubled with every failure up to ten minutes; more_time: the next try needs twice the time of this one."""

    limit: int | None
    backoff_s: float = 0.0
    more_time: bool = False


RULES = {
    "interrupted": Rule(None),  # together with its driver: no fault of the task's
    "late": Rule(None),  # another attempt was first
    "killed": Rule(5),  # under the driver's eyes: it may have asked for too much
    "infra": Rule(20, backoff_s=5.0),  # a node, a disk, a launch
    "walltime": Rule(5, more_time=True),
}
"""Classes with rules of their own; every other class, `numeric` and `bug` among them, is the task's own fault."""

_LONGEST_BACKOFF_S = 600.0


@dataclass(frozen=True)
class Ruling:
    """What follows from a task's failures so far.

    given_up: class, message and detail of the failure for which it is quarantined, None while another try is due;
    wait_s: before that try; needs_s: the time it must be given, if more than the usual.
    """

    given_up: dict[str, Any] | None = None
    wait_s: float = 0.0
    needs_s: float | None = None


def ruling(failures: list[dict[str, Any]], own_limit: int) -> Ruling:
    """Return what follows from the failure records of a task's attempts, oldest first."""
    if not failures:
        return Ruling()
    own = [failure for failure in failures if failure["class"] not in RULES]
    if len(own) >= own_limit or any(failure.get("final") for failure in own):
        return Ruling(_record(own[-1], own[-1]["message"]))
    for name, rule in RULES.items():
        of_class = [failure for failure in failures if failure["class"] == name]
        if rule.limit is not None and len(of_class) >= rule.limit:
            advice = "; raise walltime_minutes of its pool, then: alloop retry" if rule.more_time else ""
            message = f"{name} {len(of_class)} times: {of_class[-1]['message']}{advice}"
            return Ruling(_record(of_class[-1], message))
    last = failures[-1]
    rule = RULES.get(last["class"], Rule(None))
    repeats = sum(failure["class"] == last["class"] for failure in failures)
    wait_s = min(rule.backoff_s * 2 ** (repeats - 1), _LONGEST_BACKOFF_S)
    return Ruling(None, wait_s, 2 * (last.get("seconds") or 0.0) if rule.more_time else None)


def _record(failure: dict[str, Any], message: str) -> dict[str, Any]:
    return {"class": failure["class"], "message": message, "detail": failure["detail"][-4000:]}


def signature(failure: dict[str, Any]) -> str:
    """Return what tells one bug from another: the exception and the last place of the program it came from."""
    places = [line.strip() for line in failure["detail"].splitlines() if line.strip().startswith('File "')]
    return f"{failure['message'].partition(':')[0]} at {places[-1] if places else 'an unknown place'}"
