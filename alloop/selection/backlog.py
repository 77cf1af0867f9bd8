"""Frames that wait for a free label slot: ranked within the rules of selection, dropped once the models know them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alloop.selection.picks import BEFORE_LOSS, LARGEST, Candidate, Made, Rules, columns

if TYPE_CHECKING:  # the state of a campaign is read without them
    from alloop.selection.choice import Choice
    from alloop.selection.diversity import Environments, Known

Entry = tuple[Candidate, Any]
"""A frame, and what the campaign needs of it to ask for its label."""


@dataclass
class _Round:
    """What one ensemble's exploration has brought home and not yet been asked about; strata: so many are planned."""

    choice: Choice
    strata: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)

    def put(self, entries: list[Entry], known: set[str]) -> None:
        """Queue frames, of those with the same content the first."""
        own = {entry[0].identity: entry for entry in reversed(entries)}
        new = [own[name] for name in sorted(own) if not self.choice.holds(name)]
        if not new:
            return
        first = self.choice.accepted
        for number, index in enumerate(self.choice.add(columns([entry[0] for entry in new]), known).tolist()):
            self.entries[first + number] = new[index]

    def waiting(self) -> list[Entry]:
        """Return the frames that may still be asked about; the others are forgotten."""
        self.entries = {number: own for number, own in self.entries.items() if self.choice.is_waiting(number)}
        return list(self.entries.values())


class Backlog:
    """The ranked frames of every ensemble whose exploration is not closed yet, newest ensemble first.

    The rules are those of `picks.pick`, applied whenever a frame is asked for to the chunks that have come home. The
    order depends on the seeds and on the frames that are there, not on the order in which they came, so that a
    backlog filled again from disk, picks first, goes on as the one before would have.

    exploring: iterations of which chunks are still to end. Of these each stratum is served an equal share at most
    (`Choice.expect`), so that those whose chunks end late find labels left; then all that is left goes to any.
    """

    def __init__(self) -> None:
        self._rounds: dict[int, _Round] = {}
        self._diversity: Known | None = None
        self.known: set[str] = set()
        self.exploring: set[int] = set()

    @property
    def compares(self) -> bool:
        """Tell whether it counts for the rank of a frame how new it is beside training data."""
        return self._diversity is not None

    def compare_with(self, training: Known) -> None:
        """Rank by how new frames are beside the environments of training data, from now on.

        Call it before rounds are opened, and again as newer training data are there; with labels in flight added, as
        nothing of what was compared with before is kept.
        """
        self._diversity = training
        for own in self._rounds.values():
            self._refill(own, own.waiting())

    def _refill(self, own: _Round, entries: list[Entry]) -> None:
        own.choice, own.entries = own.choice.again(self._diversity), {}
        own.put(entries, self.known)

    def open_round(self, iteration: int, rules: Rules, seed: int, strata: int = 0) -> None:
        """Begin to collect the frames of an iteration that explores so many strata; 0: none waits for another."""
        from alloop.selection.choice import Choice

        if iteration not in self._rounds:
            self._rounds[iteration] = _Round(Choice(rules, seed, self._diversity), strata)

    def close_round(self, iteration: int) -> None:
        """Forget what is left of an iteration."""
        self._rounds.pop(iteration, None)

    def add(self, iteration: int, entries: Iterable[Entry]) -> None:
        """Take in the frames of one chunk; those that are accurate without an event, or known already, are left out."""
        own = self._rounds.get(iteration)
        if own is not None:
            own.put(list(entries), self.known)

    def note_pick(
        self,
        iteration: int,
        identity: str,
        reason: str,
        trajectory: str,
        stratum: str,
        time: float,
        temperature_K: float = float("nan"),
    ) -> None:
        """Count a frame that was decided on, from now or from before a restart; once, however often it is told."""
        self.known.add(identity)
        own = self._rounds.get(iteration)
        if own is not None:
            own.choice.note_made(Made(identity, reason, trajectory, stratum, time, temperature_K))

    def _choice(self, iteration: int) -> Choice:
        own = self._rounds[iteration]
        own.choice.expect(own.strata if iteration in self.exploring else 0)
        return own.choice

    def newest(self) -> int | None:
        """Return the newest iteration that has a frame to ask about, None if there is none."""
        return next((i for i in sorted(self._rounds, reverse=True) if self.open(i)), None)

    def open(self, iteration: int) -> bool:
        """Tell whether an iteration has a frame to ask about now within its rules: exactly if `take` finds one."""
        return iteration in self._rounds and bool(self._choice(iteration).take(1))

    def size(self) -> int:
        """Return how many frames wait, at most as many as the rules let be asked about now.

        Those that wait for other strata are not counted: were exploration held back for them, it would never end.
        """
        return sum(self._choice(iteration).askable for iteration in self._rounds)

    def take(self, iteration: int, count: int) -> list[tuple[str, Any]]:
        """Return (reason, record) of the best `count` frames, without deciding: `note_pick` makes it so."""
        entries = self._rounds[iteration].entries
        return [(best.reason, entries[best.number][1]) for best in self._choice(iteration).take(count)]

    def of(self, iterations: Iterable[int]) -> list[tuple[int, Entry]]:
        """Return all frames of some iterations."""
        return [(i, entry) for i in iterations if i in self._rounds for entry in self._rounds[i].waiting()]

    def iterations(self) -> list[int]:
        """Return the iterations that are collected, oldest first."""
        return sorted(self._rounds)

    def rerank(
        self,
        deviations_eV_A: Mapping[str, float],
        trust_eV_A: Callable[[Candidate], tuple[float, float]],
        offending: Mapping[str, Environments] | None = None,
    ) -> int:
        """Judge waiting frames by a newer ensemble's largest force deviation; return how many were dropped.

        deviations_eV_A: by identity; trust_eV_A: low and high level that hold for a frame; offending: by identity the
        environment of the atom of largest deviation by that ensemble, where it is known. What is accurate now, or
        beyond trust, is no candidate any more; events and last good frames before a loss stay, as they ask for
        labels also where the ensemble agrees.
        """
        dropped = 0
        for own in self._rounds.values():
            left: list[Entry] = []
            for candidate, record in own.waiting():
                deviation, (low, high) = deviations_eV_A.get(candidate.identity), trust_eV_A(candidate)
                if deviation is None:
                    left.append((candidate, record))
                elif low <= deviation < high:
                    newer = replace(candidate, max_force_deviation_eV_A=deviation, trust_class="candidate")
                    left.append((_by_newer_atom(newer, offending), record))
                elif candidate.events or candidate.kept_for == BEFORE_LOSS:
                    still = BEFORE_LOSS if candidate.kept_for == BEFORE_LOSS else ""
                    calm = replace(candidate, trust_class="accurate", kept_for=still)
                    left.append((replace(calm, max_force_deviation_eV_A=deviation), record))
                else:
                    dropped += 1
            self._refill(own, left)
        return dropped


def _by_newer_atom(candidate: Candidate, offending: Mapping[str, Environments] | None) -> Candidate:
    found = (offending or {}).get(candidate.identity)
    return candidate if found is None else replace(candidate, offending={**candidate.offending, LARGEST: found})
