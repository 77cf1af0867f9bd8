"""``python -m alloop.attempt`` with the task modules swapped for their doubles."""

from __future__ import annotations

from alloop import attempt

if __name__ == "__main__":
    attempt.MODULES.update({kind: f"quick_{kind}" for kind in attempt.MODULES})
    raise SystemExit(attempt.main())
