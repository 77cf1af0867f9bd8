from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from alloop.seeds import derived_seed

LARGEST_EXACT = 2**53  # integers up to here are exact in every reader of JSON


@given(st.integers(0, 2**31 - 1), st.lists(st.text(max_size=8) | st.integers(0, 10**6), max_size=4))
def test_seeds_are_exact_in_json(campaign_seed: int, purpose: list[str | int]) -> None:
    seed = derived_seed(campaign_seed, *purpose)
    assert 1 <= seed < LARGEST_EXACT
    assert seed == derived_seed(campaign_seed, *purpose)


def test_seed_is_the_same_in_every_process() -> None:
    code = "from alloop.seeds import derived_seed; print(derived_seed(2026, 'explore', 3, 'glass.t01', 0))"
    for hash_seed in ("0", "1"):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert int(ended.stdout) == derived_seed(2026, "explore", 3, "glass.t01", 0)


def test_neighbouring_purposes_and_campaigns_have_seeds_of_their_own() -> None:
    """Campaigns of weeks: 20 iterations, 200 trajectories of 4 chunks, 4 models."""
    found = [
        derived_seed(campaign_seed, *purpose)
        for campaign_seed in (0, 1, 11)
        for iteration in range(20)
        for purpose in (
            *(("explore", iteration, f"glass.t{t:02d}", chunk) for t in range(200) for chunk in range(4)),
            *(("train", iteration, model) for model in range(4)),
            ("select", iteration),
        )
    ]
    assert len(set(found)) == len(found)
