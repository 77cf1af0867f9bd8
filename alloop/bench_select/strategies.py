"""The ways of choosing that are compared, and the rule that makes their answers comparable."""

from __future__ import annotations

import numpy as np

from alloop.bench_select.selector import diversity, full
from alloop.bench_select.view import Choose, PoolView


def random(view: PoolView, n: int, seed: int) -> np.ndarray:
    """Return n frames at random: what every other way has to beat."""
    frames = view.open
    return np.random.default_rng(seed).permutation(frames)[:n]


def dpgen(view: PoolView, n: int, seed: int) -> np.ndarray:
    """Return n candidates at random: DP-GEN shuffles the frames within the trust levels and takes the first ones."""
    frames = view.open
    candidates = frames[view.trust_class[frames] == "candidate"]
    return np.random.default_rng(seed).permutation(candidates)[:n]


def top_deviation(view: PoolView, n: int, seed: int) -> np.ndarray:
    """Return the n frames of the largest force deviation; one that is not a number says nothing and is left out."""
    frames = view.open
    deviation = view.max_deviation_eV_A[frames]
    known = np.isfinite(deviation)
    return frames[known][np.argsort(-deviation[known], kind="stable")[:n]]


METHODS: dict[str, Choose] = {
    "random": random,
    "dpgen": dpgen,
    "top_deviation": top_deviation,
    "diversity": diversity,
    "full": full,
}
"""By name, in the order in which they are reported."""


def choose(method: str, view: PoolView, n: int, seed: int) -> tuple[np.ndarray, int]:
    """Return exactly n open frames, sorted, and how many of them the method chose itself.

    What a method leaves out (no candidates, say) is filled up at random, so that all have the same number of labels.
    ValueError if the pool has too few frames left, or if the method's answer is not made of different open frames.
    """
    if n > len(view.open):
        raise ValueError(f"{n} labels wanted, {len(view.open)} frames are left")
    own = np.asarray(METHODS[method](view, n, seed), dtype=np.int64)
    if len(own) > n or len(np.unique(own)) < len(own) or not np.isin(own, view.open).all():
        raise ValueError(
            f"{method} chose frames {own.tolist()}; expected up to {n} different ones that are not labelled"
        )
    rest = np.random.default_rng([seed, 1]).permutation(np.setdiff1d(view.open, own))
    return np.sort(np.concatenate([own, rest[: n - len(own)]])), len(own)
