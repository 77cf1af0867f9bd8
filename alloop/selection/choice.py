"""The rules of selection at work on frames that come all at once or chunk by chunk.

Every frame waits in a queue per reason and place: an event and its temperature band, frames before a loss and
candidates by stratum. Each queue is a heap by how new the frames are, candidates by that times their force deviation:
what is new where the ensemble is sure teaches little, and of what it is unsure of one frame teaches most of its like.
The entries are bounds, looked at again only when they come to the top (see `Frontier`). Strata take turns, half of
the places for all alike and half by the deviation of the candidates that came home, as J. Neyman's allocation (J. R.
Stat. Soc. 97, 558 (1934)) has samples in proportion to number times spread.

What was chosen before, for whatever reason, keeps later picks away: in time along its trajectory, by what it shows, and
by itself. The audit is kept away by nothing, or it would not be random, and takes no trajectory's places.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alloop.selection.audit import uniform_hash
from alloop.selection.classes import CANDIDATE
from alloop.selection.diversity import TOLERANCE, Environments, Known
from alloop.selection.frontier import Column, Frontier
from alloop.selection.picks import AUDIT, BEFORE_LOSS, LARGEST, Frames, Made, Rules

Queue = tuple[str, str]
"""Reason and place: the number of a temperature band for an event, else a stratum."""
_LOOKED_AT_ONCE = 32
_UNIT_eV_A = 1e-6
"""Deviations are summed in whole units of this, so that their order does not matter."""
_UNDESCRIBED = np.inf
"""In a heap the negative of a frame's rank; one of which it is not known how new it is comes last."""


@dataclass(frozen=True)
class Best:
    """The frame that is asked about next."""

    reason: str
    place: str
    number: int
    ask: int


@dataclass
class _Trial:
    """Frames taken without being chosen, and asks looked at meanwhile."""

    taken: set[str] = field(default_factory=set)
    looked: dict[int, int] = field(default_factory=dict)


class Choice:
    """What was chosen in one iteration, and what may be chosen next.

    Frames are numbered in the order `add` accepts them. `served` counts picks per queue, `reasons` per reason. With
    `known` frames go by how new they are, candidates by that times their deviation; what is chosen is added to it.
    Where it is not known how new they are, candidates go by their deviation alone.
    """

    def __init__(self, rules: Rules, seed: int, known: Known | None = None) -> None:
        self.rules, self.seed, self.known = rules, seed, known
        self.served: Counter[Queue] = Counter()
        self.reasons: Counter[str] = Counter()
        self.taken: set[str] = set()
        self.waiting = 0
        self._times: dict[str, tuple[float, ...]] = {}
        self._given: Counter[str] = Counter()
        self._identities: list[str] = []
        self._trajectories: list[str] = []
        self._at_ps = array("d")
        self._queued: list[int] = []
        self._number_of: dict[str, int] = {}
        self._owner = Column()
        self._numbers, self._looked = array("q"), array("q")
        self._weights = array("d")
        self._sums: Counter[Queue] = Counter()
        self._sum_of_all = 0
        self._counted: set[str] = set()
        self._turns: dict[Queue, float] = {}
        self._queues: dict[Queue, list[tuple[float, float, int]]] = {}
        self._frontier = Frontier(known) if known is not None else None
        self._trial: _Trial | None = None
        self._next: tuple[int, Best | None] | None = None
        self._strata = 0

    # -------------------------------------------------------------------------------- what comes in

    @property
    def accepted(self) -> int:
        """Return how many frames `add` has accepted, which is the number of the next."""
        return len(self._identities)

    def again(self, known: Known | None) -> Choice:
        """Return a choice with the same picks made and no frame waiting."""
        new = Choice(self.rules, self.seed, known)
        new.served, new.reasons, new.taken = self.served, self.reasons, self.taken
        new._times, new._given = self._times, self._given
        new._sums, new._sum_of_all = self._sums, self._sum_of_all
        new._counted = self._counted | self._number_of.keys()
        return new

    def add(self, frames: Frames, known: set[str]) -> np.ndarray:
        """Take in frames and return the indices of those that wait now, in order of their numbers.

        Left out are frames no rule asks for, those with a deviation that is not finite, and those `known` by
        identity or chosen already, whose environments count as known from now on.
        """
        asked = self._asked(frames)
        wanted = np.zeros(len(frames), dtype=bool)
        for _, members in asked:
            wanted[members] = True
        named = [str(identity) for identity in frames.identities[wanted].tolist()]
        old = np.array([name in known or name in self.taken for name in named], dtype=bool)
        self._weigh(frames, asked[-1][1], wanted, named)
        self._counted.update(name for name, out in zip(named, old.tolist(), strict=True) if out)
        indices = np.flatnonzero(wanted)[~old]
        self._learn(frames, np.flatnonzero(wanted)[old])
        first = len(self._identities)
        self._identities += [name for name, out in zip(named, old.tolist(), strict=True) if not out]
        self._trajectories += [frames.trajectory_names[n] for n in frames.trajectories[indices].tolist()]
        self._at_ps.extend(frames.times_ps[indices].tolist())
        self._queued += [0] * len(indices)
        for number in range(first, len(self._identities)):
            self._number_of.setdefault(self._identities[number], number)
        number_of = np.full(len(frames), -1, dtype=np.int64)
        number_of[indices] = first + np.arange(len(indices))
        self._put(frames, [(reason, own[number_of[own] >= 0]) for reason, own in asked], number_of)
        self.waiting += sum(count > 0 for count in self._queued[first:])
        self._next = None
        return indices

    def _weigh(self, frames: Frames, candidates: np.ndarray, wanted: np.ndarray, named: list[str]) -> None:
        """Add the deviation of candidates to that of their strata, also of known and chosen ones, each once.

        So the sums are the same whether a frame was chosen before it is told of again or after.
        """
        new = np.zeros(len(frames), dtype=bool)
        new[wanted] = [name not in self._number_of and name not in self._counted for name in named]
        own = candidates[new[candidates]]
        units = np.rint(frames.max_force_deviations_eV_A[own] / _UNIT_eV_A)
        sums = np.bincount(frames.strata[own], units, minlength=len(frames.stratum_names))
        for stratum in np.unique(frames.strata[own]).tolist():
            self._sums[LARGEST, frames.stratum_names[stratum]] += int(sums[stratum])
            self._sum_of_all += int(sums[stratum])

    def _asked(self, frames: Frames) -> list[tuple[str, np.ndarray]]:
        """Return (reason, indices of frames) for every reason there is a quota for, candidates last."""
        usable = np.isfinite(frames.max_force_deviations_eV_A)
        found = [
            (event, np.flatnonzero(usable & frames.events[:, number]))
            for number, event in enumerate(frames.event_names)
            if self.rules.event_quota.get(event, 0) > 0
        ]
        found.append((BEFORE_LOSS, np.flatnonzero(usable & frames.before_loss)))
        found.append((LARGEST, np.flatnonzero(usable & (frames.trust == CANDIDATE))))
        return found

    def _places(self, reason: str, frames: Frames, members: np.ndarray) -> list[str]:
        if reason in (LARGEST, BEFORE_LOSS):
            return [frames.stratum_names[stratum] for stratum in frames.strata[members].tolist()]
        return [str(self.rules.band(kelvin)) for kelvin in frames.temperatures_K[members].tolist()]

    def _put(self, frames: Frames, asked: list[tuple[str, np.ndarray]], number_of: np.ndarray) -> None:
        """Queue the asks of new frames."""
        bounds = self._bounds(frames, asked, number_of)
        version = self.known.version if self.known is not None else 0
        for reason, members in asked:
            numbers = number_of[members].tolist()
            for index, number, place in zip(
                members.tolist(), numbers, self._places(reason, frames, members), strict=True
            ):
                ask, bound = len(self._numbers), next(bounds)
                weight = float(frames.max_force_deviations_eV_A[index]) if reason == LARGEST else 1.0
                self._numbers.append(number)
                self._looked.append(version)
                self._weights.append(weight)
                if bound < self._least(reason) or not self._has_room((reason, place)):
                    continue
                self._queued[number] += 1
                draw = uniform_hash(self.seed, "order", frames.describe(index))
                if bound == bound:
                    item = (-bound * weight, draw, ask)
                else:
                    item = (_UNDESCRIBED, draw - (round(weight / _UNIT_eV_A) if reason == LARGEST else 0), ask)
                heapq.heappush(self._queues.setdefault((reason, place), []), item)

    def _bounds(self, frames: Frames, asked: list[tuple[str, np.ndarray]], number_of: np.ndarray) -> Iterator[float]:
        """Return how new each ask is, reason after reason; NaN where that is not known."""
        total = sum(len(members) for _, members in asked)
        if self._frontier is None:
            return iter([np.nan] * total)
        if frames.offending is None:
            none = Environments(np.zeros(0, dtype=np.int16), np.zeros((0, self._frontier.known.width), np.float32))
            return iter(self._frontier.put(none, np.zeros(0, dtype=np.int64), np.zeros(total, dtype=np.int64)).tolist())
        rows, counts = [], []
        for reason, members in asked:
            own_rows, own_counts = self._rows(frames, reason, members)
            rows.append(own_rows)
            counts.append(own_counts)
        self._owner.extend(number_of[frames.offending.frames].astype(np.int32))
        table = frames.offending.environments
        return iter(self._frontier.put(table, np.concatenate(rows), np.concatenate(counts)).tolist())

    def _rows(self, frames: Frames, reason: str, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the offending atoms of some frames for a reason, frame after frame, and their numbers."""
        assert frames.offending is not None
        code = 0 if reason in (LARGEST, BEFORE_LOSS) else 1 + list(frames.event_names).index(reason)
        position = np.full(len(frames), -1, dtype=np.int64)
        position[members] = np.arange(len(members))
        rows = np.flatnonzero((frames.offending.reasons == code) & (position[frames.offending.frames] >= 0))
        place = position[frames.offending.frames[rows]]
        return rows[np.argsort(place, kind="stable")], np.bincount(place, minlength=len(members))

    def _learn(self, frames: Frames, indices: np.ndarray) -> None:
        if self.known is not None and frames.offending is not None and len(indices):
            self.known.add(frames.offending.environments[np.isin(frames.offending.frames, indices)])

    # -------------------------------------------------------------------------------- what is chosen

    @property
    def room(self) -> int:
        """Return how many more frames may be chosen beside the audit."""
        picked = self.reasons.total() - self.reasons[AUDIT]
        return max(0, self.rules.max_labels - self.rules.audit - picked)

    def expect(self, strata: int) -> None:
        """Keep places for frames to come of so many strata planned; 0 once no more will come."""
        if strata != self._strata:
            self._strata, self._next = strata, None

    @property
    def askable(self) -> int:
        """Return how many frames may be asked about now at most; 0 exactly if `best` finds none."""
        if not self._strata:
            return min(self.waiting, self.room)
        if self.best() is None:
            return 0
        left = (min(len(heap), self._early_share(queue) - self.served[queue]) for queue, heap in self._queues.items())
        return min(sum(max(0, count) for count in left), self.waiting, self.room)

    def _early_share(self, queue: Queue) -> int:
        """Return how many picks a queue may have while frames are still to come.

        An equal share for each place of its kind, rounded down but one at least, so that what comes late finds places
        left: for candidates of all that events and losses have not taken.
        """
        if not self._strata:
            return self.rules.max_labels
        most, places = self.room + self.reasons[LARGEST], self._strata
        if queue[0] == BEFORE_LOSS:
            most = self.rules.before_loss
        elif queue[0] != LARGEST:
            events = sum(quota > 0 for quota in self.rules.event_quota.values())
            most, places = self.rules.most_events, events * (len(self.rules.bands_K) + 1)
        return max(1, most // places)

    def is_waiting(self, number: int) -> bool:
        """Tell whether a frame may still be chosen; whether it is still new was looked at for the best ones only."""
        return self._queued[number] > 0 and self._allowed(number)

    def holds(self, identity: str) -> bool:
        """Tell whether a frame of this content waits."""
        number = self._number_of.get(identity)
        return number is not None and self.is_waiting(number)

    def best(self) -> Best | None:
        """Return the frame to ask about next, None if the rules leave none.

        Events come first, then frames before a loss, then candidates; of the queues of one kind the one that was
        served least (a stratum of candidates: beside its share), of those in an order that the seed decides.
        """
        version = self.known.version if self.known is not None else 0
        if self._trial is not None or self._next is None or self._next[0] != version:
            self._next = version, self._search()
        return self._next[1]

    def _search(self) -> Best | None:
        for queue in sorted(self._queues, key=self._turn):
            if self.served[queue] >= self._early_share(queue):
                continue
            ask = self._head(queue)
            if ask is not None:
                return Best(*queue, self._numbers[ask], ask)
            del self._queues[queue]
        return None

    def _least(self, reason: str) -> float:
        """Return how new a frame must be: for an event as the rules say, else just no duplicate."""
        return TOLERANCE if reason in (LARGEST, BEFORE_LOSS) else max(self.rules.novelty, TOLERANCE)

    def _turn(self, queue: Queue) -> tuple[int, float, float]:
        kind = {LARGEST: 2, BEFORE_LOSS: 1}.get(queue[0], 0)
        share = 1 + len(self._sums) * self._sums[queue] / max(1, self._sum_of_all)
        if queue not in self._turns:
            self._turns[queue] = uniform_hash(self.seed, "turn", "/".join(queue))
        return kind, self.served[queue] / share, self._turns[queue]

    def _has_room(self, queue: Queue) -> bool:
        if queue[0] == LARGEST:
            return True
        if queue[0] == BEFORE_LOSS:
            return self.reasons[BEFORE_LOSS] < self.rules.before_loss
        of_events = self.reasons.total() - sum(self.reasons[reason] for reason in (AUDIT, BEFORE_LOSS, LARGEST))
        return of_events < self.rules.most_events and self.served[queue] < self.rules.event_quota.get(queue[0], 0)

    def _allowed(self, number: int) -> bool:
        """Tell whether the rules leave room for this frame; once they do not, they never will."""
        identity = self._identities[number]
        if identity in self.taken or (self._trial is not None and identity in self._trial.taken):
            return False
        trajectory, at_ps = self._trajectories[number], self._at_ps[number]
        return self._given[trajectory] < self.rules.max_per_trajectory and all(
            not (abs(at_ps - time) < self.rules.min_separation_ps) for time in self._times.get(trajectory, ())
        )

    def _head(self, queue: Queue) -> int | None:
        """Return the first ask of a queue by rank that is allowed; those that never will be are thrown off it."""
        heap = self._queues[queue]
        if not self._has_room(queue):
            while heap:
                self._drop(heapq.heappop(heap)[2])
        while heap:
            ask = heap[0][2]
            if not self._allowed(self._numbers[ask]):
                self._drop(heapq.heappop(heap)[2])
            elif self._frontier is None or heap[0][0] == _UNDESCRIBED or self._is_fresh(ask):
                return ask
            else:
                self._look_again(heap, self._least(queue[0]))
        return None

    def _is_fresh(self, ask: int) -> bool:
        looked = self._looked[ask]
        if self._trial is not None:
            looked = self._trial.looked.get(ask, looked)
        return self.known is not None and looked == self.known.version

    def _look_again(self, heap: list[tuple[float, float, int]], least: float) -> None:
        """Bring the top of a heap up to date, several asks at once, down to the first that is."""
        assert self._frontier is not None and self.known is not None
        stale: list[tuple[float, float, int]] = []
        while heap and len(stale) < _LOOKED_AT_ONCE and heap[0][0] != _UNDESCRIBED and not self._is_fresh(heap[0][2]):
            stale.append(heapq.heappop(heap))
        looked: Any = self._looked if self._trial is None else self._trial.looked
        for (_, draw, ask), novelty in zip(stale, self._frontier.novelty([s[2] for s in stale]).tolist(), strict=True):
            looked[ask] = self.known.version
            if novelty < least:
                self._drop(ask)
            else:
                heapq.heappush(heap, (-novelty * self._weights[ask], draw, ask))

    def _drop(self, ask: int) -> None:
        """Note that an ask has left its queue for good."""
        number = self._numbers[ask]
        if self._trial is None:
            self._queued[number] -= 1
            self.waiting -= self._queued[number] == 0

    def note(self, identity: str, reason: str, trajectory: str, time_ps: float, place: str = "") -> None:
        """Count a frame that was chosen, once; what it shows is known from now on if it is here to be seen."""
        if identity in self.taken:
            return
        self.taken.add(identity)
        number = self._number_of.get(identity)
        if number is not None:
            self._learn_frame(number)
            self.waiting -= self._queued[number] > 0
            self._queued[number] = 0
        self._count(reason, place, trajectory, float(time_ps))
        self._next = None

    def note_made(self, made: Made) -> None:
        """Count a pick that was made earlier, in the place it was made for."""
        by_stratum = made.reason in (LARGEST, BEFORE_LOSS)
        place = made.stratum if by_stratum else str(self.rules.band(made.temperature_K))
        self.note(made.identity, made.reason, made.trajectory, made.time_ps, place)

    def choose(self, best: Best) -> None:
        """Choose a frame that `best` or `take` named."""
        number = best.number
        self._number_of[self._identities[number]] = number
        where = self._trajectories[number], self._at_ps[number], best.place
        self.note(self._identities[number], best.reason, *where)

    def _learn_frame(self, number: int) -> None:
        if self.known is not None and self._frontier is not None:
            self.known.add(self._frontier.described(np.flatnonzero(self._owner.all() == number)))

    def _count(self, reason: str, place: str, trajectory: str, time_ps: float) -> None:
        self.served[reason, place] += 1
        self.reasons[reason] += 1
        self._given[trajectory] += reason != AUDIT
        self._times[trajectory] = (*self._times.get(trajectory, ()), time_ps)

    def take(self, count: int) -> list[Best]:
        """Return the best `count` frames one after the other without choosing them: `note` makes it so."""
        if count < 1 or self.room < 1:
            return []
        if count == 1:
            best = self.best()
            return [best] if best else []
        saved = self._queues, self.served, self.reasons, self._times, self._given, self._next
        self._queues = {queue: list(heap) for queue, heap in self._queues.items()}
        self.served, self.reasons = self.served.copy(), self.reasons.copy()
        self._times, self._given = dict(self._times), self._given.copy()
        self._trial = _Trial()
        mark = self.known.mark() if self.known is not None else None
        if self._frontier is not None:
            self._frontier.journal = []
        found: list[Best] = []
        while len(found) < count and self.room > 0 and (best := self.best()) is not None:
            found.append(best)
            self._trial.taken.add(self._identities[best.number])
            self._learn_frame(best.number)
            self._count(best.reason, best.place, self._trajectories[best.number], self._at_ps[best.number])
        self._trial = None
        self._queues, self.served, self.reasons, self._times, self._given, self._next = saved
        if self.known is not None and mark is not None:
            self.known.cut(mark)
        if self._frontier is not None:
            self._frontier.undo()
        return found
