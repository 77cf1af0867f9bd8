"""`alloop` whose batch pools look more often and need less time at a job's end, so that a job may last a minute."""

from __future__ import annotations

from alloop.cli import main
from alloop.pools import batch_host
from alloop.pools.engine import Timing

HASTY = Timing(look=2.0, poll=1.0, grace=20.0, end=10.0, backoff=2.0, longest_backoff=8.0, verdict=5.0, margin=5.0)

if __name__ == "__main__":
    batch_host.Timing = lambda: HASTY  # type: ignore[assignment,misc]
    main()
