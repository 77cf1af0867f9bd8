"""What it costs to choose labels from what chunks have written: all at once, and chunk by chunk as a driver does.

    python benchmarks/decide_select.py [--chunks 800] [--json FILE]

The results are made up, as files: chunks of 63 atoms with 28 frames each (20 candidates, two events, random ones), the
environments of their offending atoms, and training data that novelty is measured against. Each way runs in a process of
its own on the same files.

`batch` is `decisions.selection.decide_select` alone, which sees all frames at once (as with `--barrier`). `streamed` is
what the driver does: `Explored.landed` takes in each chunk as it ends, `decide_pick` asks for labels one by one at an
even pace, and `decide_select`, which has the audit left to draw, closes the exploration. Memory is by how much the peak
of the process is above what it was before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms
from checkout import commit

from alloop.config import Param, parse
from alloop.decisions.exploration import trajectories
from alloop.decisions.selection import Explored, decide_pick, decide_select
from alloop.event_params import definitions
from alloop.frames import write_arrays, write_frames
from alloop.selection.diversity import Environments, Known, Scale
from alloop.state import State
from alloop.store import read_json, write_json
from alloop.structure import content_key, to_record
from alloop.tasks.describe import ENVIRONMENTS, KNOWN

FRAMES, RECORDS, DIMENSIONS = 28, 250, 32
SYMBOLS = ["Li"] * 6 + ["B"] * 18 + ["O"] * 36 + ["Si"] * 3
EVENTS = ("overlap", "five_coordinated_Si")
LEVEL = {"name": "rehearsal", "content": {"labeler": "teter-rehearsal", "options": {}}}


def environments(rng: np.random.Generator, count: int) -> Environments:
    vectors = rng.standard_normal((count, DIMENSIONS), dtype=np.float32)
    return Environments(rng.choice(np.array([3, 5, 8, 14], dtype=np.int16), count), vectors)


def write_chunk(result: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Write what a chunk brings home and return its summary."""
    result.mkdir()
    structures = [Atoms(SYMBOLS, rng.uniform(0, 9, (63, 3)), cell=[9, 9, 9], pbc=True) for _ in range(FRAMES)]
    steps = 20 * np.sort(rng.permutation(RECORDS)[:FRAMES])
    deviation = rng.uniform(0.25, 0.999, FRAMES)
    seen = {event: rng.random(FRAMES) < 0.15 for event in EVENTS}
    drawn = np.arange(FRAMES) % 9 == 0
    write_frames(
        result / "frames.npz",
        structures,
        {f"offending:{event}": [np.arange(2) if one else np.arange(0) for one in seen[event]] for event in EVENTS},
        content=[content_key(to_record(atoms)) for atoms in structures],
        step=steps,
        max_force_deviation_eV_A=deviation,
        max_force_deviation_atom=np.zeros(FRAMES, dtype=int),
        force_deviation_eV_A=rng.uniform(0, 0.2, (FRAMES, 63)),
        temperature_K=np.full(FRAMES, 300.0),
        target_temperature_K=np.full(FRAMES, 300.0),
        kept_for=np.where(drawn, "audit", "candidate"),
        audit_of=np.where(drawn, RECORDS, 0),
        trust_class=np.array(["candidate"] * FRAMES),
        **{f"event:{event}": flags for event, flags in seen.items()},
    )
    atoms = [(frame, 0) for frame in range(FRAMES)]
    atoms += [(int(f), code) for code, e in enumerate(EVENTS, 1) for f in np.repeat(np.flatnonzero(seen[e]), 2)]
    table, found = np.array(atoms), environments(rng, len(atoms))
    own = {"frame": table[:, 0], "reason": table[:, 1], "reasons": np.array(["candidate", *EVENTS])}
    write_arrays(result / ENVIRONMENTS, own | {"elements": found.elements, "vectors": found.vectors})
    classes = {"accurate": RECORDS - 100, "candidate": 100, "failed": 0}
    return {"status": "finished", "classes": classes, "events": {event: int(own.sum()) for event, own in seen.items()}}


def configuration(chunks: int) -> dict[str, Any]:
    """Return a configuration that explores with so many chunks, a multiple of 40."""
    explore = {"temperatures_K": [300, 1000, 2000, 3000], "ramps": [], "trajectories": chunks // 40, "chunks": 10}
    given = {"name": "scale", "glasses": [{"name": "LBS-20-60-20", "n_atoms": [63]}], "explore": explore}
    return given | {"select": {"max_labels": 500, "audit": 50, "events": {event: {"quota": 20} for event in EVENTS}}}


def chunk_names(param: Param) -> dict[str, str]:
    """Return key -> name of every chunk."""
    names = [f"{own.name}.c{chunk:02d}" for own in trajectories(param) for chunk in range(param.explore.chunks)]
    return {content_key(name): name for name in names}


def write_results(folder: Path, chunks: int) -> None:
    """Write the results of all chunks, and what the training data know."""
    rng = np.random.default_rng(1)
    write_json(
        folder / "summaries.json",
        {key: write_chunk(folder / key, rng) for key in chunk_names(parse(configuration(chunks)))},
    )
    known = Known(Scale.fit(reference := environments(rng, 4000)))
    known.cover(reference)
    (folder / "known").mkdir()
    write_arrays(folder / "known" / KNOWN, known.arrays())


def campaign(folder: Path, chunks: int) -> tuple[Any, Param]:
    """Return a campaign that has just asked for its chunks, as far as a selection looks at it."""
    given = configuration(chunks)
    param = parse(given)
    condition = {"temperature_start_K": 300.0, "temperature_end_K": 300.0, "n_steps": 5000, "timestep_fs": 1.0}
    spec = {"condition": condition, "trust_low_eV_A": 0.25, "trust_high_eV_A": 1.0}
    tasks = [{"key": key, "name": name, "spec": spec, "inputs": []} for key, name in chunk_names(param).items()]
    state = State()
    roles = {trajectory.name: "training" for trajectory in trajectories(param)}
    explore = {"common": {"events": definitions(param.select.events)}, "tasks": tasks, "trajectories": roles}
    state.apply({"kind": "start", "number": 1, "config": given})
    described = [{"key": "known", "name": "known", "spec": {}, "inputs": []}]
    state.apply({"kind": "describe", "number": 2, "iteration": 0, "tasks": described, "labels": []})
    state.apply({"kind": "explore", "number": 3, "iteration": 0} | explore)
    state.settle_done("known")
    summaries = read_json(folder / "summaries.json")
    own = {"summary": summaries.__getitem__, "result": folder.__truediv__, "level": LEVEL}
    return SimpleNamespace(state=state, **own), param


class Meter:
    """Adds up CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[what] += time.process_time() - began


def batch(made: Any, param: Param, meter: Meter) -> list[dict[str, Any]]:
    """Choose of all chunks at once, and return the picks."""
    for entry in made.state.decisions["explore", 0]["tasks"]:
        made.state.settle_done(entry["key"])
    with meter("decide"):
        return decide_select(made, param, 0)["picks"]


def streamed(made: Any, param: Param, meter: Meter, *, close: bool = True) -> list[dict[str, Any]]:
    """Choose label by label as the chunks end one by one, and return the picks; with `close` also the audit's."""
    state, explored = made.state, Explored(made, param)
    tasks, asked = state.decisions["explore", 0]["tasks"], 0
    most = param.select.max_labels - param.select.audit_labels
    with meter("take_in"):
        explored.begin(0)
    for ended, entry in enumerate(tasks, start=1):
        with meter("take_in"):
            state.settle_done(entry["key"])
            explored.landed(entry["key"])
        with meter("ask"):
            while asked < most * ended // len(tasks) and state.backlog.newest() == 0:
                content = decide_pick(made, param, 0, 1)
                state.apply({"kind": "pick", "number": state.next_number, "iteration": 0} | content)
                asked += 1
    if not close:
        return [*state.picks_in.get(0, ())]
    with meter("close"):
        closing = decide_select(made, param, 0)["picks"]
    return [*state.picks_in.get(0, ()), *closing]


WAYS: dict[str, Callable[[Any, Param, Meter], list[dict[str, Any]]]] = {"batch": batch, "streamed": streamed}


def measured(way: str, folder: Path, chunks: int) -> dict[str, Any]:
    """Return what one way of choosing costs and picks; for a process of its own, whose peak of memory it is."""
    made, param = campaign(folder, chunks)
    meter, before_MB = Meter(), peak_MB()
    picks = WAYS[way](made, param, meter)
    seconds, frames = meter.seconds.total(), chunks * FRAMES
    return {
        "cpu_s": round(seconds, 2),
        "of_which": {f"{what}_s": round(own, 2) for what, own in meter.seconds.items()},
        "ms_per_frame": round(1e3 * seconds / frames, 4),
        "peak_MB_above_start": round(peak_MB() - before_MB, 1),
        "peak_bytes_per_frame": round(1e6 * (peak_MB() - before_MB) / frames),
        "peak_rss_MB": round(peak_MB(), 1),
        "picks": len(picks),
        "reasons": dict(Counter(pick["reason"] for pick in picks)),
    }


def peak_MB() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=800, help="a multiple of 40")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {"commit": commit(), "python": sys.version.split()[0], "chunks": arguments.chunks}
    found["came_home"] = arguments.chunks * FRAMES
    with tempfile.TemporaryDirectory() as folder:
        write_results(Path(folder), arguments.chunks)
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found[way] = process.apply(measured, (way, Path(folder), arguments.chunks))
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
