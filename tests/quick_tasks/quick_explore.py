"""Double of a chunk of exploration: the true task, with dynamics that only shakes the start."""

from __future__ import annotations

import importlib

from quick_dynamics import put_in_place, with_records
from quick_settings import begin

from alloop.attempt import Context


def run(context: Context) -> None:
    settings = begin("explore", context)
    context = with_records(context, settings)
    put_in_place(context, settings)
    importlib.import_module("alloop.tasks.explore").run(context)
