"""``python -m alloop.attempt`` with the task modules swapped for their doubles, all but those told to be real."""

from __future__ import annotations

import sys

from quick_settings import told

from alloop import attempt

if __name__ == "__main__":
    del sys.argv[1:3]  # -m alloop.attempt, by which a job knows its attempts
    doubles = attempt.MODULES.keys() - told().get("real", [])
    attempt.MODULES.update({kind: f"quick_{kind}" for kind in doubles})
    raise SystemExit(attempt.main())
