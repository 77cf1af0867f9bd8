"""The quenched glasses relaxed with the labeler: what they show before and after, and their energies by the labeler.

Energies stand beside those of glasses that a classical force field made: those of the quench's own classical stages
if they were relaxed, too, else the bootstrap's last snapshots, which are labelled in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from alloop.campaign import Campaign
from alloop.report.html.runs import Run, newest_quench, runs
from alloop.state import asked_entries
from alloop.tasks.label import read_label
from alloop.tasks.relax import MINIMUM

MODELS, FORCE_FIELD = "models", "force field"
_SIDES = ("before", "after")
_SEEN = ("fraction_4B", "fraction_5Si", "three_rings", "energy_eV_atom")


def relaxed_glasses(campaign: Campaign) -> list[dict[str, Any]]:
    """Return one record per structure of the newest quench that was to be relaxed.

    It holds run, glass, atoms, cooling_rate_K_ps and temperature_K of what was relaxed (None at the models' minimum),
    ``driver``, MODELS or FORCE_FIELD, ``made_by`` for people, ``driven_by``; ``status`` (done, waiting, given up) with
    its ``reason``; and ``before``, ``after`` and ``change``, each with fraction_4B, fraction_5Si, three_rings and
    energy_eV_atom, None if not known.
    """
    return _records(campaign, "tasks")


def _records(campaign: Campaign, part: str) -> list[dict[str, Any]]:
    """Return the records of the newest relaxation's ``tasks``, or of its ``points``, in cells too large to relax."""
    quench = newest_quench(campaign)
    decision = campaign.state.decisions.get(("relax_glass", quench.get("iteration", -1)), {})
    own = runs(campaign) if decision else []
    found = [(entry, _run_of(entry, own)) for entry in decision.get(part, ())]
    return [_record(campaign, entry, run) for entry, run in found if run is not None]


def _run_of(entry: dict[str, Any], own: list[Run]) -> Run | None:
    """Return the run that a relaxed structure is of: the one of its name, else the first that went through it.

    None for what no run of the newest quench made, whose protocol is another one since.
    """
    start = entry["spec"]["start"]["task"]
    through = [run for run in own if start in run["tasks"]]
    return next((run for run in through if run["name"] == entry["name"]), through[0] if through else None)


def _record(campaign: Campaign, entry: dict[str, Any], run: Run) -> dict[str, Any]:
    number = run["tasks"].index(entry["spec"]["start"]["task"])
    path = run["chunks"][: number + 1]
    field = path[-1]["spec"].get("force_field")
    rate_K_ps = run["cooling_rate_K_ps"] if field is None else _last_cooling_K_ps(path)
    status, reason = _status(campaign, entry["key"])
    seen: dict[str, dict[str, Any]] = {side: dict.fromkeys(_SEEN) for side in (*_SIDES, "change")}
    at_minimum = False
    if status == "done":
        summary = campaign.summary(entry["key"])
        at_minimum = summary["relaxed_from"] == MINIMUM
        seen |= {side: _seen(summary[side] or {}, run["atoms"]) for side in _SIDES}
        pairs = {key: (seen["before"][key], seen["after"][key]) for key in _SEEN}
        seen["change"] = {key: None if None in pair else pair[1] - pair[0] for key, pair in pairs.items()}
    return seen | {
        "run": entry["name"],
        "glass": run["glass"],
        "atoms": run["atoms"],
        "cooling_rate_K_ps": rate_K_ps,
        "temperature_K": None if at_minimum else path[-1]["spec"]["condition"]["temperature_end_K"],
        "driver": MODELS if field is None else FORCE_FIELD,
        "made_by": _made_by(MODELS if field is None else field["name"], rate_K_ps),
        "driven_by": run["driven_by"],
        "status": status,
        "reason": reason,
    }


def _seen(side: dict[str, Any], atoms: int) -> dict[str, Any]:
    energy_eV = side.get("energy_eV")
    return {key: side.get(key) for key in _SEEN} | {"energy_eV_atom": None if energy_eV is None else energy_eV / atoms}


def _made_by(who: str, rate_K_ps: float | None) -> str:
    return who if rate_K_ps is None else f"{who}, {rate_K_ps:.3g} K/ps"


def _status(campaign: Campaign, key: str) -> tuple[str, str]:
    if key in campaign.state.done:
        return "done", ""
    if key in campaign.state.quarantined:
        return "given up", str(campaign.state.quarantined[key]["message"])
    return "waiting", ""


def _last_cooling_K_ps(path: Iterable[dict[str, Any]]) -> float | None:
    """Return the rate at which the last chunk that cools does so, None without one."""
    rate = None
    for condition in (entry["spec"]["condition"] for entry in path if "condition" in entry["spec"]):
        fall_K = condition["temperature_start_K"] - condition["temperature_end_K"]
        if fall_K > 0:
            rate = fall_K / (condition["n_steps"] * condition["timestep_fs"] / 1000)
    return rate


def glass_energies(campaign: Campaign) -> list[dict[str, Any]]:
    """Return energies of glasses by the labeler, one record for each structure as made and as relaxed.

    A record holds glass, atoms, cooling_rate_K_ps, temperature_K, driver, made_by, driven_by, run, whether it is
    ``relaxed``, and energy_eV_atom. All are at one level of theory.
    """
    keys = ("run", "glass", "atoms", "cooling_rate_K_ps", "temperature_K", "driver", "made_by", "driven_by")
    quenched = [
        {key: own[key] for key in keys} | {"relaxed": side == "after", "energy_eV_atom": own[side]["energy_eV_atom"]}
        for own in (*relaxed_glasses(campaign), *_records(campaign, "points"))
        for side in _SIDES
        if own[side]["energy_eV_atom"] is not None
    ]
    if not quenched or any(own["driver"] == FORCE_FIELD for own in quenched):
        return quenched
    glasses = {own["glass"] for own in quenched}
    return quenched + [own for own in _of_bootstrap(campaign) if own["glass"] in glasses]


def _of_bootstrap(campaign: Campaign) -> Iterator[dict[str, Any]]:
    """Yield the labelled last snapshots of the bootstrap's melt-quenches, at the level of the newest relaxation."""
    state = campaign.state
    newest = state.decisions["relax_glass", newest_quench(campaign)["iteration"]]
    level = asked_entries(newest)[0]["spec"]["level"]
    for key, pick in state.picks.items():
        if pick["reason"] != "bootstrap" or key not in state.done or state.levels.get(pick["level"]) != level:
            continue
        spec = state.tasks[pick["source"]["task"]].spec
        if spec.get("source") != "melt-quench" or pick["source"]["frame"] != spec["schedule"]["n_snapshots"] - 1:
            continue
        rate_K_ps, atoms = spec["schedule"]["cooling_rate_K_ps"], sum(spec["counts"].values())
        yield {
            "run": pick["trajectory"],
            "glass": spec["glass"]["name"],
            "atoms": atoms,
            "cooling_rate_K_ps": rate_K_ps,
            "temperature_K": pick["temperature_K"],
            "driver": FORCE_FIELD,
            "made_by": _made_by(spec["force_field"].get("name", "own tables"), rate_K_ps),
            "driven_by": 0,
            "relaxed": False,
            "energy_eV_atom": read_label(campaign.result(key)).energy_eV / atoms,
        }
