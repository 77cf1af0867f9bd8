from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from alloop.seeds import derived_seed

LARGEST_LAMMPS_SEED = 900_000_000  # random_mars.cpp: "seed <= 0 || seed > 900000000" is an error


@given(st.integers(0, 2**31 - 1), st.lists(st.text(max_size=8) | st.integers(0, 10**6), max_size=4))
def test_seeds_are_what_lammps_accepts(campaign_seed: int, purpose: list[str | int]) -> None:
    seed = derived_seed(campaign_seed, *purpose)
    assert 1 <= seed <= LARGEST_LAMMPS_SEED
    assert seed == derived_seed(campaign_seed, *purpose)


def test_seed_is_the_same_in_every_process() -> None:
    code = "from alloop.seeds import derived_seed; print(derived_seed(2026, 'explore', 3, 'glass.t01', 0))"
    for hash_seed in ("0", "1"):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert int(ended.stdout) == derived_seed(2026, "explore", 3, "glass.t01", 0)


def test_neighbouring_purposes_and_campaigns_have_seeds_of_their_own() -> None:
    """A campaign of one night: 5 iterations, 40 trajectories of 2 chunks, 4 models."""
    found = [
        derived_seed(campaign_seed, *purpose)
        for campaign_seed in (0, 1, 11)
        for iteration in range(5)
        for purpose in (
            *(("explore", iteration, f"glass.t{t:02d}", chunk) for t in range(40) for chunk in range(2)),
            *(("train", iteration, model) for model in range(4)),
            ("select", iteration),
        )
    ]
    assert len(set(found)) == len(found)
