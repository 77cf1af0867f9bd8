from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.backlog import Backlog
from alloop.selection.picks import Candidate, Rules

RULES = Rules(max_labels=10, max_per_trajectory=3, min_separation_ps=0.1, audit=2, event_quota={"overlap": 2})


def frame(number: int, trajectory: str = "t0", stratum: str = "300K", **changes: Any) -> tuple[Candidate, str]:
    about: dict[str, Any] = {"trust_class": "candidate", "kept_for": "candidate", "events": frozenset()} | changes
    deviation = about.pop("deviation", 0.5)
    time_ps = about.pop("time_ps", float(number))
    candidate = Candidate(
        f"f{number}", trajectory, time_ps, stratum, about["trust_class"], about["kept_for"], deviation, about["events"]
    )
    return candidate, f"record {number}"


def filled(frames: list[tuple[Candidate, str]], rules: Rules = RULES) -> Backlog:
    backlog = Backlog()
    backlog.open_round(0, rules, seed=1)
    backlog.add(0, frames)
    return backlog


def drained(backlog: Backlog, frames: list[tuple[Candidate, str]], step: int = 1) -> list[tuple[str, Candidate]]:
    """Take until nothing is left, as decisions would."""
    by_record = {record: candidate for candidate, record in frames}
    taken = []
    while backlog.open(0):
        for reason, record in backlog.take(0, step):
            candidate = by_record[record]
            where = candidate.trajectory, candidate.stratum, candidate.time_ps
            backlog.note_pick(0, candidate.identity, reason, *where)
            taken.append((reason, candidate))
    return taken


def test_events_come_first_up_to_their_quota_and_strata_take_turns() -> None:
    events = [frame(n, f"e{n}", "2000K", events=frozenset({"overlap"}), trust_class="accurate") for n in range(5)]
    plain = [frame(10 + n, f"p{n}", "300K" if n % 2 else "1000K") for n in range(10)]
    taken = drained(filled(events + plain), events + plain)
    assert [reason for reason, _ in taken[:2]] == ["overlap", "overlap"]
    assert Counter(reason for reason, _ in taken) == {"overlap": 2, "candidate": 6}, "two are kept for the audit"
    strata = [candidate.stratum for _, candidate in taken[2:]]
    assert all(strata[n] != strata[n + 1] for n in range(len(strata) - 1))


def test_accurate_frames_and_known_ones_are_left_out() -> None:
    frames = [frame(0, trust_class="accurate", kept_for="audit"), frame(1), frame(2, trust_class="failed")]
    backlog = filled([])
    backlog.known.add("f1")
    backlog.add(0, frames)
    assert backlog.size() == 0 and backlog.newest() is None


def test_last_good_frame_before_a_loss_is_asked_about() -> None:
    frames = [frame(0, trust_class="accurate", kept_for="before_loss")]
    assert [reason for reason, _ in drained(filled(frames), frames)] == ["candidate"]


def test_newest_ensemble_is_served_first() -> None:
    backlog = filled([frame(0)])
    backlog.open_round(3, RULES, seed=1)
    assert backlog.newest() == 0
    backlog.add(3, [frame(1)])
    assert backlog.newest() == 3
    backlog.close_round(3)
    assert (backlog.newest(), backlog.iterations()) == (0, [0])


def test_newer_ensemble_drops_what_it_knows_and_what_it_cannot_trust() -> None:
    event = frozenset({"overlap"})
    frames = [frame(n, f"t{n}") for n in range(4)] + [frame(9, "t9", events=event)]
    backlog = filled(frames)
    assert backlog.rerank({"f0": 0.1, "f1": 0.6, "f2": 7.0, "f9": 0.1}, 0.25, 1.0) == 2
    left = {candidate.identity: candidate for _, (candidate, _) in backlog.of([0])}
    assert left.keys() == {"f1", "f3", "f9"}
    assert (left["f1"].max_force_deviation_eV_A, left["f3"].max_force_deviation_eV_A) == (0.6, 0.5)
    assert {reason for reason, _ in drained(backlog, frames)} == {"overlap", "candidate"}


def test_taking_decides_nothing() -> None:
    backlog = filled([frame(n, f"t{n}") for n in range(6)])
    assert backlog.take(0, 4) == backlog.take(0, 4)
    assert len(backlog.take(0, 1)) == 1 and backlog.take(0, 1) == backlog.take(0, 4)[:1]
    assert backlog.size() == 6


frames_strategy = st.lists(
    st.builds(
        frame,
        st.integers(0, 10_000),
        trajectory=st.sampled_from(["a", "b", "c"]),
        stratum=st.sampled_from(["300K", "1000K"]),
        time_ps=st.floats(0, 2),
        deviation=st.sampled_from([0.3, 0.9, float("nan"), float("inf")]),
        trust_class=st.sampled_from(["accurate", "candidate", "failed"]),
        events=st.sampled_from([frozenset(), frozenset({"overlap"})]),
    ),
    max_size=40,
    unique_by=lambda entry: entry[0].identity,
)


@given(frames_strategy, st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_picks_keep_every_rule(frames: list[tuple[Candidate, str]], step: int) -> None:
    taken = drained(filled(frames), frames, step)
    candidates = [candidate for _, candidate in taken]
    assert len({candidate.identity for candidate in candidates}) == len(taken) <= RULES.max_labels - RULES.audit
    reasons = Counter(reason for reason, _ in taken)
    assert reasons["overlap"] <= 2
    for reason, candidate in taken:
        assert candidate.max_force_deviation_eV_A in (0.3, 0.9)
        assert reason in candidate.events or candidate.trust_class == "candidate"
    for trajectory in "abc":
        times = sorted(candidate.time_ps for candidate in candidates if candidate.trajectory == trajectory)
        assert len(times) <= RULES.max_per_trajectory
        assert all(later - earlier >= 0.1 - 1e-12 for earlier, later in itertools.pairwise(times))


@given(frames_strategy)
@settings(max_examples=50, deadline=None)
def test_after_a_restart_the_same_rules_hold(frames: list[tuple[Candidate, str]]) -> None:
    """A new driver opens the round, counts the picks on record, and takes in the chunks again."""
    first = filled(frames)
    by_record = {record: candidate for candidate, record in frames}
    made = [(reason, by_record[record]) for reason, record in first.take(0, 3)] if first.open(0) else []
    second = Backlog()
    second.open_round(0, RULES, seed=1)
    for reason, candidate in made:
        second.note_pick(0, candidate.identity, reason, candidate.trajectory, candidate.stratum, candidate.time_ps)
    second.add(0, frames)
    rest = drained(second, frames)
    everything = [candidate.identity for _, candidate in made + rest]
    assert len(set(everything)) == len(everything) <= RULES.max_labels - RULES.audit
