"""Double of a training: files of the right names, with nothing but the seed in them."""

from __future__ import annotations

import json

from quick_settings import begin

from alloop.attempt import Context
from alloop.potential.checkpoints import backend_named
from alloop.store import write_json

ROWS = 5


def run(context: Context) -> None:
    settings = begin("train", context)
    spec = context.spec
    backend = backend_named(spec["backend"])
    text = json.dumps({"seed": spec["seed"]}) + "\n"
    names = [f"model{backend.model_suffix}"]
    if spec["compress"] and backend.compresses:
        names.append(f"model-compressed{backend.model_suffix}")
    checkpoint = backend.prefix(context.out, spec["steps"])
    for file in [*(context.out / name for name in names), *backend.files(checkpoint)]:
        file.write_text(text)
    steps = [spec["steps"] * row // ROWS for row in range(ROWS + 1)]
    rows = "".join(f"{step:7d}    {1 / (1 + row):8.2e}    1.0e-03\n" for row, step in enumerate(steps))
    (context.out / "lcurve.out").write_text(f"#  step         rmse_trn    lr\n{rows}")
    (context.out / "train.log").write_text("no training took place\n")
    write_json(context.out / "input.json", spec["template"])
    started = "warm start" if spec["init"] or "init_sha256" in spec else "scratch"
    summary = {
        "model": names[-1],
        "checkpoint": checkpoint.name,
        "training_labels": len(spec["training"]),
        "steps": spec["steps"],
        "seconds": settings.slept_s,
        "started_from": started,
    }
    write_json(context.out / "summary.json", summary)
