"""Seeds: every random choice of a campaign has its own, derived from the campaign's seed and what it is for."""

from __future__ import annotations

import hashlib

_LARGEST = 2**53 - 1  # the largest number that every reader of JSON keeps exact; two of 10^5 seeds meet once in 10^6


def derived_seed(campaign_seed: int, *purpose: str | int) -> int:
    """Return the seed, 1 to 2^53, of one purpose such as ``("explore", iteration, trajectory)``."""
    text = "/".join(map(str, (campaign_seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _LARGEST + 1
