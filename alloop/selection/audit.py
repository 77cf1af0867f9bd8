"""The random audit: an unbiased sample of all usable records, of which each chunk brought home only a few."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from alloop.selection.picks import Frames


def uniform_hash(seed: int, purpose: str, text: str) -> float:
    """Return a number in [0, 1) that depends on its arguments only and is as good as random over the texts."""
    digest = blake2b(f"{seed}/{purpose}/{text}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53


def frames_for_audit(count: int, chunks: int) -> int:
    """Return how many frames each of some chunks must bring home for a sample of `count` to be uniform.

    The least number that no chunk exceeds with a probability of 99.9 %, also where one chunk stands for four: the
    others may be withdrawn, or lost early.
    """
    from scipy.stats import binom  # its import takes half a second and 40 MB, which choosing can do without

    share = min(1.0, 4 / max(chunks, 1))
    return min(count, int(binom.isf(1e-3 / max(chunks, 1), count, share))) if count else 0


def audit_sample(frames: Frames, count: int, seed: int) -> np.ndarray:
    """Return the indices of `count` frames, or all there are, drawn uniformly from all usable *records*.

    Usable are records inside the hard gates with a finite deviation, accurate or not: those of the sample that are
    accurate are a sample of the accurate region. A chunk of N such records brought home n of them, drawn at random
    (`audit_of` is N for each). Were every record given a uniform random number, the sample would be the records of the
    `count` least; the least n numbers of N follow from uniform V_j as 1 - prod_{i<=j} (1 - V_i)^(1/(N-i+1)) (order
    statistics; A. Rényi, Acta Math. Acad. Sci. Hung. 4, 191 (1953)), which is how chunks that saw more weigh more.
    Exact where each chunk brings home at least min(`count`, N); with fewer, a chunk can never give more than it
    brought (`frames_for_audit`). Depends on the seed and the frames' content, not on their order. ValueError where a
    chunk brought home more than it drew from.
    """
    drawn = np.flatnonzero(frames.audit_of > 0)
    drawn = drawn[np.isfinite(frames.max_force_deviations_eV_A[drawn])]
    if count < 1 or len(drawn) == 0:
        return np.zeros(0, dtype=int)
    texts = [frames.describe(index) for index in drawn.tolist()]
    order = np.array([uniform_hash(seed, "audit order", text) for text in texts])
    draws = np.array([uniform_hash(seed, "audit", text) for text in texts])
    chunks = frames.chunks[drawn]
    by_chunk = np.lexsort((order, chunks))
    rank = _rank_in_group(chunks[by_chunk])
    left = frames.audit_of[drawn][by_chunk] - rank
    if (left < 1).any():
        chunk = frames.chunk_names[int(chunks[by_chunk][left < 1][0])]
        raise ValueError(f"chunk {chunk} brought home more frames for the audit than the records it tells of")
    steps = np.log1p(-draws[by_chunk]) / left
    sums = np.cumsum(steps)
    starts = np.flatnonzero(rank == 0)
    before = np.append(0.0, sums)[starts]
    numbers = -np.expm1(sums - np.repeat(before, np.diff(np.append(starts, len(sums)))))
    return np.asarray(drawn[by_chunk][np.argsort(numbers, kind="stable")][:count])


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
