from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, chisquare, hypergeom

from alloop.selection.audit import audit_sample, frames_for_audit
from alloop.selection.picks import Candidate, Rules, columns, pick

RULES = Rules(max_labels=100, max_per_trajectory=2, min_separation_ps=1.0, audit=4, event_quota={"overlap": 50})


def brought_home(chunk: str, records: int, kept: int, seed: int = 0) -> list[Candidate]:
    """A chunk of so many accurate records that drew some of them at random."""
    drawn = np.random.default_rng([seed, *chunk.encode()]).permutation(records)[:kept].tolist()
    return [
        Candidate(
            f"{chunk}.{n}", chunk, 0.01 * n, "glass 300K", "accurate", "audit", 0.1, audit_of=records, chunk=chunk
        )
        for n in drawn
    ]


def shares(chunks: dict[str, tuple[int, int]], count: int, seeds: int) -> list[Counter[str]]:
    found = []
    for seed in range(seeds):
        frames = [one for name, sizes in chunks.items() for one in brought_home(name, *sizes, seed=seed)]
        table = columns(frames)
        found.append(Counter(frames[index].chunk for index in audit_sample(table, count, seed).tolist()))
    return found


def test_a_chunk_weighs_as_many_accurate_records_as_it_saw() -> None:
    """One with 10 and one with 190 records, three frames of each: the first gives one sample in twenty."""
    seen = shares({"small": (10, 3), "large": (190, 3)}, 1, 1500)
    small = sum(found["small"] for found in seen)
    low, high = binom.interval(1 - 1e-5, 1500, 0.05)
    assert low <= small <= high


def test_numbers_per_chunk_are_those_of_drawing_from_all_records() -> None:
    seen = shares({"a": (30, 3), "b": (60, 3)}, 3, 1200)
    observed = Counter(found["a"] for found in seen)
    expected = [1200 * hypergeom.pmf(n, 90, 30, 3) for n in range(4)]
    assert chisquare([observed[n] for n in range(4)], expected).pvalue > 1e-5


@pytest.mark.parametrize(
    ("count", "chunks"), [(6, 10), (12, 40), (10, 80), (50, 500), (5, 1), (0, 9), (3000, 72), (1200, 4)]
)
def test_chunks_bring_home_what_a_uniform_sample_may_take_of_them(count: int, chunks: int) -> None:
    enough = frames_for_audit(count, chunks)
    most = chunks * binom.sf(enough, count, min(1, 4 / chunks))
    assert enough <= count and most < 1e-3, "also if one chunk in four brings home anything"
    assert enough == 0 or chunks * binom.sf(enough - 1, count, min(1, 4 / chunks)) >= 1e-3, "and not more than that"


def test_every_record_of_a_chunk_has_the_same_chance() -> None:
    counts: Counter[str] = Counter()
    for seed in range(1200):
        frames = brought_home("a", 6, 3, seed)
        counts.update(frames[index].identity for index in audit_sample(columns(frames), 2, seed).tolist())
    assert chisquare([counts[f"a.{n}"] for n in range(6)]).pvalue > 1e-5


def test_sample_depends_on_the_seed_and_not_on_the_order() -> None:
    frames = [one for chunk in "abcdef" for one in brought_home(chunk, 50, 4)]
    order = np.random.default_rng(1).permutation(len(frames)).tolist()
    samples = set()
    for seed in range(10):
        sample = [frames[index].identity for index in audit_sample(columns(frames), 5, seed).tolist()]
        shuffled = [frames[index] for index in order]
        assert [shuffled[index].identity for index in audit_sample(columns(shuffled), 5, seed).tolist()] == sample
        samples.add(tuple(sample))
    assert len(samples) == 10


def test_audit_is_drawn_whatever_else_is_picked() -> None:
    """Neither a pick nearby nor a full trajectory keeps an accurate frame out: the errors there count too."""
    audit = [one for chunk in "abc" for one in brought_home(chunk, 40, 4)]
    crowd = [Candidate(f"c{n}", "abc"[n % 3], 0.01 * n, "glass 300K", "candidate", "candidate", 0.5) for n in range(40)]
    alone = [audit[index].identity for index, _ in pick(audit, set(), RULES, 5)]
    both = pick([*audit, *crowd], set(), RULES, 5)
    assert [audit[index].identity for index, reason in both if reason == "audit"] == alone
    assert len(alone) == RULES.audit and len(both) > RULES.audit


def test_frame_drawn_that_is_known_takes_its_place_in_the_sample() -> None:
    """It has a label already; drawing another for it would prefer what nobody asked about otherwise."""
    audit = [one for chunk in "abc" for one in brought_home(chunk, 40, 4)]
    first = [audit[index].identity for index, _ in pick(audit, set(), RULES, 5)]
    second = [audit[index].identity for index, _ in pick(audit, {first[1]}, RULES, 5)]
    assert second == [first[0], *first[2:]]


def test_frame_of_the_audit_that_shows_an_event_stays_in_it() -> None:
    frames = [
        Candidate(f"{n}", "t", float(n), "s", "accurate", "overlap", 0.1, frozenset({"overlap"}), audit_of=9, chunk="c")
        for n in range(3)
    ]
    assert len(audit_sample(columns(frames), 3, 1)) == 3


def test_few_frames_none_and_too_many() -> None:
    frames = brought_home("a", 2, 2)
    assert len(audit_sample(columns(frames), 5, 1)) == 2
    assert len(audit_sample(columns([]), 5, 1)) == len(audit_sample(columns(frames), 0, 1)) == 0
    lost = [Candidate("x", "t", 0.0, "s", "accurate", "audit", float("nan"))]
    assert len(audit_sample(columns(lost), 5, 1)) == 0
    with pytest.raises(ValueError, match="chunk a brought home more"):
        audit_sample(columns([*frames, *brought_home("a", 2, 1, seed=3)]), 5, 1)
