"""Double of an evaluation: the true task, with models whose errors and deviations are as told."""

from __future__ import annotations

import importlib

import quick_physics
from quick_dynamics import replaced
from quick_settings import begin

from alloop.attempt import Context


def run(context: Context) -> None:
    settings = begin("evaluate", context)
    number = quick_physics.ensemble_of(context)
    ensemble = quick_physics.QuickEnsemble
    ensemble.force_rmse_eV_A = settings.of_ensemble("force_rmse_eV_A", number, 0.1)
    ensemble.candidates = settings.of_ensemble("candidates", number, 0.3)
    ensemble.trust = tuple(settings.values.get("trust_eV_A", ensemble.trust))
    ensemble.rng = settings.rng(context, "errors")
    replaced("alloop.tasks.label", read_label=quick_physics.read_label)
    task = importlib.import_module("alloop.tasks.evaluate")
    task.Ensemble = ensemble  # type: ignore[attr-defined]
    task.run(context)
