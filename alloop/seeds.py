"""Seeds: every random choice of a campaign has its own, derived from the campaign's seed and what it is for."""

from __future__ import annotations

import hashlib

_LARGEST = 900_000_000  # LAMMPS' Marsaglia generator takes seeds up to 900 million


def derived_seed(campaign_seed: int, *purpose: str | int) -> int:
    """Return the seed, 1 to 900 million, of one purpose such as ``("explore", iteration, trajectory)``."""
    text = "/".join(map(str, (campaign_seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _LARGEST + 1
