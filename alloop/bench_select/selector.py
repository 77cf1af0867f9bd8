"""The selector under test, behind one function each: diversity on descriptors, and the whole of it.

The only place of this package that knows how a campaign selects.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from alloop.bench_select.view import PoolView
from alloop.selection.diversity import Environments, Known, Scale
from alloop.selection.picks import AUDIT, BEFORE_LOSS, LARGEST, Candidate, pick

_BLOCK = 4096


def farthest_first(points: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    """Return up to n indices of points (P, D), each the farthest from all known (M, D) and chosen before it.

    The greedy 2-approximation of the k-center problem, T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985). With nothing
    known the point farthest from the mean comes first. A point at distance 0 of a known or chosen one is never taken;
    of equally far points the first is.
    """
    points = np.asarray(points, dtype=float)
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    if len(known):
        blocks = (known[start : start + _BLOCK] for start in range(0, len(known), _BLOCK))
        nearest = np.min([cdist(points, block).min(axis=1) for block in blocks], axis=0)
    else:
        nearest = np.linalg.norm(points - points.mean(axis=0), axis=1)
        first = int(nearest.argmax())
        nearest = np.where(np.arange(len(points)) == first, np.inf, np.linalg.norm(points - points[first], axis=1))
    chosen: list[int] = []
    while len(chosen) < n and nearest.max() > 0:
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
        nearest[index] = 0.0
    return np.array(chosen, dtype=np.int64)


def diversity(view: PoolView, n: int, seed: int) -> np.ndarray:
    """Return the frames whose averaged descriptors are farthest from those labelled and from each other."""
    means, frames = view.frame_means(), view.open
    return frames[farthest_first(means[frames], means[view.labelled], n)]


def full(view: PoolView, n: int, seed: int) -> np.ndarray:
    """Return what a campaign's selector picks: a random audit, events within quotas per temperature band, candidates.

    Events go by how new their offending atoms are, against all atoms of labelled frames and each other, candidates by
    that times their deviation.
    How many of what, and how far apart, the view's `Ruleset` says.
    """
    atoms = Environments(view.elements, view.descriptors)
    known = Known(Scale.fit(atoms))
    known.cover(atoms[np.repeat(view.labelled, np.diff(view.first_atom))])
    rules = view.ruleset.rules(n, len(set(view.trajectory.tolist())))
    frames, classes = view.open, view.trust_class
    asked_before = {str(view.identity[index]) for index in np.flatnonzero(view.labelled)}
    candidates = [_candidate(view, int(index), str(classes[index]), atoms) for index in frames]
    return frames[[index for index, _ in pick(candidates, asked_before, rules, seed, known)]]


def _candidate(view: PoolView, index: int, trust: str, atoms: Environments) -> Candidate:
    first = int(view.first_atom[index])
    offending = {LARGEST: atoms[[first + int(view.offending_atom[index])]]}
    offending |= {event: atoms[first + found] for event, found in view.events[index].items()}
    return Candidate(
        identity=str(view.identity[index]),
        trajectory=str(view.trajectory[index]),
        time_ps=float(view.time_ps[index]),
        stratum=str(view.stratum[index]),
        trust_class=trust,
        kept_for=BEFORE_LOSS if view.before_loss[index] else AUDIT,
        max_force_deviation_eV_A=float(view.max_deviation_eV_A[index]),
        events=frozenset(view.events[index]),
        temperature_K=float(view.temperature_K[index]),
        offending=offending,
        audit_of=1,
    )
