from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.choice import Choice
from alloop.selection.classes import CLASSES
from alloop.selection.diversity import TOLERANCE, Environments, Known, Scale
from alloop.selection.frontier import select_farthest
from alloop.selection.picks import Candidate, Frames, Made, Offending, Rules, columns, pick

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
            assert reason == one.trust_class == "candidate" or reason == one.kept_for == "before_loss"

    assert len(chosen) <= rules.max_labels
    assert reasons["audit"] <= rules.audit
    assert reasons["before_loss"] <= rules.before_loss
    assert all(reasons[event] <= quota for event, quota in rules.event_quota.items())
    assert sum(reasons[event] for event in rules.event_quota) <= rules.max_labels / 2
    for trajectory in {one.trajectory for one in chosen}:
        own = [(frames[index], reason) for index, reason in found if frames[index].trajectory == trajectory]
        meant = [one.time_ps for one, reason in own if reason != "audit"]
        assert len(meant) <= rules.max_per_trajectory, "the audit apart, which must stay random"
        drawn = [one.time_ps for one, reason in own if reason == "audit"]
        assert all(b - a >= rules.min_separation_ps for a, b in pairwise(sorted(meant)))
        assert all(abs(a - b) >= rules.min_separation_ps for a in meant for b in drawn)

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
    found = pick(frames, known, rules, seed)
    chosen = [frames[index] for index, _ in found]
    if len(chosen) == rules.max_labels:
        return
    taken = known | {one.identity for one in chosen}
    for one in frames:
        if one.trust_class == "candidate" and one.identity not in taken:
            others = [other.time_ps for other in chosen if other.trajectory == one.trajectory]
            close = any(abs(time - one.time_ps) < rules.min_separation_ps for time in others)
            meant = [other for other, why in found if frames[other].trajectory == one.trajectory and why != "audit"]
            assert close or len(meant) >= rules.max_per_trajectory


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


def test_audit_takes_frames_that_were_drawn_for_it_whatever_their_class() -> None:
    frames = [frame(f"{trust}{n}", trust_class=trust, kept_for="audit") for n in range(9) for trust in CLASSES]
    frames += [frame(f"c{n}") for n in range(5)]
    seen = set()
    for seed in range(9):
        found = pick(frames, set(), replace(GENEROUS, audit=2), seed)
        audit = [frames[index] for index, reason in found if reason == "audit"]
        assert len(audit) == 2 and all(one.kept_for == "audit" for one in audit)
        seen |= {one.trust_class for one in audit}
    assert seen == set(CLASSES)


def test_failed_frames_are_not_asked_about_but_the_last_one_before_a_loss_is() -> None:
    failed = frame("failed", trust_class="failed", kept_for="candidate", max_force_deviation_eV_A=9.0)
    before = frame("before", trust_class="accurate", kept_for="before_loss")
    assert picked([failed, before], GENEROUS) == ["before"]
    many = [frame(f"b{n}", trust_class="accurate", kept_for="before_loss") for n in range(9)]
    assert len(picked(many, replace(GENEROUS, before_loss=3))) == 3


def test_strata_take_turns() -> None:
    """Ninety frames of one temperature do not crowd out three of another: half of the places are for all alike."""
    frames = [frame(f"many{n:02d}") for n in range(90)] + [frame(f"few{n}", stratum="glass 3000K") for n in range(3)]
    found = picked(frames, replace(GENEROUS, max_labels=12))
    assert sum(identity.startswith("few") for identity in found) == 3


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_places_go_by_the_deviation_that_waits(seed: int) -> None:
    """A fourth of all deviation is in one stratum and three in the other: shares of 1.5 and 2.5 of 4."""
    frames = [frame(f"calm{n:02d}", max_force_deviation_eV_A=0.3) for n in range(50)]
    frames += [frame(f"hot{n:02d}", max_force_deviation_eV_A=0.9, stratum="glass 3000K") for n in range(50)]
    found = picked(frames, replace(GENEROUS, max_labels=40), seed)
    assert Counter(identity[:3] for identity in found) == {"cal": 15, "hot": 25}


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
    """Four of the twelve deviations are below the threshold at 4; few labels truncate those above it, and no others."""
    deviations = [1.0, 5.0, 2.0, 9.0, 8.0, 3.0, 6.0, 3.9, 4.0, 7.0, 30.0, 12.0]
    frames = [
        frame(str(n), max_force_deviation_eV_A=value, trust_class="candidate" if value >= 4 else "accurate")
        for n, value in enumerate(deviations)
    ]
    above = {str(n) for n, value in enumerate(deviations) if value >= 4}
    for count in (1, 2, 5, 7, 8, 12):
        found = picked(frames, replace(GENEROUS, max_labels=count), seed)
        assert set(found) <= above and len(found) == len(set(found)) == min(count, 8)


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


# ---------------------------------------------------------------------------------------- by how new they are

SCALE = Scale(np.array([8, 14], dtype=np.int16), np.zeros((3, 2), np.float32), np.full((3, 2), 2**-0.5, np.float32))
"""Distances are those of the vectors themselves."""
HOT, COLD = 2500.0, 300.0


def shown(*vectors: tuple[float, float], element: int = 14) -> Environments:
    return Environments(np.full(len(vectors), element, np.int16), np.array(vectors, np.float32).reshape(-1, 2))


def training(*vectors: tuple[float, float]) -> Known:
    known = Known(SCALE)
    known.cover(shown(*vectors))
    return known


def names(frames: list[Candidate], rules: Rules, known: Known | None, old: frozenset[str] = frozenset()) -> list[str]:
    return [frames[index].identity for index, _ in pick(frames, set(old), rules, 1, known)]


def test_frame_is_as_new_as_its_offending_atom_and_not_as_the_average_of_all() -> None:
    common = [(0.0, 0.0)] * 300
    plain = frame("plain", offending={"candidate": shown((2.0, 0.0))})
    one_si = frame("one", offending={"candidate": shown(*common, (9.0, 0.0))})
    assert names([plain, one_si], replace(GENEROUS, max_labels=1), training((0.0, 0.0))) == ["one"]


def test_candidates_are_ranked_by_how_new_times_how_uncertain() -> None:
    frames = [
        frame("worst", max_force_deviation_eV_A=0.99, offending={"candidate": shown((1.0, 0.0))}),
        frame("newest", max_force_deviation_eV_A=0.26, offending={"candidate": shown((5.0, 0.0))}),
        frame("both", max_force_deviation_eV_A=0.7, offending={"candidate": shown((0.0, 3.0))}),
    ]
    assert names(frames, GENEROUS, training((0.0, 0.0))) == ["both", "newest", "worst"]


def test_the_like_of_a_pick_gives_way_however_uncertain() -> None:
    """Looked at again, a frame keeps its deviation and loses what the pick before it has shown."""
    frames = [
        frame("first", max_force_deviation_eV_A=0.9, offending={"candidate": shown((5.0, 0.0))}),
        frame("like it", max_force_deviation_eV_A=0.9, offending={"candidate": shown((4.9, 0.0))}),
        frame("other", max_force_deviation_eV_A=0.3, offending={"candidate": shown((0.0, 1.0))}),
    ]
    assert names(frames, GENEROUS, training((0.0, 0.0))) == ["first", "other", "like it"]


def test_events_are_ranked_by_how_new_alone() -> None:
    """The ensemble may agree where it is wrong; its deviation says nothing of how much an event teaches."""
    frames = [
        frame("sure", trust_class="accurate", max_force_deviation_eV_A=0.01, offending={"overlap": shown((5.0, 0.0))}),
        frame("unsure", trust_class="accurate", max_force_deviation_eV_A=0.2, offending={"overlap": shown((3.0, 0.0))}),
    ]
    frames = [replace(one, kept_for="overlap", events=frozenset({"overlap"})) for one in frames]
    rules = replace(GENEROUS, event_quota={"overlap": 2})
    assert names(frames, rules, training((0.0, 0.0))) == ["sure", "unsure"]


def test_event_is_judged_by_its_own_atoms() -> None:
    """The atom of largest deviation is new in both; the overlap of the first is known."""
    overlap = frozenset({"overlap"})
    largest = shown((70.0, 0.0))
    frames = [
        frame(
            "known",
            trust_class="accurate",
            events=overlap,
            offending={"overlap": shown((1.0, 0.0)), "candidate": largest},
        ),
        frame(
            "new",
            trust_class="accurate",
            events=overlap,
            offending={"overlap": shown((3.0, 0.0)), "candidate": largest},
        ),
    ]
    rules = replace(GENEROUS, event_quota={"overlap": 5})
    assert names(frames, rules, training((1.0, 0.0))) == ["new"]


def test_events_together_leave_half_of_the_labels_to_candidates_and_share_theirs_fairly() -> None:
    events = ("overlap", "five_coordinated_Si", "edge_sharing")
    frames = [
        frame(f"{event} {band:g}.{n}", events=frozenset({event}), trust_class="accurate", temperature_K=band)
        for event in events
        for band in (COLD, HOT)
        for n in range(9)
    ]
    frames += [frame(f"c{n}") for n in range(20)]
    rules = Rules(24, 9, 0.0, 0, dict.fromkeys(events, 5), (1000.0,))
    found = names(frames, rules, None)
    assert Counter(name.split(".")[0] for name in found if name[0] != "c") == {
        f"{event} {band:g}": 2 for event in events for band in (COLD, HOT)
    }
    assert sum(name[0] == "c" for name in found) == 12
    assert len(names(frames[:54], rules, None)) == 12, "what comes later may be candidates"
    assert len(names(frames, replace(rules, event_share=0.0), None)) == 20
    assert sum(name[0] != "c" for name in names(frames, replace(rules, event_share=1.0), None)) == 24


@pytest.mark.parametrize("reason", ["candidate", "overlap", "before_loss"])
def test_an_event_that_is_nearly_known_is_no_reason_for_a_label(reason: str) -> None:
    """Of two frames that show nearly the same event only one is asked for; a doubt is, unless it is a duplicate."""

    def at(x: float) -> Candidate:
        kind = "candidate" if reason == "before_loss" else reason
        trust, events = ("candidate" if reason == "candidate" else "accurate"), frozenset({reason} - {"candidate"})
        about = {"trust_class": trust, "events": events, "kept_for": reason, "offending": {kind: shown((x, 0.0))}}
        return frame(f"at {x}", **about)

    frames = [at(0.0), at(0.06), at(0.12), at(2.0), at(2.06)]
    rules = replace(GENEROUS, event_quota={"overlap": 9})
    found = names(frames, rules, training((0.0, 0.0)))
    assert found == ["at 2.06", "at 0.12"] if reason == "overlap" else len(found) == 4
    assert len(names(frames, replace(rules, novelty=0.05), training((0.0, 0.0)))) == 4
    assert len(names(frames, replace(rules, novelty=0.0), training((0.0, 0.0)))) == 4, "a duplicate never is"


def test_each_temperature_band_has_the_quota_of_an_event() -> None:
    overlap = frozenset({"overlap"})
    frames = [frame(f"hot{n}", events=overlap, trust_class="accurate", temperature_K=HOT) for n in range(9)]
    frames += [frame(f"cold{n}", events=overlap, trust_class="accurate", temperature_K=COLD) for n in range(9)]
    rules = replace(GENEROUS, event_quota={"overlap": 2}, bands_K=(1000.0,))
    assert Counter(name[:3] for name in names(frames, rules, None)) == {"hot": 2, "col": 2}
    assert [rules.band(kelvin) for kelvin in (999.0, 1000.0, math.nan)] == [0, 1, 1]


def test_picks_made_before_count_for_every_rule() -> None:
    """Of one trajectory two places and of one band three overlaps, of which one each is taken; six labels in all."""
    overlap = frozenset({"overlap"})
    rules = Rules(6, 2, 0.05, 0, {"overlap": 3}, (1000.0,), event_share=1.0)
    before = [Made("old", "overlap", "t", "glass 2500K", 1.0, HOT), Made("other", "candidate", "u", "glass 300K", 0.0)]
    hot = [frame(f"hot{n}", events=overlap, trust_class="accurate", temperature_K=HOT) for n in range(6)]
    found = pick(hot, set(), rules, 1, before=before)
    assert [reason for _, reason in found] == ["overlap"] * 2
    same = [frame(f"{n}", trajectory="t", time_ps=time_ps) for n, time_ps in enumerate((0.99, 1.01, 2.0, 3.0))]
    found = pick(same, set(), rules, 1, before=before)
    assert len(found) == 1 and found[0][0] > 1, "one place is left, and that apart from the pick at 1 ps"
    assert len(pick([frame(f"{n}") for n in range(9)], set(), rules, 1, before=before)) == 4
    drawn = [frame(f"{n}", kept_for="audit", trust_class="accurate") for n in range(9)]
    assert len(pick(drawn, set(), replace(rules, audit=5), 1, before=before)) == 4


def test_candidates_without_descriptors_follow_by_deviation() -> None:
    described = [frame(f"d{n}", offending={"candidate": shown((1.0 + n, 0.0))}) for n in range(3)]
    broken = frame("nan", offending={"candidate": shown((math.nan, 0.0))})
    bare = [frame(f"b{n}") for n in range(30)]
    worst, bad = frame("worst", max_force_deviation_eV_A=0.9), frame("bad", max_force_deviation_eV_A=0.8)
    found = names([*bare, broken, bad, worst, *described], GENEROUS, training((0.0, 0.0)))
    assert found[:5] == ["d2", "d0", "d1", "worst", "bad"] and len(found) == 36
    assert names([*bare, broken, *described], GENEROUS, None) != found, "nothing to compare with, nothing is new"
    assert found[5:] != sorted(found[5:]), "of equal deviations in random order"


@pytest.mark.parametrize("seed", range(3))
def test_events_without_descriptors_follow_in_random_order(seed: int) -> None:
    seen = {"events": frozenset({"overlap"}), "trust_class": "accurate"}
    frames = [frame(f"{n:02d}", max_force_deviation_eV_A=n / 100, **seen) for n in range(20)]
    found = picked(frames, replace(GENEROUS, event_quota={"overlap": 20}), seed)
    assert len(found) == 20 and found not in (sorted(found), sorted(found, reverse=True))


def test_known_frame_brings_what_it_shows() -> None:
    """A label in flight is known by its identity; another frame that shows the same is a duplicate of it."""
    frames = [frame("flying", offending={"candidate": shown((4.0, 0.0))})]
    frames += [
        frame("same", offending={"candidate": shown((4.0, 0.0))}),
        frame("new", offending={"candidate": shown((2.0, 0.0))}),
    ]
    assert names(frames, GENEROUS, training((0.0, 0.0)), frozenset({"flying"})) == ["new"]


def test_a_trajectory_never_fills_a_batch() -> None:
    """However new all it shows is: what else was seen comes in too."""
    frames = [
        frame(f"a{n}", trajectory="a", time_ps=float(n), offending={"candidate": shown((100.0 + 10 * n, 0.0))})
        for n in range(50)
    ]
    frames += [frame(f"b{n}", offending={"candidate": shown((1.0 + n / 5, 0.0))}) for n in range(50)]
    found = names(frames, replace(GENEROUS, max_labels=20, max_per_trajectory=8), training((0.0, 0.0)))
    assert Counter(name[0] for name in found) == {"a": 8, "b": 12}


@pytest.mark.parametrize("audit_first", [True, False])
def test_the_audit_takes_no_place_of_a_trajectory_whenever_it_is_drawn(audit_first: bool) -> None:
    """All at once the audit comes first, streamed it comes last."""
    rules = replace(GENEROUS, max_per_trajectory=4, min_separation_ps=0.5, audit=3)
    choice = Choice(rules, 1)

    def audit() -> None:
        for number in range(3):
            choice.note(f"a{number}", "audit", "t", 100.0 + number)

    if audit_first:
        audit()
    choice.add(columns([frame(f"{n}", trajectory="t", time_ps=float(n)) for n in range(9)]), set())
    while (best := choice.best()) is not None:
        choice.choose(best)
    if not audit_first:
        audit()
    assert choice.reasons == {"audit": 3, "candidate": 4}


def test_a_frame_of_the_audit_keeps_others_away_in_time_and_by_what_it_shows() -> None:
    """In any order a frame is labelled once; what comes later than a pick is apart from it."""
    known = training((0.0, 0.0))
    frames = [
        frame("drawn", trajectory="t", kept_for="audit", offending={"candidate": shown((3.0, 0.0))}),
        frame("close", trajectory="t", time_ps=0.01, offending={"candidate": shown((5.0, 0.0))}),
        frame("same", offending={"candidate": shown((3.0, 0.0))}),
        frame("new", trajectory="t", time_ps=1.0, offending={"candidate": shown((7.0, 0.0))}),
    ]
    rules = replace(GENEROUS, audit=1, max_per_trajectory=1, min_separation_ps=0.05)
    choice = Choice(rules, 1, known)
    choice.note("drawn", "audit", "t", 0.0)
    choice.add(columns(frames), set())
    assert [frames[best.number + 1].identity for best in choice.take(9)] == ["new"]


def test_counts_add_up_and_never_double() -> None:
    choice = Choice(replace(GENEROUS, max_labels=9, audit=0, event_quota={"overlap": 3}), 1)
    for _ in range(3):
        for number in range(4):
            choice.note(f"f{number}", "overlap" if number else "candidate", "t", float(number), "0")
    assert choice.reasons == {"overlap": 3, "candidate": 1} and choice.room == 5
    assert choice.served == {("overlap", "0"): 3, ("candidate", "0"): 1}


places = st.tuples(st.integers(-3, 3), st.integers(-3, 3))


@st.composite
def described_worlds(draw: st.DrawFn) -> tuple[list[Candidate], Rules, list[tuple[int, int]], list[tuple[int, int]]]:
    """Frames on a lattice of environments, so that many equal training data, labels in flight, and one another."""
    frames = []
    for number in range(draw(st.integers(0, 25))):
        events = draw(st.frozensets(st.sampled_from(["overlap", "five_coordinated_Si"]), max_size=2))
        offending = {
            reason: shown(*draw(st.lists(places, min_size=1, max_size=2))) for reason in ["candidate", *sorted(events)]
        }
        frames.append(
            Candidate(
                f"f{number}",
                f"t{draw(st.integers(0, 4))}",
                draw(st.integers(0, 30)) / 20,
                f"glass {draw(st.integers(0, 2))}",
                draw(st.sampled_from(["accurate", "candidate", "failed"])),
                draw(st.sampled_from(["candidate", "before_loss"])),
                draw(st.sampled_from([0.3, 0.5, 0.9])),
                events,
                draw(st.sampled_from([COLD, HOT])),
                offending,
            )
        )
    quota = {"overlap": draw(st.integers(0, 3)), "five_coordinated_Si": draw(st.integers(0, 3))}
    rules = Rules(draw(st.integers(1, 12)), draw(st.integers(1, 4)), 0.1, 0, quota, (1000.0,), draw(st.integers(0, 2)))
    return frames, rules, draw(st.lists(places, max_size=4)), draw(st.lists(places, max_size=3))


@settings(max_examples=150, deadline=None)
@given(described_worlds(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_picks_lie_in_their_strata_and_show_something_new(
    world: tuple[list[Candidate], Rules, list[tuple[int, int]], list[tuple[int, int]]], seed: int, random: object
) -> None:
    frames, rules, trained, flying = world

    def known() -> Known:
        own = training(*trained)
        own.add(shown(*flying))
        return own

    found = pick(frames, set(), rules, seed, known())
    seen = {*trained, *flying}
    quotas: Counter[tuple[str, float]] = Counter()
    for index, reason in found:
        one = frames[index]
        key = reason if reason in one.events else "candidate"
        atoms = {tuple(map(int, vector)) for vector in one.offending[key].vectors.tolist()}
        assert atoms - seen, "all that it shows was known or chosen before"
        for shown_by in one.offending.values():
            seen |= {tuple(map(int, vector)) for vector in shown_by.vectors.tolist()}
        assert reason in one.events or reason == one.trust_class == "candidate" or reason == one.kept_for
        quotas[reason, one.temperature_K] += 1
    for event, quota in rules.event_quota.items():
        assert max(quotas[event, COLD], quotas[event, HOT]) <= quota
    assert quotas["before_loss", COLD] + quotas["before_loss", HOT] <= rules.before_loss
    order = list(range(len(frames)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = pick([frames[index] for index in order], set(), rules, seed, known())
    assert [(order[index], reason) for index, reason in again] == found


def test_columns_are_picked_from_as_candidates_are() -> None:
    rng = np.random.default_rng(4)
    frames = [
        frame(
            f"{n}",
            events=frozenset({"overlap"} if n % 3 == 0 else ()),
            temperature_K=HOT,
            offending={"candidate": shown(tuple(rng.normal(size=2))), "overlap": shown(tuple(rng.normal(size=2)))},
        )
        for n in range(60)
    ]
    rules = replace(GENEROUS, max_labels=20, event_quota={"overlap": 4})
    table = columns(frames)
    assert isinstance(table, Frames) and isinstance(table.offending, Offending)
    assert len(table) == 60 and len(table.offending.environments) == 120
    assert pick(table, set(), rules, 7, training((0.0, 0.0))) == pick(frames, set(), rules, 7, training((0.0, 0.0)))
    assert len(columns([])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_lazy_order_is_that_of_looking_at_every_frame_again(seed: int) -> None:
    """More frames than are looked at together, several atoms each, two elements."""
    rng = np.random.default_rng(seed)

    def atoms() -> Environments:
        return Environments.together(
            [shown(*rng.normal(size=(2, 2)).tolist()), shown(tuple(rng.normal(size=2)), element=8)]
        )

    def known() -> Known:
        own = training((0.0, 0.0))
        own.add(shown((0.0, 0.0), element=8))
        return own

    frames = [frame(f"{n}", offending={"candidate": atoms()}) for n in range(200)]
    rules = replace(GENEROUS, max_labels=60)
    greedy = select_farthest([one.offending["candidate"] for one in frames], known(), 60, TOLERANCE)
    assert [index for index, _ in pick(frames, set(), rules, seed, known())] == greedy


@pytest.mark.parametrize("seed", range(3))
def test_lazy_order_by_rank_is_that_of_looking_at_every_frame_again(seed: int) -> None:
    """As above with unequal deviations: at each pick the largest product of all, found the long way."""
    rng = np.random.default_rng(seed)
    frames = [
        frame(
            f"{n}",
            max_force_deviation_eV_A=float(rng.uniform(0.25, 1.0)),
            offending={"candidate": shown(*rng.normal(size=(2, 2)).tolist())},
        )
        for n in range(150)
    ]
    table = Environments.together([one.offending["candidate"] for one in frames])
    deviations = np.array([one.max_force_deviation_eV_A for one in frames])
    known, greedy = training((0.0, 0.0)), []
    for _ in range(40):
        ranks = known.novelty(table).reshape(-1, 2).max(axis=1) * deviations
        ranks[greedy] = -1
        greedy.append(int(np.argmax(ranks)))
        known.add(frames[greedy[-1]].offending["candidate"])
    found = pick(frames, set(), replace(GENEROUS, max_labels=40), seed, training((0.0, 0.0)))
    assert [index for index, _ in found] == greedy
