"""What may go wrong in a simulated borosilicate, as events to watch for: plain settings without any machinery.

`PRESETS` holds what `alloop.selection.events.Watch` takes, by name. Coordination numbers depend on the bond cutoffs;
these are the ones of `alloop.glass.coordination`.
"""

from __future__ import annotations

from typing import Any

# Below these distances a structure is lost: no label of it helps, and the run has to go back to an earlier frame. Usual
# guards of melt-quench runs: potentials without a short-range wall are known to collapse from about 2000 K on. The
# shortest contacts of melts at 3500 K come within 0.1 Å of them. Two lithium ions get below 1.2 Å there under force
# fields with partial charges and no Li-Li repulsion; give "Li-Li" a gate of its own for such.
HARD_GATES_A: dict[str, float] = {"B-O": 1.0, "Si-O": 1.2, "O-O": 1.7, "Li-X": 1.2, "any": 0.8}

# Between the gates and what a sound melt does. Measured on classical NVT melts of 20Li2O-60B2O3-20SiO2 (84 atoms) and
# 40Li2O-40B2O3-20SiO2 (76 atoms), 600 frames 20 fs apart, with the pair terms of the Bertani-Menziani-Pedone force
# field: no frame of either has a shorter contact at 2000 K, 2 % and 5 % have one at 3500 K. Larger cells have more, and
# so has SevenNet-0: 0.6 and 1.0 % of the time at 2000 K in about 105 atoms (benchmarks/results/labeler_melts.json).
NEAR_OVERLAP_A: dict[str, float] = {"B-O": 1.15, "Si-O": 1.30, "O-O": 1.85, "Li-X": 1.30, "any": 1.50}

# Length of a former's bond to oxygen, where an event does not give its own.
BOND_CUTOFFS_A: dict[str, float] = {"B": 1.9, "Si": 2.0}


def _coordination(element: str, by: list[str], **bounds: int) -> dict[str, Any]:
    lengths = {other: BOND_CUTOFFS_A[element if other == "O" else other] for other in by}
    return {"kind": "coordination", "element": element, "by": by, "cutoff_A": lengths, **bounds}


PRESETS: dict[str, dict[str, Any]] = {
    # Taken at 3500 K it is a frame worth a label, not a failure: a sound melt has some.
    "overlap": {"kind": "pair_distance", "below_A": NEAR_OVERLAP_A, "gate_A": HARD_GATES_A},
    # An artefact of potentials that learned too little about silicon between lithium atoms; melts above about 2000 K
    # hold some of it as a matter of course.
    "five_coordinated_Si": _coordination("Si", ["O"], at_least=5),
    "under_coordinated_Si": _coordination("Si", ["O"], at_most=3),
    "under_coordinated_B": _coordination("B", ["O"], at_most=2),
    "five_coordinated_B": _coordination("B", ["O"], at_least=5),
    "oxygen_tricluster": _coordination("O", ["B", "Si"], at_least=3),
    "edge_sharing_tetrahedra": {"kind": "edge_sharing", "formers": ["B", "Si"], "by": "O", "cutoff_A": BOND_CUTOFFS_A},
}
ON_BY_DEFAULT = ("overlap", "five_coordinated_Si")
