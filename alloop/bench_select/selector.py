"""The selector under test, behind one function each: diversity on descriptors, and the whole of it.

The only place of this package that knows how a campaign selects.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import cdist

from alloop.bench_select.view import PoolView
from alloop.selection.picks import Candidate, Rules, pick

BAND_K = 500.0
EVENT_SHARE, AUDIT_SHARE = 0.1, 0.1
MIN_SEPARATION_PS = 0.05
OVERSAMPLING = 2
"""Picks of each kind before the most different ones are taken of them, as a multiple of what is wanted."""
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
    """Return events within quotas, a random audit, and candidates, spread over glass, temperature and trajectory.

    `alloop.selection.picks.pick` guards trajectories and their separation in time and returns more than is wanted; of
    its picks of one kind those are taken whose atoms (of the event, or the offending one) are most unlike all labelled
    atoms and each other.
    """
    quotas = dict.fromkeys(sorted({event for found in view.events for event in found}), max(1, round(EVENT_SHARE * n)))
    audit = round(AUDIT_SHARE * n)
    rules = Rules(
        max_labels=OVERSAMPLING * n,
        max_per_trajectory=max(1, math.ceil(2 * n / len(set(view.trajectory.tolist())))),
        min_separation_ps=MIN_SEPARATION_PS,
        audit=audit,
        event_quota={event: OVERSAMPLING * quota for event, quota in quotas.items()},
    )
    frames = view.open
    known = {str(view.identity[index]) for index in np.flatnonzero(view.labelled)}
    classes = view.trust_class
    found = pick([_candidate(view, int(index), str(classes[index])) for index in frames], known, rules, seed)
    labelled_atoms = view.atoms_of(np.flatnonzero(view.labelled))
    chosen: list[int] = []
    for reason in (*quotas, "audit", "candidate"):
        members = np.array([frames[index] for index, why in found if why == reason], dtype=np.int64)
        wanted = min(quotas.get(reason, audit if reason == "audit" else n), n - len(chosen))
        if reason == "audit":
            chosen += members[:wanted].tolist()
            continue
        atoms = _representatives(view, members, reason, labelled_atoms)
        chosen += members[farthest_first(atoms, labelled_atoms, wanted)].tolist()
        labelled_atoms = np.concatenate([labelled_atoms, view.atoms_of(np.array(chosen, dtype=np.int64))])
    return np.array(chosen, dtype=np.int64)


def _candidate(view: PoolView, index: int, trust: str) -> Candidate:
    band = view.temperature_K[index] // BAND_K
    return Candidate(
        identity=str(view.identity[index]),
        trajectory=str(view.trajectory[index]),
        time_ps=float(view.time_ps[index]),
        stratum=f"{view.glass[index]} {band:g}",
        trust_class=trust,
        kept_for="audit" if trust == "accurate" else "",
        max_force_deviation_eV_A=float(view.max_deviation_eV_A[index]),
        events=frozenset(view.events[index]),
    )


def _representatives(view: PoolView, frames: np.ndarray, reason: str, known: np.ndarray) -> np.ndarray:
    """Return one descriptor per frame: that of the offending atom, or of the event's atom farthest from all known."""
    if reason == "candidate" or not len(frames):
        return view.offending(frames)
    best = []
    for frame in frames.tolist():
        atoms = view.descriptors[view.first_atom[frame] + view.events[frame][reason]]
        distance = cdist(atoms, known).min(axis=1) if len(known) else np.zeros(len(atoms))
        best.append(atoms[int(distance.argmax())])
    return np.array(best)
