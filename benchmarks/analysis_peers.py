"""Coordination and primitive rings by matscipy or sovapy, in an environment of their own; `analysis.py` runs this.

    python analysis_peers.py matscipy|sovapy FRAMES.extxyz --max-ring 12 --repeats 3

Prints JSON: CPU seconds of every repeat and, per frame, the coordination histograms of B and Si and what the library
says of rings: the number by formers in a ring (matscipy), or the rings themselves as atom indices and whether each
closes without winding through the box (sovapy, which lists the winding ones too and tells them apart on request).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

CUTOFFS_A = {("B", "O"): 1.9, ("Si", "O"): 2.0}


def by_matscipy(atoms: Atoms, max_ring: int) -> dict[str, Any]:
    from matscipy.neighbours import neighbour_list
    from matscipy.rings import distances_on_graph, find_sp_rings

    i, j, vectors = neighbour_list("ijD", atoms, CUTOFFS_A)
    bonds = np.bincount(i, minlength=len(atoms))
    # matscipy.rings.ring_statistics is these two calls, but for calling the last one twice
    counts = find_sp_rings(i, j, vectors, distances_on_graph(i, j), 2 * max_ring + 1)
    return {
        "coordination": {x: dict(Counter(bonds[atoms.symbols == x].tolist())) for x in ("B", "Si")},
        "counts": {size // 2: int(n) for size, n in enumerate(counts) if n and size},
    }


def sovapy_atoms(atoms: Atoms) -> Any:
    from sovapy.core.file import File

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.xyz"
        lengths = " ".join(f"{length:.12g}" for length in atoms.cell.lengths())
        rows = zip(atoms.symbols, atoms.positions.tolist(), strict=True)
        lines = [f"{symbol} {x:.12f} {y:.12f} {z:.12f}" for symbol, (x, y, z) in rows]
        file.write_text("\n".join([str(len(atoms)), f"ORT {lengths}", *lines]) + "\n")
        return File.open(str(file)).get_atoms(0)


def by_sovapy(atoms: Any, max_ring: int) -> dict[str, Any]:
    from sovapy.computation.rings import RINGs

    kinds = list(atoms.symbol_set)
    pairs = [(a, b) for a in kinds for b in kinds]
    wanted = {pair: length for (a, b), length in CUTOFFS_A.items() for pair in ((a, b), (b, a))}
    atoms.set_bond_lengths({pair: wanted.get(pair, 0.0) for pair in pairs})
    symbols = np.array(atoms.symbols)
    bonds = np.array([len(bonded) for bonded in atoms.bonds])
    found = RINGs(atoms).calculate(RINGs.RingType.PRIMITIVE, [["B", "O"], ["Si", "O"]], cutoff_size=2 * max_ring)
    return {
        "coordination": {x: dict(Counter(bonds[symbols == x].tolist())) for x in ("B", "Si")},
        "rings": [[int(atom) for atom in ring.indexes] for ring in found],
        "closed": [bool(ring.closed) for ring in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("matscipy", "sovapy"))
    parser.add_argument("frames", type=Path)
    parser.add_argument("--max-ring", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    frames = read(options.frames, ":")
    given = frames if options.library == "matscipy" else [sovapy_atoms(atoms) for atoms in frames]
    counter = by_matscipy if options.library == "matscipy" else by_sovapy
    out, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123  (sovapy prints as it goes)
    seconds = []
    for _ in range(options.repeats):
        begun = time.process_time()
        result = [counter(atoms, options.max_ring) for atoms in given]
        seconds.append(time.process_time() - begun)
        if options.library == "sovapy":
            given = [sovapy_atoms(atoms) for atoms in frames]  # it keeps bonds once found
    json.dump({"seconds": seconds, "frames": result}, out)


if __name__ == "__main__":
    main()
