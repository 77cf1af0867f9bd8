"""Temperature bands, over which the quotas of events are kept."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise


def band_names(edges_K: Sequence[float]) -> list[str]:
    """Return the names of the bands between ascending edges, coldest first; one more band than edges.

    Without an edge there is one band, "all temperatures".
    """
    if not edges_K:
        return ["all temperatures"]
    between = [f"{low:g}-{high:g} K" for low, high in pairwise(edges_K)]
    return [f"below {edges_K[0]:g} K", *between, f"from {edges_K[-1]:g} K"]


def coldest_first(names: Iterable[str]) -> list[str]:
    """Return names of bands in the order of their temperatures."""

    def lowest_K(name: str) -> float:
        found = re.match(r"(?:from )?([\d.]+(?:e[+-]?\d+)?)", name)
        return float(found[1]) if found else 0.0

    return sorted(names, key=lowest_K)


def band_of(temperature_K: float, edges_K: Sequence[float]) -> str:
    """Return the name of the band that holds a temperature; one that is an edge belongs to the band above it."""
    return band_names(edges_K)[bisect_right(list(edges_K), temperature_K)]
