"""Which events a labelled frame shows: the only place of this package that knows how they are found."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from alloop.glass.events import frame_events

EVENTS = ("overlap", "five_coordinated_Si")


def events_of(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return event -> sorted indices of its atoms, for the events that a structure shows."""
    found = frame_events(atoms)
    atoms_of = {"overlap": found.overlap_atoms, "five_coordinated_Si": found.five_coordinated_Si_atoms}
    return {event: atoms_of[event] for event in EVENTS if len(atoms_of[event])}


def lost_reason(atoms: Atoms) -> str | None:
    """Return why no label of a structure is worth having, or None."""
    return frame_events(atoms).lost_reason
