"""How long the decision takes that closes an exploration, from what chunks have written to its record.

    python benchmarks/decide_select.py [--chunks 800] [--streamed]

The results are made up, as files: chunks of 63 atoms with 28 frames each (20 candidates, two events, random ones), the
environments of their offending atoms, and training data that novelty is measured against. Timed is
`decisions.selection.decide_select` alone, all at once (as with `--barrier`) or, with `--streamed`, the audit only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms

from alloop.config import parse
from alloop.decisions.exploration import trajectories
from alloop.decisions.selection import decide_select
from alloop.event_params import definitions
from alloop.frames import write_arrays, write_frames
from alloop.selection.backlog import Backlog
from alloop.selection.diversity import Environments, Known, Scale
from alloop.selection.picks import Rules
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


def campaign(folder: Path, chunks: int, streamed: bool) -> Any:
    """Return a campaign that explored once, as far as the decision looks at it."""
    rng = np.random.default_rng(1)
    explore = {"temperatures_K": [300, 1000, 2000, 3000], "ramps": [], "trajectories": chunks // 40, "chunks": 10}
    given = {"name": "scale", "glasses": [{"name": "LBS-20-60-20", "n_atoms": [63]}], "explore": explore}
    given["select"] = {"max_labels": 500, "audit": 50, "events": {event: {"quota": 20} for event in EVENTS}}
    param = parse(given)
    condition = {"temperature_start_K": 300.0, "temperature_end_K": 300.0, "n_steps": 5000, "timestep_fs": 1.0}
    spec = {"condition": condition, "trust_low_eV_A": 0.25, "trust_high_eV_A": 1.0}
    tasks, summaries = [], {}
    for trajectory in trajectories(param):
        for chunk in range(param.explore.chunks):
            name = f"{trajectory.name}.c{chunk:02d}"
            key = content_key(name)
            summaries[key] = write_chunk(folder / key, rng)
            tasks.append({"key": key, "name": name, "spec": spec})
    known = Known(Scale.fit(reference := environments(rng, 4000)))
    known.cover(reference)
    (folder / "known").mkdir()
    write_arrays(folder / "known" / KNOWN, known.arrays())
    decided = {"number": 3, "common": {"events": definitions(param.select.events)}, "tasks": tasks}
    state = SimpleNamespace(
        decisions={("explore", 0): decided, ("describe", 0): {"tasks": [{"key": "known"}], "labels": []}},
        done={"known", *summaries},
        superseded={},
        picks={},
        picks_in={},
        trajectories={trajectory.name: "training" for trajectory in trajectories(param)},
        starts=[{"number": 1, "config": given}],
        backlog=Backlog(),
    )
    if streamed:
        state.backlog.open_round(0, Rules(500, 8, 0.05, 50), 1)
    own = {"summary": summaries.__getitem__, "result": folder.__truediv__, "level": LEVEL}
    return SimpleNamespace(state=state, **own), param


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=800, help="a multiple of 40")
    parser.add_argument("--streamed", action="store_true", help="frames were picked as they came: the audit is left")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, param = campaign(Path(folder), arguments.chunks, arguments.streamed)
        began = time.process_time()
        decision = decide_select(made, param, 0)
        seconds = time.process_time() - began
    frames = arguments.chunks * FRAMES
    told = {"came_home": frames, "cpu_s": round(seconds, 2), "ms_per_frame": round(1e3 * seconds / frames, 4)}
    print(json.dumps(told | {"picks": len(decision["picks"]), "reasons": decision["reasons"]}, indent=1))


if __name__ == "__main__":
    main()
