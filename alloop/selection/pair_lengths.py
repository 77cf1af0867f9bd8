"""Lengths in Å for pairs of species, and which of them holds for which two.

A pair is two species ("B-O"), a species with anything ("Li-X"), or everything with everything ("any", also "X-X").
Where several entries name the same two, two species take precedence over "X", "X" over "any"; where two "X" entries
meet ("Li-X" and "Na-X" for Li and Na), the longer one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ANY = "X"


def split_pair(pair: str) -> tuple[str, str]:
    """Return the two species of a pair as written; ("X", "X") for "any". ValueError if it does not name two."""
    if pair == "any":
        return ANY, ANY
    one, hyphen, other = pair.partition("-")
    if not (hyphen and one and other) or "-" in other:
        raise ValueError(f"{pair!r} is no pair; write two species and a hyphen as in 'B-O', 'Li-X' or 'any'")
    return one, other


def same_pair(one: str, other: str) -> bool:
    """Tell whether two keys name the same pair, in either order."""
    return sorted(split_pair(one)) == sorted(split_pair(other))


def length_matrix_A(species: Sequence[str], lengths_A: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the matrix (n_species, n_species) in Å of the length that holds for each two, 0 where none does.

    Symmetric, whichever way round the pairs are written. ValueError for a key that is no pair, or a pair given twice.
    """
    of = {frozenset(split_pair(pair)): float(length) for pair, length in lengths_A.items()}
    if len(of) < len(lengths_A):
        raise ValueError(f"a pair is given twice among {', '.join(lengths_A)}; keep one")

    def length_A(one: str, other: str) -> float:
        exact = of.get(frozenset((one, other)))
        if exact is not None:
            return exact
        wild = [of[key] for key in (frozenset((one, ANY)), frozenset((other, ANY))) if key in of]
        return max(wild) if wild else of.get(frozenset((ANY,)), 0.0)

    return np.array([[length_A(one, other) for other in species] for one in species]).reshape(
        len(species), len(species)
    )
