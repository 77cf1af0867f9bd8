"""What explorations brought home, as selection looks at it: columns of all chunks, or frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from alloop.campaign import Campaign, label_key
from alloop.decisions.exploration import Trajectory
from alloop.frames import read_some_columns
from alloop.select_params import SelectParam
from alloop.selection.bands import band_of
from alloop.selection.classes import CLASSES
from alloop.selection.diversity import Environments
from alloop.selection.picks import AUDIT, BEFORE_LOSS, Candidate, Frames, Offending, columns
from alloop.structure import content_key
from alloop.tasks.describe import read_environment_table, read_environments

Columns = dict[str, np.ndarray]
_EVENT = "event:"
_READ = ("content", "step", "max_force_deviation_eV_A", "target_temperature_K", "kept_for", "audit_of", "trust_class")
_OF_A_PICK = (*_READ, "temperature_K")


class Place(NamedTuple):
    """What a chunk is part of: trajectory, its stratum and role, and the step along it at which the chunk begins."""

    trajectory: str
    stratum: str
    role: str
    begins_step: int


def frames_of(
    campaign: Campaign, entry: dict[str, Any], trajectory: Trajectory, own: SelectParam
) -> Iterator[tuple[Candidate, dict[str, Any]]]:
    """Yield what the selector needs of each frame a chunk brought home, with the record of a pick it would become."""
    result, place = campaign.result(entry["key"]), place_of(campaign, entry, trajectory)
    stored, environments = read_some_columns(result, _OF_A_PICK, also=_EVENT), read_environments(result)
    found = {name: column.tolist() for name, column in stored.items()}  # numbers of Python, as each is looked at
    level = content_key(campaign.level["content"])
    for frame, content in enumerate(found["content"]):
        record = pick_record(campaign, entry, place, own, found, frame, label_key(content, level))
        yield (
            Candidate(
                record["key"],
                trajectory.name,
                record["time_ps"],
                trajectory.stratum,
                record["trust_class"],
                found["kept_for"][frame],
                record["max_force_deviation_eV_A"],
                frozenset(record["events"]),
                record["target_temperature_K"],
                environments[frame] if frame < len(environments) else {},
                audit_of=found["audit_of"][frame],
                chunk=entry["name"],
            ),
            record,
        )


def pick_record(
    campaign: Campaign,
    entry: dict[str, Any],
    place: Place,
    own: SelectParam,
    found: Mapping[str, Sequence[Any] | np.ndarray],
    frame: int,
    key: str,
) -> dict[str, Any]:
    """Return the record of the pick that a frame of a chunk would become, without its reason.

    The band of a frame is that of its target temperature, which along a ramp changes.
    """
    step, target_K = int(found["step"][frame]), float(found["target_temperature_K"][frame])
    watched = sorted(name.removeprefix(_EVENT) for name in found if name.startswith(_EVENT))
    return {
        "key": key,
        "name": f"{entry['name']}.s{step:04d}",
        "source": {"task": entry["key"], "frame": frame},
        "given": False,
        "level": campaign.level["name"],
        "trajectory": place.trajectory,
        "role": place.role,
        "stratum": place.stratum,
        "target_temperature_K": target_K,
        "band": band_of(target_K, own.temperature_bands_K),
        "step": step,
        "time_ps": (place.begins_step + step) * entry["spec"]["condition"]["timestep_fs"] / 1000,
        "trust_class": str(found["trust_class"][frame]),
        "max_force_deviation_eV_A": float(found["max_force_deviation_eV_A"][frame]),
        "temperature_K": float(found["temperature_K"][frame]),
        "events": [event for event in watched if found[_EVENT + event][frame]],
    }


def _begins_step(entry: dict[str, Any]) -> int:
    """Return how many steps of its trajectory are before a chunk of an exploration."""
    return int(entry["name"].rsplit(".c", 1)[1]) * int(entry["spec"]["condition"]["n_steps"])


def place_of(campaign: Campaign, entry: dict[str, Any], trajectory: Trajectory) -> Place:
    """Return what a chunk of an exploration is part of."""
    role = campaign.state.trajectories[trajectory.name]
    return Place(trajectory.name, trajectory.stratum, role, _begins_step(entry))


@dataclass
class Collected:
    """The frames of many chunks as columns; with `audit_only` only those drawn for the audit, without environments."""

    campaign: Campaign
    own: SelectParam
    events: Sequence[str]
    audit_only: bool
    _chunks: list[tuple[dict[str, Any], Trajectory]] = field(default_factory=list)
    _parts: list[Columns] = field(default_factory=list)
    _atoms: list[tuple[np.ndarray, np.ndarray, Environments]] = field(default_factory=list)
    _count: int = 0
    _keys: list[str] = field(default_factory=list)
    _places: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.zeros(0, int), np.zeros(0, int)))

    def add(self, entry: dict[str, Any], trajectory: Trajectory) -> None:
        """Take in the frames of a finished chunk."""
        result = self.campaign.result(entry["key"])
        found = read_some_columns(result, (*_READ, *(_EVENT + event for event in self.events)))
        rows = np.flatnonzero(found["audit_of"] > 0) if self.audit_only else np.arange(len(found["step"]))
        part = {name: column[rows] for name, column in found.items()}
        part["time_ps"] = (_begins_step(entry) + part["step"]) * entry["spec"]["condition"]["timestep_fs"] / 1000
        part["frame"] = rows
        part["chunk"] = np.full(len(rows), len(self._chunks), dtype=np.int32)
        self._chunks.append((entry, trajectory))
        self._parts.append(part)
        if not self.audit_only and (table := read_environment_table(result)) is not None:
            frames, codes, reasons, environments = table
            places = {event: 1 + number for number, event in enumerate(self.events)}
            code_of = np.array([0, *(places.get(reason, -1) for reason in reasons[1:])], dtype=np.int8)
            asked = code_of[codes] >= 0
            self._atoms.append((self._count + frames[asked], code_of[codes[asked]], environments[asked]))
        self._count += len(rows)

    def frames(self) -> Frames:
        """Return all frames taken in, identified by the keys their labels would have."""
        if not self._parts:
            return columns([])
        level = content_key(self.campaign.level["content"])
        all_of = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        names = {name: number for number, name in enumerate(dict.fromkeys(own.name for _, own in self._chunks))}
        strata = {name: number for number, name in enumerate(dict.fromkeys(own.stratum for _, own in self._chunks))}
        of_chunk = np.array([[names[own.name], strata[own.stratum]] for _, own in self._chunks], dtype=np.int32)
        trust = np.zeros(self._count, dtype=np.int8)
        for code, name in enumerate(CLASSES):
            trust[all_of["trust_class"] == name] = code
        self._keys = [label_key(content, level) for content in all_of["content"].tolist()]
        self._places = all_of["chunk"], all_of["frame"]
        return Frames(
            identities=np.array(self._keys, dtype=str),
            trajectories=of_chunk[all_of["chunk"], 0],
            times_ps=all_of["time_ps"],
            strata=of_chunk[all_of["chunk"], 1],
            temperatures_K=all_of["target_temperature_K"],
            trust=trust,
            max_force_deviations_eV_A=all_of["max_force_deviation_eV_A"],
            before_loss=all_of["kept_for"] == BEFORE_LOSS,
            audit_of=np.where(all_of["audit_of"] > 0, all_of["audit_of"], all_of["kept_for"] == AUDIT),
            chunks=all_of["chunk"],
            events=self._events(all_of),
            trajectory_names=list(names),
            stratum_names=list(strata),
            chunk_names=[entry["name"] for entry, _ in self._chunks],
            event_names=list(self.events),
            offending=self._offending(),
        )

    def _events(self, all_of: Columns) -> np.ndarray:
        """Return which frame shows which event, (frames, events), also of no frames or no events."""
        seen = [all_of[_EVENT + event] for event in self.events]
        return np.array(seen, dtype=bool).reshape(len(self.events), self._count).T

    def _offending(self) -> Offending | None:
        if not any(len(frames) for frames, _, _ in self._atoms):
            return None
        frames, codes = (np.concatenate([own[place] for own in self._atoms]) for place in (0, 1))
        return Offending(frames.astype(np.int32), codes, Environments.together(own for _, _, own in self._atoms))

    def record(self, index: int) -> dict[str, Any]:
        """Return the record of the pick that a frame of `frames` becomes."""
        chunk, frame = (int(column[index]) for column in self._places)
        entry, trajectory = self._chunks[chunk]
        found = read_some_columns(self.campaign.result(entry["key"]), _OF_A_PICK, also=_EVENT)
        place = place_of(self.campaign, entry, trajectory)
        return pick_record(self.campaign, entry, place, self.own, found, frame, self._keys[index])
