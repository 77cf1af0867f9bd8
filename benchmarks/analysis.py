"""How fast is the analysis, and do others count the same? Against matscipy, sovapy and ASE on the same frames.

    python benchmarks/analysis.py [--folder DIR] [--peer-python PATH] [--rounds 3] [--json FILE]
                                  [--atoms 1000] [--snapshots 1000] [--glasses 20] [--small-atoms 150]

Everything runs on one core, in less than 8 minutes if it has that core for itself. Times are CPU seconds, which other
work on the machine touches little. The frames are classical glasses made here (Teter force field, quenched in
picoseconds, so they have every defect): one of 1008 atoms, its 1000 snapshots of a cooling run, and 20 of about 150
atoms, of the eleven compositions. Without --peer-python the others are installed into an environment below DIR.

- Speed: coordination of B and Si and all primitive rings of up to 12 formers (24 atoms) of the large glass, medians
  of interleaved rounds (sovapy, which takes minutes, has one). All three make sure that a ring closes without winding
  through the box: alloop searches the unfolded network, matscipy rejects cycles whose bond vectors do not add up to
  zero, and sovapy lists every cycle and is asked for its property `closed` of each. A chain of six atoms that closes
  through its box only, which has no ring, is given to all of them first.
- Trajectory: coordination and rings of three boron atoms of 1000 frames, one after the other.
- Neighbours: alloop's list and that of ASE at 2.6 Å.
- Agreement: rings of the 20 glasses. Every ring that one has and another has not is traced to its cause.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read, write
from ase.neighborlist import neighbor_list

from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.coordination import DEFAULT_CUTOFFS_A, coordination
from alloop.glass.melt_quench import MeltQuench, melt_quench
from alloop.glass.neighbours import NeighbourList, neighbour_list
from alloop.glass.rings import Ring, find_rings, ring_counts
from alloop.store import write_json

FORMERS = ("B", "Si")
MAX_RING = 12
REACH_A = max(DEFAULT_CUTOFFS_A.values())
PEERS = ("matscipy", "sovapy")
Node = tuple[int, tuple[int, int, int]]

BOX = "a path through the periodic box is shorter; the other works on the folded network"
TRICLUSTER = "a former and an oxygen atom have a shorter path over an oxygen atom of three formers; alloop asks formers"
UNKNOWN = "unexplained"


def peer_environment(folder: Path) -> Path:
    python = folder / "peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "sovapy==0.8.3", "matscipy==1.3.1"], check=True)
    return python


def make_frames(folder: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Files of the large glass, its cooling run with all snapshots, and the small glasses."""
    large, cooling, small = (folder / f"{name}.extxyz" for name in ("large", "cooling", "small"))
    if not cooling.exists():
        glass = TABLE_1["LBS-20-60-20"]
        schedule = MeltQuench(melt_ps=1, cooling_rate_K_ps=800, n_snapshots=options.snapshots)
        counts = stoichiometric_counts(glass, options.atoms)
        snapshots = melt_quench(glass, counts, schedule, seed=1, directory=folder / "large")
        write(large, snapshots[-1].atoms)
        part = cooling.with_suffix(".part")
        write(part, [snapshot.atoms for snapshot in snapshots], format="extxyz")
        part.rename(cooling)
    if not small.exists():
        schedule = MeltQuench(melt_ps=0.2, cooling_rate_K_ps=3200, n_snapshots=2)
        glasses: list[Atoms] = []
        for seed, name in enumerate([*TABLE_1, *TABLE_1][: options.glasses]):
            counts = stoichiometric_counts(TABLE_1[name], options.small_atoms)
            made = melt_quench(TABLE_1[name], counts, schedule, seed=100 + seed, directory=folder / "small")
            glasses.append(made[-1].atoms)
        write(small, glasses)
    return large, cooling, small


def count(atoms: Atoms) -> tuple[dict[str, dict[str, int]], list[Ring]]:
    neighbours = neighbour_list(atoms, REACH_A)
    coordinated = coordination(neighbours, DEFAULT_CUTOFFS_A)
    return coordinated, find_rings(neighbours, formers=FORMERS, definition="primitive", max_ring=MAX_RING)


def peer(python: Path, library: str, frames: Path) -> dict[str, Any]:
    command = [str(python), str(Path(__file__).with_name("analysis_peers.py")), library, str(frames)]
    done = subprocess.run([*command, "--max-ring", str(MAX_RING)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def chain(python: Path, folder: Path) -> dict[str, Any]:
    """What each says of a chain of three B and three O that closes through the box only: it has no ring."""
    file = folder / "chain.extxyz"
    atoms = Atoms("BOBOBO", positions=[[1.5 * k, 5, 5] for k in range(6)], cell=[9, 10, 10], pbc=True)
    write(file, atoms)
    matscipy, sovapy = (peer(python, library, file)["frames"][0] for library in PEERS)
    found = {
        "alloop": len(count(atoms)[1]),
        "matscipy": sum(matscipy["counts"].values()),
        "sovapy": sum(sovapy["closed"]),
        "sovapy_cycles": len(sovapy["rings"]),
    }
    if found["alloop"] or found["matscipy"] or found["sovapy"]:
        raise SystemExit(f"a chain is taken for a ring: {found}")
    return found


def speed(python: Path, large: Path, repeats: int) -> dict[str, Any]:
    """Median seconds of each, in rounds of all three; alloop's first call, which loads compiled code, is apart."""
    atoms = read(large)
    begun = time.process_time()
    rings = {"alloop": len(count(atoms)[1])}
    record: dict[str, Any] = {"atoms": len(atoms), "first_call_s": time.process_time() - begun}
    seconds: dict[str, list[float]] = {"alloop": [], **{library: [] for library in PEERS}}
    for number in range(repeats):
        begun = time.process_time()
        count(atoms)
        seconds["alloop"].append(time.process_time() - begun)
        for library in PEERS if number == 0 else PEERS[:1]:
            told = peer(python, library, large)
            seconds[library] += told["seconds"]
            rings[library] = sum(
                told["frames"][0]["counts"].values() if library == "matscipy" else told["frames"][0]["closed"]
            )
    record |= {"seconds": seconds, "rings": rings}
    record["median_s"] = {name: statistics.median(values) for name, values in seconds.items()}
    for library in PEERS:
        record[f"{library}_over_alloop"] = record["median_s"][library] / record["median_s"]["alloop"]
    return record


def trajectory(cooling: Path) -> dict[str, Any]:
    frames = read(cooling, ":")
    begun = time.process_time()
    three_rings = []
    for atoms in frames:
        neighbours = neighbour_list(atoms, REACH_A)
        coordination(neighbours, DEFAULT_CUTOFFS_A)
        found = find_rings(neighbours, formers=("B",), definition="primitive", max_ring=3)
        three_rings.append(ring_counts(found).get("3", 0))
    seconds = time.process_time() - begun
    return {"frames": len(frames), "atoms": len(frames[0]), "seconds": seconds, "three_rings_last": three_rings[-1]}


def neighbours_speed(large: Path, repeats: int) -> dict[str, float]:
    atoms = read(large)
    own, ase = [], []
    for _ in range(repeats):
        begun = time.process_time()
        neighbour_list(atoms, REACH_A)
        between = time.process_time()
        neighbor_list("ijdDS", atoms, REACH_A)
        own.append(between - begun)
        ase.append(time.process_time() - between)
    return {"alloop_s": statistics.median(own), "ase_s": statistics.median(ase)}


def canonical(indices: Sequence[int]) -> tuple[int, ...]:
    start = indices.index(min(indices))
    ring = [*indices[start:], *indices[:start]]
    return min(tuple(ring), (ring[0], *ring[:0:-1]))


class AtomNetwork:
    """Formers and oxygen atoms as nodes, as the others see it; `folded` forgets the images."""

    def __init__(self, neighbours: NeighbourList) -> None:
        self.bonded: dict[int, list[Node]] = {atom: [] for atom in range(neighbours.n_atoms)}
        for former in FORMERS:
            for bond in neighbours.bonds(former, "O", DEFAULT_CUTOFFS_A[f"{former}-O"]):
                a, b = int(neighbours.first[bond]), int(neighbours.second[bond])
                shift = tuple(int(x) for x in neighbours.shifts[bond])
                self.bonded[a].append((b, shift))
                self.bonded[b].append((a, tuple(-x for x in shift)))

    def within(self, start: Node, links: int, folded: bool) -> set[Node]:
        reached, frontier = {start}, [start]
        for _ in range(links):
            found = []
            for atom, shift in frontier:
                for other, move in self.bonded[atom]:
                    moved = tuple(a + b for a, b in zip(shift, move, strict=True))
                    node = (other, (0, 0, 0) if folded else moved)
                    if node not in reached:
                        reached.add(node)
                        found.append(node)
            frontier = found
        return reached

    def has_shortcut(self, ring: Ring, folded: bool) -> bool:
        nodes = [None] * (2 * ring.size)
        nodes[::2] = zip(ring.formers, ring.former_shifts, strict=True)
        nodes[1::2] = zip(ring.oxygens, ring.oxygen_shifts, strict=True)
        if folded:
            nodes = [(atom, (0, 0, 0)) for atom, _ in nodes]
        return any(
            nodes[(k + ring.size) % (2 * ring.size)] in self.within(nodes[k], ring.size - 1, folded)
            for k in range(ring.size)
        )

    def winds(self, indices: Sequence[int]) -> bool:
        """Whether the bonds of a cycle add up to a lattice vector; cells are wide enough for one image per bond."""
        total = [0, 0, 0]
        for atom, after in zip(indices, [*indices[1:], indices[0]], strict=True):
            move = dict(self.bonded[atom])[after]
            total = [a + b for a, b in zip(total, move, strict=True)]
        return total != [0, 0, 0]


def differences(atoms: Atoms, matscipy: dict[str, Any], sovapy: dict[str, Any]) -> dict[str, Counter[str]]:
    """Causes of what differs in one frame, per library, with the number of rings."""
    coordinated, rings = count(atoms)
    network = AtomNetwork(neighbour_list(atoms, REACH_A))
    mine = {}
    for ring in rings:
        indices = [atom for pair in zip(ring.formers, ring.oxygens, strict=True) for atom in pair]
        cause = TRICLUSTER if network.has_shortcut(ring, folded=False) else None
        cause = cause or (BOX if network.has_shortcut(ring, folded=True) else None)
        mine[canonical(indices)] = cause
    found = {"matscipy": Counter[str](), "sovapy": Counter[str]()}
    for ring, closed in zip(sovapy["rings"], sovapy["closed"], strict=True):
        if closed == network.winds(ring):
            raise SystemExit(f"sovapy and alloop do not agree whether {ring} winds through the box")
    theirs = {canonical(ring) for ring, closed in zip(sovapy["rings"], sovapy["closed"], strict=True) if closed}
    for ring in theirs ^ set(mine):
        found["sovapy"][mine.get(ring) or UNKNOWN] += 1
    expected = Counter(str(len(ring) // 2) for ring, cause in mine.items() if cause is None)
    counted = Counter(matscipy["counts"])
    for size in expected | counted:
        found["matscipy"][UNKNOWN] += abs(expected[size] - counted[size])
    if counted != Counter(str(len(ring) // 2) for ring in mine):
        found["matscipy"] += Counter(cause for cause in mine.values() if cause)
    for library, other in (("matscipy", matscipy), ("sovapy", sovapy)):
        for element in FORMERS:
            same = other["coordination"][element] == coordinated.get(element, {})
            found[library]["coordination differs"] += 0 if same else 1
    return {library: +causes for library, causes in found.items()}


def agreement(python: Path, small: Path) -> dict[str, Any]:
    frames = read(small, ":")
    others = {library: peer(python, library, small)["frames"] for library in PEERS}
    record: dict[str, Any] = {"frames": len(frames), "rings": sum(len(count(atoms)[1]) for atoms in frames)}
    found = [differences(atoms, others["matscipy"][k], others["sovapy"][k]) for k, atoms in enumerate(frames)]
    for library in PEERS:
        causes = [one[library] for one in found]
        record[library] = {
            "frames_that_differ": sum(bool(one) for one in causes),
            "rings_by_cause": dict(sum(causes, Counter())),
        }
    record["sovapy"]["cycles_that_wind_left_out"] = sum(one["closed"].count(False) for one in others["sovapy"])
    return record


def commit() -> str:
    """The commit of this checkout, with a plus if files differ from it; empty outside of one."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = [round(value, 1) for value in os.getloadavg()]
    return {"cpu": models[0] if models else platform.processor(), "cores": os.cpu_count(), "load_at_start": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("analysis-benchmark"))
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--atoms", type=int, default=1000, help="of the large glass")
    parser.add_argument("--snapshots", type=int, default=1000, help="of its cooling run")
    parser.add_argument("--glasses", type=int, default=20, help="small ones, to compare ring by ring")
    parser.add_argument("--small-atoms", type=int, default=150)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    begun, where = time.perf_counter(), {"commit": commit(), "machine": machine()}
    options.folder.mkdir(parents=True, exist_ok=True)
    python = options.peer_python or peer_environment(options.folder)
    large, cooling, small = make_frames(options.folder, options)
    record = where | {
        "max_ring": MAX_RING,
        "chain_that_is_no_ring": chain(python, options.folder),
        "speed": speed(python, large, options.rounds),
        "trajectory": trajectory(cooling),
        "neighbours": neighbours_speed(large, options.rounds),
        "agreement": agreement(python, small),
    }
    record["wall_s"] = time.perf_counter() - begun
    print(json.dumps(record, indent=1))
    if options.json:
        write_json(options.json, record)


if __name__ == "__main__":
    main()
