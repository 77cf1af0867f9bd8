"""How long the rules of selection take on the columns of ten million explored frames, and how much memory.

    python benchmarks/selection_scale.py [--chunks 10000] [--labels 2000] [--json FILE]

The frames are made up: chunks of 1000 records (deviation, temperature, events) of three glasses at eight temperatures,
of which each brings home what an exploration would: up to 20 candidates, 4 frames per event, 5 random accurate ones
and now and then the last before a loss, with the environments of their offending atoms in 32 dimensions. Training
data of four elements, 4096 environments each, are what novelty is measured against.

Timed as selection: classes of all records and their counts per stratum, collecting what came home as columns, the
distances to training data, and the picks. Apart: making up the frames, which explorations and their tasks do in a
campaign, and thinning the training data, which a task does once per ensemble. Memory is that of the whole process.
Then the same kind of frames one chunk after the other into a backlog from which labels are asked for one by one.

These are the library's columns in memory, not the decision of a campaign: no result of a chunk is opened, no frame is
named for a label and nothing is recorded. What `decide_select` costs per frame that came home, with all that, is what
`decide_select.py` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from checkout import commit

from alloop.selection.backlog import Backlog
from alloop.selection.classes import ACCURATE, CANDIDATE, CLASSES, class_codes
from alloop.selection.diversity import CAPACITY, Environments, Known, Scale
from alloop.selection.picks import Candidate, Frames, Offending, Rules, pick

RECORDS, DIMENSIONS = 1000, 32
ELEMENTS = np.array([3, 5, 8, 14], dtype=np.int16)
GLASSES, TEMPERATURES_K = ("A", "B", "C"), np.linspace(300, 3500, 8)
EVENTS = ("overlap", "five_coordinated_Si")
LOW_eV_A, HIGH_eV_A = 0.25, 1.0
CANDIDATES, PER_EVENT, AUDIT = 20, 4, 5
MOST_FRAMES, MOST_ATOMS = CANDIDATES + 2 * PER_EVENT + AUDIT + 1, CANDIDATES + 3 * PER_EVENT + 1


@dataclass(frozen=True)
class Chunk:
    """Table of all records, and what came home: record numbers, flags, and offending atoms as (row, reason)."""

    trajectory: int
    stratum: int
    deviations_eV_A: np.ndarray
    events: np.ndarray
    kept: np.ndarray
    temperatures_K: np.ndarray
    audit_of: np.ndarray
    before_loss: np.ndarray
    atom_frames: np.ndarray
    atom_reasons: np.ndarray
    environments: Environments


class World:
    """Makes up chunks; environments scatter around a centre per glass and element, more widely the hotter."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = self.rng.normal(size=(len(GLASSES), len(ELEMENTS), DIMENSIONS)).astype(np.float32)

    def vectors(self, glass: int, elements: np.ndarray, width: float) -> np.ndarray:
        noise = self.rng.standard_normal((len(elements), DIMENSIONS), dtype=np.float32)
        return self.centres[glass, elements] + np.float32(width) * noise

    def training(self, per_element: int) -> Environments:
        parts = []
        for glass in range(len(GLASSES)):
            elements = np.repeat(np.arange(len(ELEMENTS)), per_element // len(GLASSES))
            parts.append(Environments(ELEMENTS[elements], self.vectors(glass, elements, 0.7)))
        return Environments.together(parts)

    def chunk(self, number: int) -> Chunk:
        rng, trajectory = self.rng, number // 20
        stratum = trajectory % (len(GLASSES) * len(TEMPERATURES_K))
        glass, kelvin = divmod(stratum, len(TEMPERATURES_K))
        hot = kelvin / (len(TEMPERATURES_K) - 1)
        deviations = rng.lognormal(np.log(0.06 + 0.16 * hot), 0.45, RECORDS).astype(np.float32)
        events = rng.random((RECORDS, 2), dtype=np.float32) < np.array([0.02, 0.05]) * hot
        accurate = np.flatnonzero(deviations < LOW_eV_A)
        uncertain = np.flatnonzero((deviations >= LOW_eV_A) & (deviations < HIGH_eV_A))
        last = rng.integers(0, RECORDS, 1) if rng.random() < 0.05 * hot else np.zeros(0, dtype=int)
        audit = rng.permutation(accurate)[:AUDIT]
        by_event = [np.flatnonzero(events[:, event])[:PER_EVENT] for event in range(2)]
        spread = uncertain[np.unique(np.linspace(0, len(uncertain) - 1, min(CANDIDATES, len(uncertain))).astype(int))]
        kept = np.unique(np.concatenate([spread, *by_event, audit, last]))
        frames, reasons = self._atoms(kept, spread, by_event, last)
        elements = np.where(reasons == 2, 3, rng.integers(0, len(ELEMENTS), len(frames)))
        found = Environments(ELEMENTS[elements], self.vectors(glass, elements, 0.6 + 0.8 * hot))
        return Chunk(
            trajectory,
            stratum,
            deviations,
            events,
            kept,
            TEMPERATURES_K[kelvin] * (1 + 0.05 * rng.standard_normal(len(kept))),
            np.where(np.isin(kept, audit), len(accurate), 0),
            np.isin(kept, last),
            frames,
            reasons,
            found,
        )

    def _atoms(
        self, kept: np.ndarray, spread: np.ndarray, by_event: list[np.ndarray], last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One atom of largest deviation per candidate, two that overlap, one silicon."""
        groups = [(np.union1d(spread, last), 0), (np.repeat(by_event[0], 2), 1), (by_event[1], 2)]
        frames = np.concatenate([np.searchsorted(kept, records) for records, _ in groups])
        return frames, np.concatenate([np.full(len(records), code) for records, code in groups])


@dataclass
class Collected:
    """Columns of all that came home; the summaries of chunks tell beforehand how much that is at most."""

    chunks: int
    columns: dict[str, np.ndarray] = field(init=False)
    atoms: dict[str, np.ndarray] = field(init=False)
    frames: int = 0
    environments: int = 0
    by_stratum: dict[int, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames, atoms = self.chunks * MOST_FRAMES, self.chunks * MOST_ATOMS
        kinds = {"identities": "U16", "trajectories": "i4", "times_ps": "f8", "strata": "i4", "temperatures_K": "f8"}
        kinds |= {"trust": "i1", "deviations": "f8", "before_loss": "?", "audit_of": "i4", "chunks": "i4"}
        self.columns = {name: np.empty(frames, dtype=kind) for name, kind in kinds.items()}
        self.columns["events"] = np.empty((frames, 2), dtype=bool)
        self.atoms = {"frames": np.empty(atoms, np.int32), "reasons": np.empty(atoms, np.int8)}
        self.atoms |= {"elements": np.empty(atoms, np.int16), "vectors": np.empty((atoms, DIMENSIONS), np.float32)}

    def add(self, number: int, chunk: Chunk) -> None:
        codes = class_codes(chunk.deviations_eV_A, LOW_eV_A, HIGH_eV_A)
        counts = np.bincount(codes, minlength=len(CLASSES))
        self.by_stratum.setdefault(chunk.stratum, Counter()).update(dict(zip(CLASSES, counts.tolist(), strict=True)))
        kept = chunk.kept
        rows = slice(self.frames, self.frames + len(kept))
        values: dict[str, Any] = {
            "identities": [f"{number:08x}{record:08x}" for record in kept.tolist()],
            "trajectories": chunk.trajectory,
            "times_ps": 0.002 * (number % 20 * RECORDS + kept),
            "strata": chunk.stratum,
            "temperatures_K": chunk.temperatures_K,
            "trust": codes[kept],
            "deviations": chunk.deviations_eV_A[kept],
            "before_loss": chunk.before_loss,
            "audit_of": np.where(codes[kept] == ACCURATE, chunk.audit_of, 0),
            "chunks": number,
            "events": chunk.events[kept],
        }
        for name, value in values.items():
            self.columns[name][rows] = value
        places = slice(self.environments, self.environments + len(chunk.atom_frames))
        self.atoms["frames"][places] = self.frames + chunk.atom_frames
        self.atoms["reasons"][places] = chunk.atom_reasons
        self.atoms["elements"][places] = chunk.environments.elements
        self.atoms["vectors"][places] = chunk.environments.vectors
        self.frames, self.environments = rows.stop, places.stop

    def table(self) -> Frames:
        own = {name: column[: self.frames] for name, column in self.columns.items()}
        atoms = {name: column[: self.environments] for name, column in self.atoms.items()}
        return Frames(
            own["identities"],
            own["trajectories"],
            own["times_ps"],
            own["strata"],
            own["temperatures_K"],
            own["trust"],
            own["deviations"],
            own["before_loss"],
            own["audit_of"],
            own["chunks"],
            own["events"],
            [f"trajectory {number}" for number in range(int(own["trajectories"].max()) + 1)],
            [f"{glass} {kelvin:.0f}K" for glass in GLASSES for kelvin in TEMPERATURES_K],
            [f"chunk {number}" for number in range(self.chunks)],
            EVENTS,
            Offending(atoms["frames"], atoms["reasons"], Environments(atoms["elements"], atoms["vectors"])),
        )


def run(chunks: int, labels: int, seed: int) -> dict[str, Any]:
    world = World(seed)
    began = time.perf_counter()
    reference = world.training(5 * CAPACITY)
    known = Known(Scale.fit(reference))
    known.cover(reference)
    del reference
    thinning_s = time.perf_counter() - began
    collected, making_s, collecting_s = Collected(chunks), 0.0, 0.0
    for number in range(chunks):
        began = time.perf_counter()
        chunk = world.chunk(number)
        made = time.perf_counter()
        collected.add(number, chunk)
        making_s += made - began
        collecting_s += time.perf_counter() - made
    before_MB = peak_MB()
    began = time.perf_counter()
    table = collected.table()
    bands_K = (1000.0, 2000.0, 3000.0)
    quota = {"overlap": labels // 40, "five_coordinated_Si": labels // 40}
    rules = Rules(labels, 8, 0.05, labels // 10, quota, bands_K, labels // 40)
    picks = pick(table, set(), rules, seed, known)
    picking_s = time.perf_counter() - began
    total_s = collecting_s + picking_s
    seen = sum(collected.by_stratum.values(), Counter())
    return {
        "frames": chunks * RECORDS,
        "came_home": collected.frames,
        "environments": collected.environments,
        "candidates_came_home": int((table.trust == CANDIDATE).sum()),
        "known_environments": len(known.arrays()["points"]),
        "classes": dict(seen),
        "picks": dict(Counter(reason for _, reason in picks)),
        "selection_s": round(total_s, 2),
        "of_which": {"classes_and_columns_s": round(collecting_s, 2), "novelty_and_picks_s": round(picking_s, 2)},
        "apart": {"making_up_frames_s": round(making_s, 2), "thinning_training_data_s": round(thinning_s, 2)},
        "us_per_frame": round(1e6 * total_s / (chunks * RECORDS), 3),
        "peak_rss_MB": round(peak_MB(), 1),
        "peak_rss_before_picks_MB": round(before_MB, 1),
        "peak_rss_bytes_per_frame": round(1e6 * peak_MB() / (chunks * RECORDS), 1),
        "threads": os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} cores"),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
    }


def streamed(chunks: int, picks: int, seed: int) -> dict[str, Any]:
    """Return what taking in a chunk and asking for one label cost in a backlog that is never empty."""
    world = World(seed)
    reference = world.training(2 * CAPACITY)
    known = Known(Scale.fit(reference))
    known.cover(reference)
    backlog = Backlog()
    backlog.compare_with(known)
    backlog.open_round(0, Rules(10**6, 10**6, 0.05, 0, dict.fromkeys(EVENTS, 10**6)), seed)
    taking_in_s = asking_s = 0.0
    candidates: dict[str, Candidate] = {}
    for number in range(chunks):
        made = list(entries(number, world.chunk(number)))
        candidates |= {one.identity: one for one, _ in made}
        began = time.process_time()
        backlog.add(0, made)
        taking_in_s += time.process_time() - began
    waiting = backlog.size()
    for _ in range(picks):
        began = time.process_time()
        assert backlog.newest() == 0 and backlog.size() > 0
        reason, identity = backlog.take(0, 1)[0]
        one = candidates[identity]
        backlog.note_pick(0, identity, reason, one.trajectory, one.stratum, one.time_ps, one.temperature_K)
        asking_s += time.process_time() - began
    began = time.process_time()
    together = backlog.take(0, 100)
    return {
        "waiting": waiting,
        "ms_per_chunk": round(1e3 * taking_in_s / chunks, 3),
        "ms_per_label": round(1e3 * asking_s / picks, 3),
        "ms_for_100_together": round(1e3 * (time.process_time() - began), 1) if len(together) == 100 else None,
    }


def entries(number: int, chunk: Chunk) -> Iterator[tuple[Candidate, str]]:
    codes = class_codes(chunk.deviations_eV_A[chunk.kept], LOW_eV_A, HIGH_eV_A)
    for place, record in enumerate(chunk.kept.tolist()):
        rows = chunk.atom_frames == place
        offending = {
            reason: chunk.environments[rows & (chunk.atom_reasons == code)]
            for code, reason in enumerate(("candidate", *EVENTS))
        }
        events = frozenset(event for event, seen in zip(EVENTS, chunk.events[record], strict=True) if seen)
        identity = f"{number:08x}{record:08x}"
        yield (
            Candidate(
                identity,
                f"trajectory {chunk.trajectory}",
                0.002 * (number % 20 * RECORDS + record),
                f"stratum {chunk.stratum}",
                CLASSES[codes[place]],
                "before_loss" if chunk.before_loss[place] else "",
                float(chunk.deviations_eV_A[record]),
                events,
                float(chunk.temperatures_K[place]),
                offending,
            ),
            identity,
        )


def peak_MB() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {"commit": commit()} | run(arguments.chunks, arguments.labels, arguments.seed)
    found["streamed"] = streamed(max(1, arguments.chunks // 10), arguments.labels // 4, arguments.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
