"""A double of a task: sleeps for `seconds` of its spec, then leaves a result; fails if told to."""

from __future__ import annotations

import json
import os
import time

from alloop.attempt import Context, TaskError


def run(context: Context) -> None:
    print(f"sleeping for {context.spec['seconds']} s", flush=True)
    time.sleep(context.spec["seconds"])
    if context.spec.get("fails"):
        raise TaskError("told to fail", "unconverged")
    seen = {
        name: os.environ.get(name) for name in ("ALLOOP_POOL", "ALLOOP_JOB", "ALLOOP_CORES", "CUDA_VISIBLE_DEVICES")
    }
    (context.out / "label.json").write_text(json.dumps(seen))
