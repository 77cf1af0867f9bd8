from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.backlog import Backlog
from alloop.selection.diversity import Environments, Known, Scale
from alloop.selection.picks import Candidate, Rules, pick

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


def test_strata_whose_chunks_end_one_after_the_other_share_alike() -> None:
    """Six strata of a trajectory each, twenty labels: three for the last as for the first, then two for any."""
    rules = Rules(20, 20, 0.0, 0)
    chunks = [[frame(100 * k + n, f"t{k}", f"{k}K") for n in range(16)] for k in range(6)]
    every, backlog, taken = [entry for chunk in chunks for entry in chunk], Backlog(), Counter[str]()
    backlog.open_round(0, rules, 1, strata=6)
    backlog.exploring.add(0)
    for chunk in chunks:
        backlog.add(0, chunk)
        assert (backlog.newest(), backlog.size()) == (0, 3)
        taken.update(candidate.stratum for _, candidate in drained(backlog, every, 2))
        assert backlog.newest() is None and backlog.size() == 0 and backlog.take(0, 5) == [], "till another chunk ends"
    assert set(taken.values()) == {3} and len(taken) == 6
    backlog.exploring.discard(0)
    assert backlog.size() == 2 and len(drained(backlog, every)) == 2


def test_what_late_strata_do_not_need_goes_to_the_others_once_exploration_has_ended() -> None:
    early = [frame(n, "t0", "300K") for n in range(16)]
    late = [frame(100 + n, "t1", "1000K") for n in range(2)]
    events = [frame(200 + n, f"e{n}", "1000K", events=frozenset({"overlap"}), trust_class="accurate") for n in range(9)]
    lost = [frame(300 + n, f"l{n}", "300K", kept_for="before_loss", trust_class="accurate") for n in range(9)]
    rules = replace(RULES, max_labels=20, max_per_trajectory=20, bands_K=(1000.0,), event_share=0.1, before_loss=4)
    frames, backlog = early + late + events + lost, Backlog()
    backlog.open_round(0, rules, 1, strata=4)
    backlog.exploring.add(0)
    backlog.add(0, frames)
    most = backlog.size()
    first = drained(backlog, frames)
    assert Counter(reason for reason, _ in first) == {"overlap": 1, "before_loss": 1, "candidate": 4 + 2}
    assert most >= len(first)
    backlog.compare_with(training())
    assert not backlog.open(0), "a newer describing changes nothing"
    backlog.exploring.discard(0)
    assert backlog.newest() == 0 and backlog.size() == 10
    rest = drained(backlog, frames)
    assert Counter(reason for reason, _ in first + rest) == {"overlap": 2, "before_loss": 4, "candidate": 12}


def test_accurate_frames_and_known_ones_are_left_out() -> None:
    frames = [frame(0, trust_class="accurate", kept_for="audit"), frame(1), frame(2, trust_class="failed")]
    backlog = filled([])
    backlog.known.add("f1")
    backlog.add(0, frames)
    assert backlog.size() == 0 and backlog.newest() is None


def test_last_good_frame_before_a_loss_is_asked_about() -> None:
    frames = [frame(0, trust_class="accurate", kept_for="before_loss")]
    assert [reason for reason, _ in drained(filled(frames), frames)] == ["before_loss"]
    assert drained(filled(frames, replace(RULES, before_loss=0)), frames) == []


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
    assert backlog.rerank({"f0": 0.1, "f1": 0.6, "f2": 7.0, "f9": 0.1}, lambda _: (0.25, 1.0)) == 2
    left = {candidate.identity: candidate for _, (candidate, _) in backlog.of([0])}
    assert left.keys() == {"f1", "f3", "f9"}
    assert (left["f1"].max_force_deviation_eV_A, left["f3"].max_force_deviation_eV_A) == (0.6, 0.5)
    assert {reason for reason, _ in drained(backlog, frames)} == {"overlap", "candidate"}


@pytest.mark.parametrize("deviation", [0.1, 7.0], ids=["known now", "beyond trust now"])
def test_last_good_frame_before_a_loss_stays_whatever_a_newer_ensemble_says(deviation: float) -> None:
    frames = [frame(0, kept_for="before_loss"), frame(1, "t1")]
    frames.append(frame(2, "t2", kept_for="before_loss", events=frozenset({"density"})))  # of no quota here
    backlog = filled(frames)
    assert backlog.rerank({f"f{n}": deviation for n in range(3)}, lambda _: (0.25, 1.0)) == 1
    assert {one.trust_class for _, (one, _) in backlog.of([0])} == {"accurate"}, "no candidates any more"
    taken = drained(backlog, frames)
    assert [reason for reason, _ in taken] == ["before_loss"] * 2
    assert {candidate.identity for _, candidate in taken} == {"f0", "f2"}


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
    assert filled(frames).size() >= len(taken), "what is picked was counted as waiting"
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


# ---------------------------------------------------------------------------------------- by how new they are

ELEMENTS = np.array([8, 14], dtype=np.int16)
SCALE = Scale(ELEMENTS, np.zeros((3, 3), dtype=np.float32), np.full((3, 3), 3**-0.5, dtype=np.float32))
"""Distances are those of the vectors themselves."""


def shown(*vectors: tuple[float, ...], element: int = 14) -> Environments:
    return Environments(np.full(len(vectors), element, dtype=np.int16), np.array(vectors, dtype=np.float32))


def training(*vectors: tuple[float, ...]) -> Known:
    known = Known(SCALE)
    if vectors:
        known.cover(shown(*vectors))
    return known


def seen(number: int, at: tuple[float, ...], trajectory: str = "", **changes: Any) -> tuple[Candidate, str]:
    candidate, record = frame(number, trajectory or f"t{number}", **changes)
    reasons = {"candidate", *candidate.events}
    return replace(candidate, offending={reason: shown(at) for reason in reasons}), record


def compared(known: Known, frames: list[tuple[Candidate, str]], rules: Rules = RULES) -> Backlog:
    backlog = Backlog()
    backlog.compare_with(known)
    backlog.open_round(0, rules, seed=1)
    backlog.add(0, frames)
    return backlog


def test_farthest_from_training_data_and_from_what_was_asked_for_comes_first() -> None:
    frames = [seen(n, (x, 0.0, 0.0)) for n, x in enumerate((1.0, 9.0, 9.5, 5.0, 0.0))]
    backlog = compared(training((0.0, 0.0, 0.0)), frames)
    order = [candidate.identity for _, candidate in drained(backlog, frames)]
    assert order == ["f2", "f3", "f0", "f1"], "the one that equals a training environment is never asked about"
    assert [record for _, record in compared(training((0.0, 0.0, 0.0)), frames).take(0, 9)] == [
        "record 2",
        "record 3",
        "record 0",
        "record 1",
    ]


def test_newer_training_data_and_labels_in_flight_are_compared_with() -> None:
    frames = [seen(n, (x, 0.0, 0.0)) for n, x in enumerate((1.0, 9.0, 5.0))]
    known = training((0.0, 0.0, 0.0))
    known.add(shown((9.0, 0.0, 0.0)))
    backlog = compared(known, frames)
    assert backlog.take(0, 1)[0][1] == "record 2"
    newer = training((5.0, 0.0, 0.0))
    newer.add(shown((9.0, 0.0, 0.0)))
    backlog.compare_with(newer)
    assert backlog.take(0, 3) == [("candidate", "record 0")]
    another = Known(Scale.fit(shown((0.0, 0.0, 1.0), (3.0, 2.0, 1.0))))
    another.cover(shown((7.0, 0.0, 0.0)))
    backlog.compare_with(another)
    assert backlog.take(0, 3) == [("candidate", "record 0")], "whatever the scale of the one before"


def test_ranking_anew_keeps_to_what_is_known_and_takes_the_newer_atom() -> None:
    frames = [seen(n, (x, 0.0, 0.0)) for n, x in enumerate((1.0, 9.0, 5.0))]
    backlog = compared(training((0.0, 0.0, 0.0)), frames)
    backlog.rerank({"f0": 0.5, "f1": 0.5, "f2": 0.1}, lambda _: (0.25, 1.0), {"f0": shown((0.0, 40.0, 0.0))})
    assert [record for _, record in backlog.take(0, 3)] == ["record 0", "record 1"]


described = st.lists(
    st.tuples(
        *(st.integers(0, 60), st.integers(0, 3), st.integers(-3, 3), st.integers(-3, 3), st.booleans()),
        st.sampled_from([0.3, 0.5, 0.9]),
    ),
    max_size=25,
    unique_by=lambda made: made[0],
).map(
    lambda made: [
        seen(
            *(n, (x, y, 0.0), f"t{t}"),
            stratum=f"{300 * (n % 3)}K",
            time_ps=n / 20,
            deviation=deviation,
            events=frozenset({"overlap"}) if event else frozenset(),
        )
        for n, t, x, y, event, deviation in made
    ]
)


@given(described, st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_taking_several_is_taking_one_after_the_other(
    frames: list[tuple[Candidate, str]], step: int, random: Any
) -> None:
    """Also when the frames came in another order, and as choosing from all at once does."""
    one_by_one = drained(compared(training((0.0, 0.0, 0.0)), frames), frames)
    shuffled = frames.copy()
    random.shuffle(shuffled)
    backlog = compared(training((0.0, 0.0, 0.0)), [])
    for entry in shuffled:
        backlog.add(0, [entry])
    assert backlog.take(0, 3) == backlog.take(0, 3)
    assert drained(backlog, frames, step) == one_by_one
    assert backlog.size() == 0
    rules = replace(RULES, max_labels=RULES.max_labels - RULES.audit, audit=0)
    at_once = pick([candidate for candidate, _ in frames], set(), rules, 1, training((0.0, 0.0, 0.0)))
    assert [(reason, frames[index][0]) for index, reason in at_once] == one_by_one
    places = [tuple(candidate.offending["candidate"].vectors[0].tolist()) for _, candidate in one_by_one]
    assert len(set(places)) == len(places) and (0.0, 0.0, 0.0) not in places


@given(described, st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_a_backlog_filled_again_goes_on_as_before(frames: list[tuple[Candidate, str]], made: int) -> None:
    by_record = {record: candidate for candidate, record in frames}
    first = compared(training((0.0, 0.0, 0.0)), frames)
    picks = first.take(0, made)
    second = compared(training((0.0, 0.0, 0.0)), [])
    for backlog in (first, second, second):  # told twice, it counts once
        for reason, record in picks:
            candidate = by_record[record]
            where = candidate.trajectory, candidate.stratum, candidate.time_ps, candidate.temperature_K
            backlog.note_pick(0, candidate.identity, reason, *where)
    second.add(0, frames)
    left = drained(first, frames)
    assert drained(second, frames) == left
    third = compared(training((0.0, 0.0, 0.0)), frames)
    in_flight = training((0.0, 0.0, 0.0))
    for reason, record in picks:
        candidate = by_record[record]
        where = candidate.trajectory, candidate.stratum, candidate.time_ps, candidate.temperature_K
        third.note_pick(0, candidate.identity, reason, *where)
        for shown_by in candidate.offending.values():
            in_flight.add(shown_by)
    third.compare_with(in_flight)
    assert drained(third, frames) == left, "ranked anew in the middle"


def test_shares_of_strata_count_what_was_chosen_before_a_restart() -> None:
    """Nine tenths of all deviation is in the hot stratum: were it forgotten with the picks, the cold one would gain."""
    frames = [frame(n, f"t{n}", "hot", deviation=0.9, time_ps=0.0) for n in range(30)]
    frames += [frame(n, f"t{n}", "cold", deviation=0.1, time_ps=0.0) for n in range(30, 60)]
    rules = replace(RULES, max_labels=40, max_per_trajectory=1, audit=0)
    first, second = filled(frames, rules), filled([], rules)
    by_record = {record: candidate for candidate, record in frames}
    for reason, record in (picks := first.take(0, 20)):
        one = by_record[record]
        for backlog in (first, second):
            backlog.note_pick(0, one.identity, reason, one.trajectory, one.stratum, one.time_ps, one.temperature_K)
    second.add(0, frames)
    assert [by_record[record].stratum for _, record in picks].count("hot") == 14
    assert drained(second, frames) == drained(first, frames)


def test_what_no_rule_lets_be_asked_about_does_not_wait() -> None:
    """Else a deep backlog of it would hold all further exploration back."""
    frames = [frame(n, f"t{n}", events=frozenset({"overlap"}), trust_class="accurate") for n in range(9)]
    backlog = filled(frames)
    drained(backlog, frames)
    assert backlog.newest() is None and backlog.size() == 0 and backlog.of([0]) == []
