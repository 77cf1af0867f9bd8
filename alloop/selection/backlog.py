"""Frames that wait for a free label slot: ranked within the rules of selection, dropped once the models know them."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alloop.selection.picks import Candidate, Rules

if TYPE_CHECKING:  # the state of a campaign is read without it
    import numpy as np

Entry = tuple[Candidate, Any]
"""A frame, and what the campaign needs of it to ask for its label."""


@dataclass
class _Round:
    """What one ensemble's exploration has brought home and not yet been asked about."""

    rules: Rules
    rng: np.random.Generator
    entries: dict[str, Entry] = field(default_factory=dict)
    queues: dict[tuple[str, str], list[tuple[float, str]]] = field(default_factory=dict)
    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=dict)

    def put(self, entry: Entry, priority: float) -> None:
        candidate = entry[0]
        asked = candidate.trust_class == "candidate" or candidate.kept_for == "before_loss"
        reasons = (*sorted(filter(self.wanted, candidate.events)), *(["candidate"] if asked else []))
        if reasons:
            self.entries[candidate.identity] = entry
        for reason in reasons:
            heapq.heappush(self.queues.setdefault((reason, candidate.stratum), []), (priority, candidate.identity))

    def wanted(self, event: str) -> bool:
        """Tell whether the quota of an event leaves room."""
        return self.reasons[event] < self.rules.event_quota.get(event, 0)

    def allowed(self, candidate: Candidate) -> bool:
        """Tell whether the rules of a trajectory leave room for this frame; once they do not, they never will."""
        times = self.times.get(candidate.trajectory, ())
        if len(times) >= self.rules.max_per_trajectory or not math.isfinite(candidate.max_force_deviation_eV_A):
            return False
        return all(abs(candidate.time_ps - time) >= self.rules.min_separation_ps for time in times)

    def head(self, queue: tuple[str, str]) -> str | None:
        """Return the identity of the best frame of a queue; frames no longer wanted are thrown off it."""
        heap = self.queues[queue]
        while heap:
            entry = self.entries.get(heap[0][1])
            if entry is not None and self.allowed(entry[0]):
                return heap[0][1]
            heapq.heappop(heap)
            if entry is not None:
                self.entries.pop(entry[0].identity)
        return None

    def best(self) -> tuple[str, str] | None:
        """Return (reason, identity) of the best frame: events below their quota first, then strata in turn."""
        room = self.rules.max_labels - self.rules.audit - self.reasons.total()
        if room <= 0:
            return None
        ranked = [
            (reason == "candidate", self.served[reason, stratum], reason, stratum)
            for reason, stratum in self.queues
            if reason == "candidate" or self.wanted(reason)
        ]
        for _, _, reason, stratum in sorted(ranked):
            identity = self.head((reason, stratum))
            if identity is not None:
                return reason, identity
        return None

    def take(self, reason: str, candidate: Candidate) -> None:
        self.entries.pop(candidate.identity, None)
        self.served[reason, candidate.stratum] += 1
        self.reasons[reason] += 1
        self.times.setdefault(candidate.trajectory, []).append(candidate.time_ps)
        if reason != "candidate" and not self.wanted(reason):
            self.forget(reason)

    def forget(self, event: str) -> None:
        """Drop the frames that only an event spoke for whose quota is used up."""
        queues = [queue for queue in self.queues if queue[0] == event]
        heaps = {identity for queue in queues for _, identity in self.queues.pop(queue)}
        others = {identity for heap in self.queues.values() for _, identity in heap}
        for identity in heaps - others:
            self.entries.pop(identity, None)

    def size(self) -> int:
        """Return how many frames wait, at most as many as the rules let be labelled; 0 if none can be."""
        if self.best() is None:
            return 0
        return min(len(self.entries), self.rules.max_labels - self.rules.audit - self.reasons.total())


class Backlog:
    """The ranked frames of every ensemble whose exploration is not closed yet, newest ensemble first."""

    def __init__(self) -> None:
        self._rounds: dict[int, _Round] = {}
        self.known: set[str] = set()

    def open_round(self, iteration: int, rules: Rules, seed: int) -> None:
        """Begin to collect the frames of an iteration."""
        import numpy as np

        self._rounds.setdefault(iteration, _Round(rules, np.random.default_rng(seed)))

    def close_round(self, iteration: int) -> None:
        """Forget what is left of an iteration."""
        self._rounds.pop(iteration, None)

    def add(self, iteration: int, entries: Iterable[Entry]) -> None:
        """Take in the frames of one chunk; those that are accurate without an event, or known already, are left out."""
        own = self._rounds.get(iteration)
        if own is None:
            return
        for entry in sorted(entries, key=lambda entry: entry[0].identity):
            priority = float(own.rng.random())
            if entry[0].identity not in self.known and entry[0].identity not in own.entries:
                own.put(entry, priority)

    def note_pick(self, iteration: int, identity: str, reason: str, trajectory: str, stratum: str, time: float) -> None:
        """Count a frame that was decided on, from now or from before a restart."""
        self.known.add(identity)
        own = self._rounds.get(iteration)
        if own is not None:
            own.take(reason, Candidate(identity, trajectory, time, stratum, "", "", 0.0))

    def newest(self) -> int | None:
        """Return the newest iteration that has a frame to ask about, None if there is none."""
        return next((i for i in sorted(self._rounds, reverse=True) if self._rounds[i].best() is not None), None)

    def open(self, iteration: int) -> bool:
        """Tell whether an iteration has a frame to ask about within its rules."""
        own = self._rounds.get(iteration)
        return own is not None and own.best() is not None

    def size(self) -> int:
        """Return how many frames wait, at most as many as the rules let be labelled."""
        return sum(own.size() for own in self._rounds.values())

    def take(self, iteration: int, count: int) -> list[tuple[str, Any]]:
        """Return (reason, record) of the best `count` frames, without deciding: `note_pick` makes it so."""
        own = self._rounds[iteration]
        trial = replace(
            own,
            entries=dict(own.entries) if count > 1 else own.entries,
            queues={queue: list(heap) for queue, heap in own.queues.items()} if count > 1 else own.queues,
            served=own.served.copy(),
            reasons=own.reasons.copy(),
            times={name: list(times) for name, times in own.times.items()} if count > 1 else own.times,
        )
        found: list[tuple[str, Any]] = []
        while len(found) < count and (best := trial.best()) is not None:
            candidate, record = trial.entries[best[1]]
            found.append((best[0], record))
            if count == 1:
                break
            trial.take(best[0], candidate)
        return found

    def of(self, iterations: Iterable[int]) -> list[tuple[int, Entry]]:
        """Return all frames of some iterations."""
        found = ((i, self._rounds[i].entries.values()) for i in iterations if i in self._rounds)
        return [(i, entry) for i, entries in found for entry in entries]

    def iterations(self) -> list[int]:
        """Return the iterations that are collected, oldest first."""
        return sorted(self._rounds)

    def rerank(self, deviations_eV_A: dict[str, float], trust_low_eV_A: float, trust_high_eV_A: float) -> int:
        """Judge waiting frames by a newer ensemble's largest force deviation; return how many were dropped.

        deviations_eV_A: by identity. What is accurate now, or beyond trust, is no candidate any more; events stay.
        """
        dropped = 0
        for own in self._rounds.values():
            entries, own.entries, own.queues = own.entries, {}, {}
            for identity, (candidate, record) in entries.items():
                deviation = deviations_eV_A.get(identity, candidate.max_force_deviation_eV_A)
                known = not trust_low_eV_A <= deviation < trust_high_eV_A
                trust = "accurate" if known else "candidate"
                kept_for = "" if known else candidate.kept_for
                newer = replace(candidate, max_force_deviation_eV_A=deviation, trust_class=trust, kept_for=kept_for)
                if identity in deviations_eV_A and known and not candidate.events:
                    dropped += 1
                    continue
                changed = newer if identity in deviations_eV_A else candidate
                own.put((changed, record), float(own.rng.random()))
        return dropped
