"""Where the replicas of a quench begin: at frames of the bootstrap that are drawn together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from campaign_kit import param

from alloop.decisions import production
from alloop.decisions.exploration import Starts, _composition
from alloop.decisions.production import decide_quench
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.state import State, quench_runs

GLASS = "LBS-20-60-20"
COMPOSITION = _composition(Counter(stoichiometric_counts(TABLE_1[GLASS], 84)))


def starts_of(frames: list[tuple[str, float]]) -> Starts:
    """Starts from frames of which the source and the temperature (K) are given, each source a task of its own."""
    own = object.__new__(Starts)
    seen: Counter[str] = Counter()
    own.frames, own.param_glasses = [], {GLASS: {"name": GLASS}}
    for source, temperature_K in frames:
        name = f"{GLASS}.n84.{source}"
        own.frames.append((source, seen[source], COMPOSITION, temperature_K, "training", name))
        seen[source] += 1
    return own


def drawn(starts: Starts, seed: int, count: int) -> list[tuple[str, int]]:
    found = starts.apart(GLASS, 84, 2000.0, "training", seed, count)
    return [(one["task"], one["frame"]) for one in found]


def test_frames_drawn_together_differ_and_come_from_different_trajectories_while_there_are_any() -> None:
    hot = starts_of([("a", 2000.0), ("a", 1990.0), ("b", 2000.0), ("c", 2000.0), *[("d", 300.0)] * 12])
    found = [drawn(hot, seed, 3) for seed in range(40)]
    assert all(sorted(task for task, _ in own) == ["a", "b", "c"] for own in found), "the four hottest, three sources"
    assert len({tuple(own) for own in found}) > 3, "the seed decides"
    assert drawn(hot, 5, 3) == drawn(hot, 5, 3)
    assert all(len(set(drawn(hot, seed, 4))) == 4 for seed in range(40)), "then two of one trajectory"
    assert all(len(set(drawn(hot, seed, 16))) == 16 for seed in range(5)), "cold ones before one is taken twice"


def test_a_frame_is_given_twice_only_if_there_are_too_few() -> None:
    few = starts_of([("a", 2000.0), ("a", 2000.0), ("b", 2000.0)])
    for seed in range(20):
        counts = Counter(drawn(few, seed, 5))
        assert sorted(counts.values()) == [1, 2, 2]


def test_an_exploration_draws_from_the_nearest_quarter_or_three_as_before() -> None:
    many = starts_of([("a", 100.0 * k) for k in range(21)])
    for seed in range(20):
        near = np.array([20, 19, 18, 17, 16])
        expected = int(np.random.default_rng(seed).choice(near))
        assert many.fresh(GLASS, 84, 2000.0, "training", seed) == {"task": "a", "frame": expected}


@pytest.mark.parametrize("seed", range(12))
def test_replicas_of_a_quench_begin_at_different_frames(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    four = [("a", 2000.0), ("b", 2000.0), ("c", 2000.0), ("d", 2000.0), *[("a", 300.0)] * 12]
    monkeypatch.setattr(production, "Starts", lambda campaign: starts_of(four))
    own: Any = param(seed=seed, quench={"protocol": "short", "when": "always", "n_atoms": [84], "replicas": 3})

    class Bare:
        state = State()

    Bare.state.decisions["bootstrap", -1] = {"tasks": []}
    decision = decide_quench(Bare(), own, 2)  # type: ignore[arg-type]
    first = [run["chunks"][0]["spec"] for run in quench_runs(decision)]
    assert len({spec["start"]["task"] for spec in first}) == 3
    assert len({spec["seed"] for spec in first}) == 3, "their velocities differ, too"
