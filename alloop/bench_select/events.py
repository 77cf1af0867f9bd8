"""Which events a labelled frame shows: the only place of this package that knows how they are found."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.selection.events import Watch

EVENTS = ON_BY_DEFAULT
_WATCH = Watch({event: PRESETS[event] for event in EVENTS})


def events_of(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return event -> sorted indices of its atoms, for the events that a structure shows."""
    found = _WATCH.look(atoms)
    return {event: found.offending[event] for event in EVENTS if found.seen(event)}


def lost_reason(atoms: Atoms) -> str | None:
    """Return why no label of a structure is worth having, or None."""
    return _WATCH.look(atoms).lost_reason
