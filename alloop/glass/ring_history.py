"""The story of the three-membered boron rings of a run: how many, since when, and how each one formed or broke.

A three-membered ring is a closed ring of three boron and three oxygen atoms (`alloop.glass.rings`), and its identity
are the indices of these six atoms, so that the atoms must keep their order through the run.

Bonds near the cutoff break for single frames. A ring therefore counts as formed or broken only if that lasts. With the
window of frame k being all frames at times from t_k up to, not including, t_k + `persistence_ps`:

- a ring that does not count as there *forms* at frame k if it is absent in frame k - 1, present in frame k, and present
  in at least `share` of the frames of the window of k;
- a ring that counts as there *breaks* at frame k if it is present in frame k - 1, absent in frame k, and absent in at
  least `share` of the frames of the window of k;
- a ring is there from the start if it is present in frame 0 and in at least `share` of the frames of its window;
- a window that would end after the last frame of the run decides nothing (that of frame 0 is cut there).

`share` is above one half, so that a ring that comes and goes all the time neither forms nor breaks. Frames
`persistence_ps` or more apart are windows of their own, and every change between them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from .angles import angle_pairs
from .coordination import oxygen_cutoff_A, resolve_cutoffs_A
from .neighbours import neighbour_list
from .rings import find_rings

Array = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class RingAtoms:
    """Identity of a ring: the indices of its three boron and three oxygen atoms, each ascending."""

    boron: tuple[int, ...]
    oxygen: tuple[int, ...]


@dataclass(frozen=True)
class RingState:
    """The six atoms of a ring in one frame, whether or not they are a ring there."""

    frame: int
    boron_coordination: tuple[int, ...]  # number of O bonded to each B, in the order of RingAtoms.boron
    linked_pairs: int  # of the three pairs of these B, how many share an O
    in_four_ring: bool  # the three B are part of a ring of four B without a shortcut
    lithium: tuple[int, ...]  # Li within the radius asked for of any of the six atoms


@dataclass(frozen=True)
class RingEvent:
    """A ring forms or breaks between `frame_before` and `frame`, the first with or without it.

    `lifetime_ps` reaches from forming, or the start of the run, to breaking, or the end of the run; it is the whole
    life if `lifetime_complete`, else a lower bound. The two states tell which boron changed its coordination,
    e.g. from 4B to 3B, and whether lithium was near.
    """

    kind: Literal["formation", "decomposition"]
    ring: RingAtoms
    frame_before: int
    frame: int
    time_ps: float
    temperature_K: float
    lifetime_ps: float
    lifetime_complete: bool
    before: RingState
    after: RingState

    @property
    def coordination_changes(self) -> dict[int, tuple[int, int]]:
        """Boron index -> coordination before and after, of the ring's boron atoms in which the two differ."""
        numbers = zip(self.ring.boron, self.before.boron_coordination, self.after.boron_coordination, strict=True)
        return {boron: (old, new) for boron, old, new in numbers if old != new}

    @property
    def lithium_near(self) -> bool:
        """Whether a lithium atom was within the radius before or after."""
        return bool(self.before.lithium or self.after.lithium)


@dataclass(frozen=True)
class RingLife:
    """One stretch in which a ring counts as there, from `first_frame` to before `end_frame` (None: to the end)."""

    ring: RingAtoms
    first_frame: int
    end_frame: int | None
    lifetime_ps: float
    from_start: bool  # its formation was not seen


@dataclass(frozen=True)
class TemperatureBins:
    """Mean and standard deviation of a number over the frames of each temperature; bins without a frame are absent."""

    temperature_K: tuple[float, ...]  # centres, ascending
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_frames: tuple[int, ...]


def by_temperature(temperatures_K: ArrayLike, values: ArrayLike, *, bin_width_K: float = 10.0) -> TemperatureBins:
    """Average a number per frame in bins centred on multiples of `bin_width_K`.

    With the temperature the thermostat aims at this is a cooling curve; the momentary temperature of a small cell
    scatters by much more than 10 K. ValueError for arrays of different length or a width that is not positive.
    """
    temperatures, numbers = np.asarray(temperatures_K, dtype=float), np.asarray(values, dtype=float)
    if temperatures.ndim != 1 or temperatures.shape != numbers.shape or not 0 < bin_width_K < np.inf:
        raise ValueError(
            f"{temperatures.shape} temperatures, {numbers.shape} values and bins of {bin_width_K} K: "
            "give one value per temperature and a positive width"
        )
    bins, index, n = np.unique(np.floor(temperatures / bin_width_K + 0.5), return_inverse=True, return_counts=True)
    mean = np.bincount(index, weights=numbers) / n
    std = np.sqrt(np.bincount(index, weights=(numbers - mean[index]) ** 2) / n)
    columns = ((bins * bin_width_K).tolist(), mean.tolist(), std.tolist(), n.tolist())
    return TemperatureBins(*(tuple(column) for column in columns))


@dataclass(frozen=True)
class Survival:
    """Share of the final rings that existed in each frame; both curves are empty without a final ring.

    `present` looks at the frame alone, `formed` asks whether the ring counts as there by the persistence rule.
    """

    final_rings: tuple[RingAtoms, ...]
    present: tuple[float, ...]  # (n_frames,)
    formed: tuple[float, ...]  # (n_frames,)


@dataclass(frozen=True)
class RingHistory:
    """Three-membered boron rings through a run, frame by frame and as events."""

    persistence_ps: float
    share: float
    lithium_radius_A: float
    times_ps: tuple[float, ...]  # (n_frames,)
    temperatures_K: tuple[float, ...]  # (n_frames,)
    rings: tuple[frozenset[RingAtoms], ...]  # of each frame
    lives: tuple[RingLife, ...]  # by first frame
    events: tuple[RingEvent, ...]  # by frame

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of rings in each frame (n_frames,)."""
        return tuple(len(rings) for rings in self.rings)

    def counts_by_temperature(self, bin_width_K: float = 10.0) -> TemperatureBins:
        """Number of rings against temperature; see `by_temperature`."""
        return by_temperature(self.temperatures_K, self.counts, bin_width_K=bin_width_K)

    def survival(self, final_ps: float | None = None) -> Survival:
        """How many of the final rings existed in each frame.

        Final are the rings present in at least `share` of the frames of the last `final_ps` of the run (default:
        `persistence_ps`; 0 takes the last frame alone). ValueError for a negative time.
        """
        final_ps = self.persistence_ps if final_ps is None else final_ps
        if not final_ps >= 0:
            raise ValueError(f"the last part of the run is {final_ps} ps; give 0 for the last frame, or more")
        last = np.array(self.times_ps) >= self.times_ps[-1] - final_ps * (1 + 1e-9)
        frames = [self.rings[k] for k in np.flatnonzero(last)]
        needed = self.share * len(frames) - 1e-9
        final = {ring for ring in frozenset().union(*frames) if sum(ring in rings for rings in frames) >= needed}
        if not final:
            return Survival((), (), ())
        formed = np.zeros(len(self.rings))
        for life in self.lives:
            formed[life.first_frame : life.end_frame] += life.ring in final
        present = tuple(len(final & rings) / len(final) for rings in self.rings)
        return Survival(tuple(sorted(final)), present, tuple((formed / len(final)).tolist()))

    def as_dict(self, *, bin_width_K: float = 10.0, final_ps: float | None = None) -> dict[str, Any]:
        """Everything but the rings of each frame, as plain numbers, lists and texts for JSON."""
        return {
            "persistence_ps": self.persistence_ps,
            "share": self.share,
            "lithium_radius_A": self.lithium_radius_A,
            "times_ps": list(self.times_ps),
            "temperatures_K": list(self.temperatures_K),
            "counts": list(self.counts),
            "counts_by_temperature": asdict(self.counts_by_temperature(bin_width_K)),
            "survival": asdict(self.survival(final_ps)),
            "lives": [asdict(life) for life in self.lives],
            "events": [asdict(event) for event in self.events],
        }


class _Scene:
    """One frame as far as rings need it: the rings, and the surroundings of any six atoms."""

    def __init__(self, number: int, atoms: Atoms, cutoffs_A: Mapping[str, float], lithium_radius_A: float) -> None:
        self.number = number
        self.radius_A = lithium_radius_A
        cutoff_A = oxygen_cutoff_A("B", cutoffs_A)
        self.listed = neighbour_list(atoms, max(cutoff_A, lithium_radius_A))
        found = find_rings(self.listed, formers=("B",), definition="primitive", max_ring=3, cutoffs_A=cutoffs_A)
        three = (ring for ring in found if ring.size == 3)
        self.rings = frozenset(RingAtoms(tuple(sorted(r.formers)), tuple(sorted(r.oxygens))) for r in three)
        bonds = self.listed.bonds("B", "O", cutoff_A)
        self.boron, self.oxygen = self.listed.first[bonds], self.listed.second[bonds]

    @cached_property
    def linked(self) -> dict[int, set[int]]:
        """Boron -> boron atoms it shares an oxygen with, itself left out; images of one atom count as that atom."""
        linked: dict[int, set[int]] = {}
        for one, other in zip(*(self.boron[ends].tolist() for ends in angle_pairs(self.oxygen)), strict=True):
            if one != other:
                linked.setdefault(one, set()).add(other)
                linked.setdefault(other, set()).add(one)
        return linked

    @cached_property
    def near_lithium(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """B or O atom and Li atom of every such pair within the radius."""
        pairs = np.concatenate([self.listed.bonds(element, "Li", self.radius_A) for element in ("B", "O")])
        return self.listed.first[pairs], self.listed.second[pairs]

    def state(self, ring: RingAtoms) -> RingState:
        """The six atoms in this frame."""
        at = {boron: self.linked.get(boron, set()) for boron in ring.boron}
        in_four_ring = False
        for middle, (a, c) in zip(ring.boron, (ring.boron[1:], ring.boron[::2], ring.boron[:2]), strict=True):
            opposite = (at[a] & at[c]) - at[middle] - {middle}
            in_four_ring |= bool(opposite) and {a, c} <= at[middle] and c not in at[a]
        atom, lithium = self.near_lithium
        return RingState(
            frame=self.number,
            boron_coordination=tuple(int((self.boron == boron).sum()) for boron in ring.boron),
            linked_pairs=sum(len(links & set(ring.boron)) for links in at.values()) // 2,
            in_four_ring=in_four_ring,
            lithium=tuple(np.unique(lithium[np.isin(atom, ring.boron + ring.oxygen)]).tolist()),
        )


_Changes = dict[RingAtoms, dict[int, tuple[RingState, RingState]]]  # ring -> frame of the change -> before, after


def ring_history(
    frames: Iterable[Atoms],
    *,
    times_ps: Sequence[float] | Array,
    temperatures_K: Sequence[float] | Array,
    persistence_ps: float = 1.0,
    share: float = 0.8,
    lithium_radius_A: float = 3.0,
    cutoffs_A: Mapping[str, float] | None = None,
) -> RingHistory:
    """Follow the three-membered boron rings through frames in order of time, which may come from a generator.

    The rule for forming and breaking, with `persistence_ps` and `share`, is at the top of this module; a
    `persistence_ps` of 0 counts every change. `lithium_radius_A` says how near a Li must be to one of the six atoms
    to be named; the default reaches over the first Li-B and Li-O shells. Two frames are held at a time; what is
    kept are the sets of ring atoms of each frame and a few numbers for each appearance or disappearance.
    A frame without boron has no ring. ValueError for no frames, times that do not increase, a number of times or
    temperatures other than that of frames, atoms that change between frames, and options out of range.
    """
    times, temperatures = np.asarray(times_ps, dtype=float), np.asarray(temperatures_K, dtype=float)
    _check_run(times, temperatures, persistence_ps, share, lithium_radius_A)
    cutoffs = resolve_cutoffs_A(cutoffs_A)
    known: dict[RingAtoms, RingAtoms] = {}  # one object for each ring, however many frames it is in
    rings: list[frozenset[RingAtoms]] = []
    changes: _Changes = {}
    numbers: NDArray[np.int64] | None = None
    before: _Scene | None = None
    for k, atoms in enumerate(frames):
        if k == len(times):
            raise ValueError(f"there are more frames than the {len(times)} times given; give a time for each frame")
        numbers = atoms.numbers.copy() if numbers is None else numbers
        if not np.array_equal(atoms.numbers, numbers):
            raise ValueError(
                f"the atoms of frame {k} ({atoms.symbols}) are not those of frame 0 in the same order; a ring is "
                "known by the indices of its atoms, so sort every frame by atom id"
            )
        scene = _Scene(k, atoms, cutoffs, lithium_radius_A)
        rings.append(frozenset(known.setdefault(ring, ring) for ring in scene.rings))
        if before is not None:
            for ring in before.rings ^ scene.rings:
                changes.setdefault(known[ring], {})[k] = (before.state(ring), scene.state(ring))
        before = scene
    if len(rings) != len(times):
        raise ValueError(f"{len(rings)} frames came with {len(times)} times; give a time for each frame")
    lives = _lives(rings, changes, times, persistence_ps, share)
    return RingHistory(
        persistence_ps=float(persistence_ps),
        share=float(share),
        lithium_radius_A=float(lithium_radius_A),
        times_ps=tuple(times.tolist()),
        temperatures_K=tuple(temperatures.tolist()),
        rings=tuple(rings),
        lives=tuple(lives),
        events=tuple(_events(lives, changes, times, temperatures)),
    )


def _check_run(times: Array, temperatures: Array, persistence_ps: float, share: float, lithium_radius_A: float) -> None:
    if times.ndim != 1 or times.shape != temperatures.shape:
        raise ValueError(f"{times.shape} times and {temperatures.shape} temperatures: give one of each per frame")
    if len(times) == 0:
        raise ValueError("no frames were given; check the file and the frame selection")
    good = np.isfinite(times) & np.isfinite(temperatures)
    good[1:] &= np.diff(times) > 0
    if not good.all():
        at = int(np.argmin(good))
        raise ValueError(
            f"frame {at} is at {times[at]} ps and {temperatures[at]} K; give finite numbers, and times that increase"
        )
    if not (0 <= persistence_ps < np.inf and 0.5 < share <= 1 and 0 < lithium_radius_A < np.inf):
        raise ValueError(
            f"persistence_ps={persistence_ps}, share={share}, lithium_radius_A={lithium_radius_A}: give a time of 0 or "
            "more, a share above 0.5 and up to 1, and a positive radius"
        )


def _lives(
    rings: Sequence[frozenset[RingAtoms]], changes: _Changes, times: Array, persistence_ps: float, share: float
) -> list[RingLife]:
    """The stretches in which each ring counts as there, by the rule at the top of this module."""
    n = len(times)
    until = times + persistence_ps * (1 - 1e-6)  # times such as 0.1 k are rounded
    ends = np.maximum(np.searchsorted(times, until), np.arange(1, n + 1))
    decides = until <= times[-1]
    frames_with: dict[RingAtoms, list[int]] = {}
    for k, of_frame in enumerate(rings):
        for ring in of_frame:
            frames_with.setdefault(ring, []).append(k)
    lives = []
    for ring, frames in frames_with.items():
        present = np.zeros(n, dtype=bool)
        present[frames] = True
        up_to = np.concatenate([[0], np.cumsum(present)])
        in_window = (up_to[ends] - up_to[:-1]) / (ends - np.arange(n))
        held = np.where(present, in_window, 1.0 - in_window) >= share - 1e-9  # the window is like its first frame
        first = 0 if present[0] and held[0] else None
        for k in sorted(changes.get(ring, {})):
            if not (decides[k] and held[k]):
                continue
            if present[k] and first is None:
                first = k
            elif not present[k] and first is not None:
                lives.append(RingLife(ring, first, k, float(times[k] - times[first]), first == 0))
                first = None
        if first is not None:
            lives.append(RingLife(ring, first, None, float(times[-1] - times[first]), first == 0))
    return sorted(lives, key=lambda life: (life.first_frame, life.ring))


def _events(lives: Iterable[RingLife], changes: _Changes, times: Array, temperatures: Array) -> list[RingEvent]:
    events = []
    for life in lives:
        ends: tuple[tuple[Literal["formation", "decomposition"], int | None], ...] = (
            ("formation", None if life.from_start else life.first_frame),
            ("decomposition", life.end_frame),
        )
        for kind, k in ends:
            if k is not None:
                complete = life.end_frame is not None and not life.from_start
                states = changes[life.ring][k]
                place = (k - 1, k, float(times[k]), float(temperatures[k]))
                events.append(RingEvent(kind, life.ring, *place, life.lifetime_ps, complete, *states))
    return sorted(events, key=lambda event: (event.frame, event.ring))


def _around_ring(atoms: Atoms, ring: RingAtoms) -> tuple[Array, Array]:
    """Positions (n_atoms, 3) of the images nearest to the ring, from its centre, and distances to its atoms (n_atoms,).

    The ring's atoms are the images nearest to its first boron atom.
    """
    members = list(ring.boron + ring.oxygen)
    if max(members) >= len(atoms) or "".join(atoms.symbols[members]) != "BBBOOO":
        raise ValueError(f"atoms {members} of this frame are not three B and three O; give the frame of the ring's run")
    of_ring = find_mic(atoms.positions[members] - atoms.positions[members[0]], atoms.cell, atoms.pbc)[0]
    centre = of_ring.mean(axis=0)
    from_centre = atoms.positions - atoms.positions[members[0]] - centre
    positions = find_mic(from_centre, atoms.cell, atoms.pbc)[0]
    positions[members] = of_ring - centre
    return positions, cdist(positions, positions[members]).min(axis=1)


def _cut(atoms: Atoms, ring: RingAtoms, positions: Array, chosen: NDArray[np.bool_]) -> Atoms:
    members = np.array(ring.boron + ring.oxygen)
    others = np.setdiff1d(np.flatnonzero(chosen), members)
    order = np.concatenate([members, others])
    cluster = Atoms(atoms.numbers[order], positions=positions[order])
    cluster.arrays["atom_id"] = order
    cluster.arrays["in_ring"] = (np.arange(len(order)) < len(members)).astype(np.int64)
    return cluster


def ring_surroundings(atoms: Atoms, ring: RingAtoms, *, radius_A: float = 4.0) -> Atoms:
    """The ring and all atoms within `radius_A` of one of its six, brought together through the periodic box.

    A cluster without a cell, the origin in the ring's centre: the ring's B and O first, then the others by index. The
    arrays `atom_id` (index in the frame) and `in_ring` (1 or 0) go into an extxyz file. Each atom appears once, as
    the image nearest to the centre: a cell should be wider than twice the radius and the ring's 2.8 Å. ValueError
    if the frame does not have three B and three O at these indices.
    """
    positions, distances = _around_ring(atoms, ring)
    return _cut(atoms, ring, positions, distances <= radius_A)


def event_structures(event: RingEvent, before: Atoms, after: Atoms, *, radius_A: float = 4.0) -> tuple[Atoms, Atoms]:
    """The surroundings of an event in a frame before and one after it, as in `ring_surroundings`.

    Usually the frames `event.frame_before` and `event.frame`, or others a little farther off. Both clusters hold
    the same atoms in the same order: those within `radius_A` of the ring's atoms in either frame. `info` says what
    happened: `kind`, `time_ps`, `temperature_K`, and `side`, "before" or "after".
    """
    cuts = [(atoms, *_around_ring(atoms, event.ring)) for atoms in (before, after)]
    chosen = np.any([distances <= radius_A for _, _, distances in cuts], axis=0)
    first, second = (_cut(atoms, event.ring, positions, chosen) for atoms, positions, _ in cuts)
    told = {"kind": event.kind, "time_ps": event.time_ps, "temperature_K": event.temperature_K}
    first.info.update(told, side="before")
    second.info.update(told, side="after")
    return first, second


def structures_of_events(
    events: Iterable[RingEvent], frames: Iterable[Atoms], *, radius_A: float = 4.0
) -> Iterator[tuple[RingEvent, Atoms, Atoms]]:
    """Yield each event with its surroundings before and after, from a second pass over the frames of the history.

    Two frames are held at a time. ValueError if the frames end before an event's, so that they are not those of the
    history.
    """
    at: dict[int, list[RingEvent]] = {}
    for event in events:
        at.setdefault(event.frame, []).append(event)
    before: Atoms | None = None
    for k, atoms in enumerate(frames):
        if before is not None:
            for event in at.pop(k, ()):
                yield (event, *event_structures(event, before, atoms, radius_A=radius_A))
        if not at:
            return
        before = atoms
    raise ValueError(f"the run has no frame {min(at)}, where a ring changes; give the frames of the history")
