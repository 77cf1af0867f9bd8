"""``python -m alloop.attempt`` with the task modules swapped for their doubles."""

from __future__ import annotations

import sys

from alloop import attempt

if __name__ == "__main__":
    del sys.argv[1:3]  # -m alloop.attempt, by which a job knows its attempts
    attempt.MODULES.update({kind: f"quick_{kind}" for kind in attempt.MODULES})
    raise SystemExit(attempt.main())
