"""Which of the frames that came home are asked about: strata with shares, events with quotas, the new first, seeded."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the state of a campaign is read without them
    import numpy as np

    from alloop.selection.diversity import Environments, Known

LARGEST = "candidate"
"""The reason of frames that are uncertain, and the key of their offending atom: the one of largest deviation."""
BEFORE_LOSS = "before_loss"
BEYOND_TRUST = "beyond_trust"
AUDIT = "audit"


@dataclass(frozen=True)
class Candidate:
    """One frame that could be labelled.

    identity: content key of its label, equal for equal frames; trajectory: what it was drawn from; time_ps: along
    that trajectory; stratum: glass and temperature; trust_class: accurate, candidate or failed; kept_for: why it came
    home (candidate, audit, before_loss, or an event); events: which events it shows; temperature_K: what puts it into
    a temperature band; offending: per reason (an event, or "candidate") the environments of the atoms that give it.
    audit_of: how many records of its chunk stood behind the random draw it came home in, 0 if it was not drawn;
    chunk: the name of that draw.
    """

    identity: str
    trajectory: str
    time_ps: float
    stratum: str
    trust_class: str
    kept_for: str
    max_force_deviation_eV_A: float
    events: frozenset[str] = frozenset()
    temperature_K: float = float("nan")
    offending: Mapping[str, Environments] = field(default_factory=dict, compare=False)
    audit_of: int = 0
    chunk: str = ""


@dataclass(frozen=True)
class Rules:
    """How many picks of which kind: see `SelectParam` in the configuration.

    event_quota: per event and temperature band; bands_K: ascending temperatures at which one band ends and the next
    begins, one band if there are none (a frame without a temperature is in the last); before_loss: last good frames
    before a trajectory was lost; novelty: an event whose offending atoms all are nearer than this to what is known is
    no reason to ask, in the unit of `diversity.Scale` (for other reasons only a duplicate is none); event_share: of
    `max_labels`, what events may take together, whatever their quotas: the rest is for candidates.
    """

    max_labels: int
    max_per_trajectory: int
    min_separation_ps: float
    audit: int
    event_quota: Mapping[str, int] = field(default_factory=dict)
    bands_K: tuple[float, ...] = ()
    before_loss: int = 5
    novelty: float = 0.1
    event_share: float = 0.5

    @property
    def most_events(self) -> int:
        """Return how many picks all events together may make."""
        return math.floor(self.event_share * self.max_labels + 1e-9)

    def band(self, temperature_K: float) -> int:
        """Return the number of the temperature band, from 0; a limit belongs to the band above it."""
        return bisect_right(self.bands_K, temperature_K) if temperature_K == temperature_K else len(self.bands_K)


class Made(NamedTuple):
    """A pick that was made earlier; temperature_K: what put it into a temperature band, NaN if that is not known."""

    identity: str
    reason: str
    trajectory: str
    stratum: str
    time_ps: float
    temperature_K: float = math.nan


@dataclass(frozen=True)
class Offending:
    """The offending atoms of F frames, as one table of n environments.

    frames (n,): which frame; reasons (n,) int8: 0 for the atom of largest deviation, 1 + e for event e of the frames.
    """

    frames: np.ndarray
    reasons: np.ndarray
    environments: Environments


@dataclass(frozen=True)
class Frames:
    """F frames that could be labelled, as columns: see `Candidate`.

    identities (F,) strings; trajectories, strata, chunks (F,) numbers into the names; trust (F,) int8, an index into
    `classes.CLASSES`; events (F, E) bool. Of frames without `offending` atoms candidates are taken by their deviation,
    others in seeded random order.
    """

    identities: np.ndarray
    trajectories: np.ndarray
    times_ps: np.ndarray
    strata: np.ndarray
    temperatures_K: np.ndarray
    trust: np.ndarray
    max_force_deviations_eV_A: np.ndarray
    before_loss: np.ndarray
    audit_of: np.ndarray
    chunks: np.ndarray
    events: np.ndarray
    trajectory_names: Sequence[str]
    stratum_names: Sequence[str]
    chunk_names: Sequence[str]
    event_names: Sequence[str]
    offending: Offending | None = None

    def __len__(self) -> int:
        return len(self.identities)

    def describe(self, index: int) -> str:
        """Return what tells a frame from any other: its content, and where it was found."""
        name = self.trajectory_names[int(self.trajectories[index])]
        return f"{self.identities[index]}/{name}/{float(self.times_ps[index])!r}"


def columns(candidates: Sequence[Candidate]) -> Frames:
    """Return candidates as columns. A draw for the audit of unknown extent counts as if all it drew from came home."""
    import numpy as np

    from alloop.selection.classes import CLASSES

    events = sorted(set().union(*(one.events for one in candidates)))
    trajectories, trajectory_names = _numbered([one.trajectory for one in candidates])
    strata, stratum_names = _numbered([one.stratum for one in candidates])
    chunks, chunk_names = _numbered(
        [one.chunk or f"{one.identity}/{one.trajectory}/{one.time_ps!r}" for one in candidates]
    )
    return Frames(
        np.array([one.identity for one in candidates], dtype=str),
        trajectories,
        np.array([one.time_ps for one in candidates], dtype=float),
        strata,
        np.array([one.temperature_K for one in candidates], dtype=float),
        np.array([CLASSES.index(one.trust_class) for one in candidates], dtype=np.int8),
        np.array([one.max_force_deviation_eV_A for one in candidates], dtype=float),
        np.array([one.kept_for == BEFORE_LOSS for one in candidates], dtype=bool),
        np.array([one.audit_of or int(one.kept_for == AUDIT) for one in candidates], dtype=int),
        chunks,
        np.array([[event in one.events for event in events] for one in candidates], dtype=bool).reshape(
            len(candidates), len(events)
        ),
        trajectory_names,
        stratum_names,
        chunk_names,
        events,
        _offending(candidates, events),
    )


def _numbered(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    import numpy as np

    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int32), list(numbers)


def _offending(candidates: Sequence[Candidate], events: Sequence[str]) -> Offending | None:
    import numpy as np

    from alloop.selection.diversity import Environments

    codes = {LARGEST: 0} | {event: 1 + number for number, event in enumerate(events)}
    parts = [
        (frame, codes[reason], found)
        for frame, one in enumerate(candidates)
        for reason, found in one.offending.items()
        if reason in codes and len(found)
    ]
    if not parts:
        return None
    counts = [len(found) for _, _, found in parts]
    return Offending(
        np.repeat(np.array([frame for frame, _, _ in parts], dtype=np.int32), counts),
        np.repeat(np.array([code for _, code, _ in parts], dtype=np.int8), counts),
        Environments.together(found for _, _, found in parts),
    )


def pick(
    frames: Sequence[Candidate] | Frames,
    known: set[str],
    rules: Rules,
    seed: int,
    diversity: Known | None = None,
    before: Sequence[Made] = (),
) -> list[tuple[int, str]]:
    """Return (index, reason) of the frames to label, in order of choice.

    First the audit: `rules.audit` of all usable records at random (`audit.audit_sample`), whatever else is picked;
    those of the sample that are `known` have a label already and are left out. Then, each up to its quota: events per
    temperature band (also where the ensemble agrees; those served least in turn, all together up to
    `rules.most_events`), last good frames before a loss, and candidates, whose strata of glass and temperature take
    turns, half of the places for all alike and half by the deviation that came home. Among these the frame whose
    offending atoms are farthest from all that is in `diversity` and from the frames chosen before comes first, for
    candidates by that distance times their deviation; an event nearer than `rules.novelty` shows nothing new, and a
    duplicate never does. Frames without described atoms follow, candidates by deviation and others in random order. A
    trajectory gives at most `max_per_trajectory` of these, the audit not counted, none closer in time than
    `min_separation_ps` to any pick before it, the audit included. Nothing in `known` (identities already labelled or
    asked for) is picked, nothing twice, and no frame whose deviation is not finite. Picks made `before` count for every
    rule, as if chosen here first. The same frames, in any order, and the same seed give the same picks. What is chosen
    is added to `diversity`.
    """
    from alloop.selection.audit import audit_sample
    from alloop.selection.choice import Choice

    table = frames if isinstance(frames, Frames) else columns(frames)
    choice = Choice(rules, seed, diversity)
    for made in before:
        choice.note_made(made)
    most = max(0, rules.max_labels - len(before))
    picks: list[tuple[int, str]] = []
    for index in audit_sample(table, min(rules.audit, most), seed).tolist():
        identity = str(table.identities[index])
        if identity not in known and identity not in choice.taken:
            choice.note(identity, AUDIT, table.trajectory_names[int(table.trajectories[index])], table.times_ps[index])
            picks.append((index, AUDIT))
    indices = choice.add(table, known)
    while len(picks) < most and (best := choice.best()) is not None:
        picks.append((int(indices[best.number]), best.reason))
        choice.choose(best)
    return picks
