from __future__ import annotations

import sys
from pathlib import Path

for place in (Path(__file__).parent, Path(__file__).parents[1] / "engine"):
    sys.path.insert(0, str(place))  # report_kit, campaign_kit and engine_kit are plain modules
