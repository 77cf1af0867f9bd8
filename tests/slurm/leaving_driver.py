"""A driver of its own that fills all slots of a pool and is then killed: leaving_driver.py ROOT SECONDS."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from slurm_kit import Campaign, SmallDriver, pool_param

root, seconds = Path(sys.argv[1]), float(sys.argv[2])
campaign = Campaign(root)
driver = SmallDriver(campaign, {"vasp": pool_param(root, jobs=2, slots_per_job=2)}, epoch=1)
keys = [campaign.sleeper(seconds) for _ in range(4)]
driver.want("vasp", *keys)
driver.until(lambda: all(campaign.attempts(key) for key in keys), 40, "four attempts")
os.kill(os.getpid(), signal.SIGKILL)
