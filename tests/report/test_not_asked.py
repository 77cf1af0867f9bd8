"""Why no label was asked for of a frame that came home, as `alloop why` tells it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alloop.report.fate import _not_asked

HOT = "LBS-20-60-20.n63.2000K.t00"
SELECT = {"max_labels": 10, "audit": 4, "max_per_trajectory": 2, "events": {"overlap": {"quota": 2}}, "before_loss": 1}
EXPLORE = {"temperatures_K": [300, 2000], "ramps": [], "trajectories": 2, "chunks": 2}
GLASS = {"name": "LBS-20-60-20", "n_atoms": [63]}
CONFIG = {"name": "x", "glasses": [GLASS], "explore": EXPLORE, "select": SELECT}
BAND = "1250-2250 K"
CONDITION = {"n_steps": 1000, "timestep_fs": 1.0}


def picks(*reasons: str, trajectory: str = "another", band: str = BAND) -> list[dict[str, Any]]:
    return [
        {"name": f"p{n}", "reason": reason, "trajectory": trajectory, "time_ps": 50.0 + n, "band": band}
        for n, reason in enumerate(reasons)
    ]


def why(made: list[dict[str, Any]], distance: float | None = None, *, closed: bool = True, **changes: Any) -> str:
    """The reason for a candidate at 0.1 ps; distance: from what is known, for each reason it gives."""
    frame = {"frame": f"{HOT}.c00.s0100", "lost": None, "kept_for": "candidate", "trust_class": "candidate"}
    frame |= {"events": [], "judged_again": [], "target_temperature_K": 2000.0, "exploration_closed": closed}
    reasons = {reason: {"beside_picks": distance} for reason in ("candidate", "before_loss", "overlap")}
    frame |= {"novelty": {"reasons": reasons}} | changes
    explore = {"number": 3, "tasks": []}
    starts = [{"number": 1, "config": CONFIG}]
    state = SimpleNamespace(decisions={("explore", 0): explore}, picks_in={0: made}, starts=starts)
    task: Any = SimpleNamespace(name=f"{HOT}.c00", spec={"condition": CONDITION})
    campaign: Any = SimpleNamespace(state=state)
    return _not_asked(campaign, frame, 0, task)


EVENT = {"trust_class": "accurate", "kept_for": "overlap", "events": ["overlap"]}
LAST = {"trust_class": "accurate", "kept_for": "before_loss"}


def test_a_candidate_is_told_that_others_came_first_where_slots_of_the_audit_stay_unused() -> None:
    """Six of six labels beside the audit, two of its four slots used; and it is nearer than `novelty` to a pick."""
    made = picks(*["candidate"] * 6, "audit", "audit")
    assert (
        why(made, 0.05)
        == "others came first: 6 labels beside the audit, by quotas, shares and rank (select.max_labels)"
    )


def test_novelty_is_told_of_events_alone_and_by_the_distance_on_record() -> None:
    few = picks("candidate")
    assert why(few, 0.05, **EVENT) == (
        "its overlap was known: 0.05 from training data or another pick, nearer than 0.1 (select.novelty)"
    )
    for untold in (why(few, 0.05), why(few, 0.3, **EVENT), why(few, None, **EVENT), why(few, 0.05, **LAST)):
        assert untold.startswith("nothing on record tells why")
    assert why(few, 1e-4) == "it shows as candidate just what training data or another pick do"
    assert why(few, 0.05, novelty={"unknown": "not described"}, **EVENT).startswith("nothing on record tells why")
    assert "select.novelty" not in why(few, 0.05, events=["overlap"]), "it is a candidate, too"


@pytest.mark.parametrize(
    ("made", "frame", "expected"),
    [
        (["overlap"] * 2, EVENT, "the quota of overlap at 1250-2250 K was full: 2 of 2 labels"),
        (["overlap"] * 5, EVENT, "events had taken their share, 5 of 10 labels (select.event_share)"),
        (["before_loss"], LAST, "1 last good frames were asked for (select.before_loss)"),
        (["candidate"], EVENT | {"events": ["density"]}, "its events have a quota of 0"),
        (["candidate"] * 6, EVENT, "others came first: 6 labels"),
    ],
)
def test_quotas(made: list[str], frame: dict[str, Any], expected: str) -> None:
    assert why(picks(*made), 0.5, **frame).startswith(expected)


def test_a_quota_of_another_band_is_none_of_it() -> None:
    assert "quota" not in why(picks("overlap", "overlap", band="below 600 K"), 0.5, **EVENT)


def test_a_trajectory_and_a_moment_have_given_enough() -> None:
    """The audit takes no places of a trajectory but keeps others away in time."""
    own = picks("candidate", "audit", trajectory=HOT)
    assert "max_per_trajectory" not in why(own, 0.5)
    assert why(picks("candidate", "candidate", trajectory=HOT)).endswith("given 2 labels (select.max_per_trajectory)")
    own[1]["time_ps"] = 0.08
    assert why(own) == "p1, 0.02 ps away, was asked for (select.min_separation_ps)"


def test_while_exploration_goes_on_it_may_wait() -> None:
    assert why(picks("candidate"), 0.5, closed=False).startswith("it waits in the backlog")
