"""A double of `python` for pools: runs alloop.attempt with tasks that sleep."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from alloop import attempt

assert sys.argv[1:3] == ["-m", "alloop.attempt"], sys.argv
attempt.MODULES["label"] = "sleeping_task"
sys.argv[1:3] = []
raise SystemExit(attempt.main())
