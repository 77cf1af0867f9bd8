"""Double of a relaxation with the labeler: the structure stays, what is seen in it is told."""

from __future__ import annotations

from quick_settings import begin

from alloop.attempt import Context
from alloop.store import write_json


def run(context: Context) -> None:
    settings = begin("relax", context)
    before = {"fraction_4B": 0.5, "fraction_5Si": 0.0, "three_rings": 2, "energy_eV": -420.0}
    after = before | {"fraction_5Si": settings.values.get("five_coordinated", 0.0), "energy_eV": -421.0}
    write_json(context.out / "relaxed.json", {"before": before, "after": after})
    write_json(context.out / "summary.json", {"before": before, "after": after})
