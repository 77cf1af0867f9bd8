from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.picks import Candidate, Rules, pick

GENEROUS = Rules(max_labels=1000, max_per_trajectory=1000, min_separation_ps=0.0, audit=1000)


def frame(identity: str, **changes: object) -> Candidate:
    """A candidate frame, the only one of its trajectory."""
    return replace(Candidate(identity, f"t.{identity}", 0.0, "glass 300K", "candidate", "candidate", 0.5), **changes)  # type: ignore[arg-type]


def picked(frames: list[Candidate], rules: Rules, seed: int = 1, known: frozenset[str] = frozenset()) -> list[str]:
    return [frames[index].identity for index, _ in pick(frames, set(known), rules, seed)]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Candidate], set[str], Rules]:
    """Frames of a few trajectories, some equal to one another, some known, and rules tight enough to matter."""
    places = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40))
    frames = []
    for trajectory, step in sorted(places):
        trust = draw(st.sampled_from(["accurate", "candidate", "candidate", "failed"]))
        events = draw(st.frozensets(st.sampled_from(["overlap", "five_coordinated_Si"]), max_size=2))
        kept_for = {"accurate": "audit", "candidate": "candidate", "failed": "before_loss"}[trust]
        kept_for = draw(st.sampled_from([kept_for, *sorted(events)]))
        identity = draw(st.sampled_from([f"{trajectory}.{step}", "the same", "known"]))
        deviation = {"accurate": 0.1, "candidate": 0.5, "failed": draw(st.sampled_from([5.0, math.nan]))}[trust]
        stratum = f"glass {300 * (trajectory % 3)}K"
        frames.append(Candidate(identity, f"t{trajectory}", 0.02 * step, stratum, trust, kept_for, deviation, events))
    rules = Rules(
        draw(st.integers(1, 12)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([0.0, 0.03, 0.2])),
        draw(st.integers(0, 4)),
        {"overlap": draw(st.integers(0, 3)), "five_coordinated_Si": draw(st.integers(0, 3))},
    )
    return frames, {"known"}, rules


@settings(max_examples=200, deadline=None)
@given(worlds(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_rules_hold_for_any_frames(world: tuple[list[Candidate], set[str], Rules], seed: int, random: object) -> None:
    frames, known, rules = world
    found = pick(frames, known, rules, seed)
    chosen = [frames[index] for index, _ in found]
    reasons = Counter(reason for _, reason in found)

    assert known == {"known"}, "what is known is not changed by asking"
    assert len({one.identity for one in chosen}) == len(chosen), "nothing twice"
    assert not known & {one.identity for one in chosen}
    assert all(math.isfinite(one.max_force_deviation_eV_A) for one in chosen), "of NaN frames nothing is known"
    for one, (_, reason) in zip(chosen, found, strict=True):
        if reason in rules.event_quota:
            assert reason in one.events
        elif reason == "audit":
            assert one.kept_for == "audit"
        else:
            assert reason == "candidate" and (one.trust_class == "candidate" or one.kept_for == "before_loss")

    assert len(chosen) <= rules.max_labels
    assert reasons["audit"] <= rules.audit
    assert all(reasons[event] <= quota for event, quota in rules.event_quota.items())
    by_trajectory: dict[str, list[float]] = {}
    for one in chosen:
        by_trajectory.setdefault(one.trajectory, []).append(one.time_ps)
    for times in by_trajectory.values():
        assert len(times) <= rules.max_per_trajectory
        times.sort()
        assert all(b - a >= rules.min_separation_ps for a, b in pairwise(times))

    shuffled = list(range(len(frames)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = pick([frames[index] for index in shuffled], known, rules, seed)
    assert [(shuffled[index], reason) for index, reason in again] == found


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 5))
def test_nothing_that_may_be_picked_is_left_while_there_is_room(
    world: tuple[list[Candidate], set[str], Rules], seed: int
) -> None:
    frames, known, rules = world
    chosen = [frames[index] for index, _ in pick(frames, known, rules, seed)]
    if len(chosen) == rules.max_labels:
        return
    taken = known | {one.identity for one in chosen}
    for one in frames:
        if one.trust_class == "candidate" and one.identity not in taken:
            others = [other.time_ps for other in chosen if other.trajectory == one.trajectory]
            close = any(abs(time - one.time_ps) < rules.min_separation_ps for time in others)
            assert close or len(others) >= rules.max_per_trajectory


def test_other_seeds_give_other_picks() -> None:
    frames = [frame(f"{n:02d}") for n in range(40)]
    rules = replace(GENEROUS, max_labels=5)
    draws = [tuple(picked(frames, rules, seed)) for seed in range(20)]
    assert len(set(draws)) == 20
    assert draws == [tuple(picked(frames, rules, seed)) for seed in range(20)]
    every = {identity for draw in draws for identity in draw}
    assert len(every) > 30, "all frames have a chance"


def test_frames_with_events_are_asked_about_where_the_ensemble_agrees() -> None:
    calm = [
        frame(f"calm{n}", trust_class="accurate", kept_for="audit", max_force_deviation_eV_A=0.01) for n in range(9)
    ]
    event = frame("event", trust_class="accurate", kept_for="overlap", events=frozenset({"overlap"}))
    rules = replace(GENEROUS, audit=0, event_quota={"overlap": 3})
    assert pick([*calm, event], set(), rules, 1) == [(9, "overlap")]
    assert pick([*calm, event], set(), replace(rules, event_quota={"overlap": 0}), 1) == []


def test_audit_takes_accurate_frames_only() -> None:
    frames = [frame(f"a{n}", trust_class="accurate", kept_for="audit") for n in range(5)]
    frames += [frame(f"c{n}") for n in range(5)]
    found = pick(frames, set(), replace(GENEROUS, audit=2), 3)
    assert Counter(reason for _, reason in found) == {"audit": 2, "candidate": 5}
    assert all(frames[index].trust_class == "accurate" for index, reason in found if reason == "audit")


def test_failed_frames_are_not_asked_about_but_the_last_one_before_a_loss_is() -> None:
    failed = frame("failed", trust_class="failed", kept_for="candidate", max_force_deviation_eV_A=9.0)
    before = frame("before", trust_class="accurate", kept_for="before_loss")
    assert picked([failed, before], GENEROUS) == ["before"]


def test_strata_take_turns() -> None:
    """Ninety frames of one temperature do not crowd out three of another."""
    frames = [frame(f"many{n:02d}") for n in range(90)] + [frame(f"few{n}", stratum="glass 3000K") for n in range(3)]
    found = picked(frames, replace(GENEROUS, max_labels=6))
    assert sum(identity.startswith("few") for identity in found) == 3


def test_quota_left_by_one_kind_goes_to_candidates() -> None:
    frames = [frame(f"{n}") for n in range(8)]
    rules = replace(GENEROUS, max_labels=6, audit=3, event_quota={"overlap": 3})
    assert len(picked(frames, rules)) == 6


def test_known_frame_is_never_picked_however_uncertain() -> None:
    """Not even when it is the farthest from everything: a duplicate of a training frame teaches nothing."""
    frames = [frame("trained", max_force_deviation_eV_A=0.99), frame("new", max_force_deviation_eV_A=0.3)]
    assert picked(frames, replace(GENEROUS, max_labels=1), known=frozenset({"trained"})) == ["new"]


def test_known_frame_costs_its_trajectory_nothing() -> None:
    frames = [frame("trained", trajectory="t", time_ps=0.0), frame("new", trajectory="t", time_ps=0.01)]
    rules = replace(GENEROUS, max_per_trajectory=1, min_separation_ps=0.05)
    assert picked(frames, rules, known=frozenset({"trained"})) == ["new"]


@pytest.mark.parametrize("seed", range(5))
def test_threshold_and_count_together_pick_frames_above_the_threshold(seed: int) -> None:
    """Deviations 1, 5, 2, 9 with the threshold at 4 and two labels: the frames of 5 and 9, and no others."""
    deviations = [1.0, 5.0, 2.0, 9.0]
    frames = [
        frame(str(n), max_force_deviation_eV_A=value, trust_class="candidate" if value >= 4 else "accurate")
        for n, value in enumerate(deviations)
    ]
    assert sorted(picked(frames, replace(GENEROUS, max_labels=2), seed)) == ["1", "3"]


def test_frames_without_a_number_are_never_picked() -> None:
    events = frozenset({"overlap"})
    nan = {"max_force_deviation_eV_A": math.nan}
    frames = [
        frame("nan", **nan),
        frame("event", events=events, kept_for="overlap", **nan),
        frame("lost", kept_for="before_loss", trust_class="failed", max_force_deviation_eV_A=math.inf),
        frame("good"),
    ]
    assert picked(frames, replace(GENEROUS, event_quota={"overlap": 5})) == ["good"]


def test_nothing_to_pick_from() -> None:
    assert pick([], set(), GENEROUS, 1) == []
