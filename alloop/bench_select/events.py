"""Which events a labelled frame shows: the only place of this package that knows how they are found."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.selection.events import Watch

EVENTS = ON_BY_DEFAULT
DEFAULT_EVENTS = {event: PRESETS[event] for event in EVENTS}
_WATCH = Watch(DEFAULT_EVENTS)


def events_of(
    atoms: Atoms, watch: Watch = _WATCH, temperature_K: float = math.nan, target_temperature_K: float = math.nan
) -> dict[str, np.ndarray]:
    """Return event -> sorted indices of its atoms, for the events that a structure shows.

    An excursion of the temperature is seen where both temperatures are known.
    """
    temperatures = {"temperature_K": temperature_K, "target_temperature_K": target_temperature_K}
    known = {name: None if math.isnan(kelvin) else kelvin for name, kelvin in temperatures.items()}
    found = watch.look(atoms, **known)
    return {event: found.offending[event] for event in watch.names if found.seen(event)}


def lost_reason(atoms: Atoms) -> str | None:
    """Return why no label of a structure is worth having, or None."""
    return _WATCH.look(atoms).lost_reason
