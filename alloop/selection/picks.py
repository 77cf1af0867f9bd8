"""Which of the frames that came home are asked about: strata with quotas, spread over trajectories, seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """One frame that could be labelled.

    identity: content key of its label, equal for equal frames; trajectory: what it was drawn from; time_ps: along
    that trajectory; stratum: glass and temperature; trust_class: accurate, candidate or failed; kept_for: why it came
    home (candidate, audit, before_loss, or an event); events: which events it shows.
    """

    identity: str
    trajectory: str
    time_ps: float
    stratum: str
    trust_class: str
    kept_for: str
    max_force_deviation_eV_A: float
    events: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rules:
    """How many picks of which kind: see `SelectParam` in the configuration."""

    max_labels: int
    max_per_trajectory: int
    min_separation_ps: float
    audit: int
    event_quota: dict[str, int] = field(default_factory=dict)


def pick(frames: Sequence[Candidate], known: set[str], rules: Rules, seed: int) -> list[tuple[int, str]]:
    """Return (index, reason) of the frames to label, in order of choice.

    Strata are served one after the other, each up to its quota: events (also where the ensemble agrees), the audit
    (accurate frames at random), and candidates with what is left. Within a stratum the draw goes round over glass
    and temperature, at random within each; a trajectory gives at most `max_per_trajectory` picks, none closer in
    time than `min_separation_ps`. Nothing in `known` (identities already labelled or asked for) is picked,
    nothing twice, and no frame whose deviation is not finite. The same frames, in any order, and the same seed
    give the same picks.
    """
    taken: set[str] = set(known)
    times: dict[str, list[float]] = {}
    picks: list[tuple[int, str]] = []
    order = [i for i in _seeded_order(frames, seed) if math.isfinite(frames[i].max_force_deviation_eV_A)]

    def serve(reason: str, members: list[int], quota: int) -> None:
        for index in _round_robin(members, frames):
            frame = frames[index]
            earlier = times.setdefault(frame.trajectory, [])
            if quota <= 0 or len(picks) >= rules.max_labels:
                return
            close = any(abs(frame.time_ps - time) < rules.min_separation_ps for time in earlier)
            if frame.identity in taken or close or len(earlier) >= rules.max_per_trajectory:
                continue
            taken.add(frame.identity)
            earlier.append(frame.time_ps)
            picks.append((index, reason))
            quota -= 1

    for event, quota in sorted(rules.event_quota.items()):
        serve(event, [i for i in order if event in frames[i].events], quota)
    serve("audit", [i for i in order if frames[i].kept_for == "audit"], rules.audit)
    asked = [i for i in order if frames[i].trust_class == "candidate" or frames[i].kept_for == "before_loss"]
    serve("candidate", asked, rules.max_labels)
    return picks


def _seeded_order(frames: Sequence[Candidate], seed: int) -> list[int]:
    """Return all indices in an order that depends on the seed and the frames' content, not on their order."""
    sorted_indices = sorted(
        range(len(frames)), key=lambda i: (frames[i].identity, frames[i].trajectory, frames[i].time_ps)
    )
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(len(frames))
    return [sorted_indices[i] for i in shuffled]


def _round_robin(members: list[int], frames: Sequence[Candidate]) -> list[int]:
    """Return the members so that strata alternate, each stratum keeping its order."""
    turn: dict[str, int] = {}
    keyed = []
    for position, index in enumerate(members):
        stratum = frames[index].stratum
        turn[stratum] = turn.get(stratum, -1) + 1
        keyed.append((turn[stratum], position, index))
    return [index for _, _, index in sorted(keyed)]
