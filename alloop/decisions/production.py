"""The end of a run: every ensemble measured on one set, and the melt-quench with the final one."""

from __future__ import annotations

from typing import Any

from alloop.campaign import Campaign
from alloop.config import GlassParam, Param
from alloop.decisions.calibration import levels_at, newest_trust
from alloop.decisions.exploration import Starts
from alloop.decisions.final_training import LONGER, models_to_quench
from alloop.decisions.force_fields import force_field, quench_force_field
from alloop.decisions.quenching import (
    Sample,
    bootstrap_sizes,
    chunk_count,
    force_field_uses,
    outdated,
    packed_by,
    packed_start,
    quench_chains,
    quench_common,
    quench_section,
    quench_sizes,
)
from alloop.decisions.training import evaluation_task, held_out_sets
from alloop.glass.protocol import (
    MELTING_PS,
    MELTING_TEMPERATURES_K,
    Stage,
    melting_temperature_K,
)
from alloop.policy import REPLANNED
from alloop.seeds import derived_seed
from alloop.state import task_entries
from alloop.store import Task, make_task

_MELTING = {
    "temperatures_K": list(MELTING_TEMPERATURES_K),
    "melt_K": 3500.0,
    "melt_ps": 10.0,
    "equilibrate_ps": 5.0,
    "ps": MELTING_PS,
    "timestep_fs": 1.0,
    "record_every": 20,
}


def decide_assess(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the errors of every ensemble so far on ONE set, the final held-out sets together."""
    sets = {"held_out": [key for keys in held_out_sets(campaign).values() for key in keys]}
    tasks = [
        evaluation_task(campaign, param, number, sets, "production/assess")
        for number in range(iteration + 1)
        if sets["held_out"]
    ]
    return {"tasks": task_entries(tasks, {})}


def melting_glasses(param: Param) -> list[GlassParam]:
    """Return the glasses whose melting temperature is to be found by the rule before they are quenched."""
    return [entry for entry in param.glasses if param.quench and param.quench.melting_sought(entry.name)]


def decide_melting(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask how far Si and B move at rising temperatures, for each glass whose melting temperature is not given.

    It is the glass's, so one cell tells it, the smallest of those to quench. Nothing of it depends on an ensemble.
    Every temperature starts anew from one melt of 3500 K, after 5 ps: see `run_melting` for what that means.
    """
    tasks = []
    for entry in melting_glasses(param):
        assert param.quench is not None
        field, glass = force_field(campaign.root, quench_force_field(param)), entry.glass()
        size = min(quench_sizes(param.quench, entry))
        spec = _MELTING | {
            "glass": entry.name,
            "atoms": size,
            "stage": "melting",
            "stage_kind": "melting",
            "start": packed_by(packed_start(glass, size), field),
            "force_field": field.spec,
            "seed": derived_seed(param.seed, "melting", entry.name, size),
        }
        name = f"{entry.name}.n{size}.melting"
        tasks.append(make_task("quench", "production/melting", name, spec, files=field.files))
    withdrawn = outdated(campaign, {task.key for task in tasks}, ("melting",))
    return {"section": quench_section(param), "tasks": task_entries(tasks, {}), "withdrawn": withdrawn}


def decide_quench(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the melt-quench of every glass with this ensemble, or for nothing if `quench` does not apply.

    What an earlier quench asked for and nobody has begun is withdrawn, unless it is asked for again. Runs of a
    converged ensemble are guarded by the trust levels of the last exploration.
    """
    own = param.quench
    judgement = campaign.state.judgement(iteration)
    converged = bool(judgement and judgement["converged"])
    if own is None or (own.when == "converged" and not converged):
        return {"section": "", "converged": converged, "common": {}, "tasks": []}
    models, final_training = models_to_quench(campaign, param, iteration)
    guard = {"guard_records": own.guard_records, "frames_per_chunk": param.explore.frames_per_chunk, "audit_frames": 0}
    common = quench_common(param, own, models) | (guard if converged and own.guard_records else {})
    trust = newest_trust(campaign)

    def levels(glass: str, temperature_K: float) -> tuple[float, float]:
        return levels_at(trust, glass, temperature_K, param.select)

    classical = any(force_field_uses(own, entry) for entry in param.glasses)
    field = force_field(campaign.root, quench_force_field(param)) if classical else None
    starts = Starts(campaign)
    melting = _melting(campaign, param, iteration)
    tasks: list[Task] = []
    runs: list[dict[str, Any]] = []
    for entry in param.glasses:
        stages = own.stages_of(melting.get(entry.name, {}).get("temperature_K"))
        for size in quench_sizes(own, entry):
            begin = _starts(starts, param, entry, size, next(iter(stages.values()))[0])
            for replica, start in enumerate(begin):
                sample = Sample(entry.glass(), size, replica, start, (param.seed, iteration), field)
                more, records = quench_chains(own, common, sample, stages, "production", levels)
                tasks += more
                runs += records
    wanted = {task.key for task in tasks} | _melting_tasks(campaign, param, iteration)
    if own.final_training:
        longer = (campaign.state.decisions.get((kind, iteration), {"tasks": []}) for kind in LONGER)
        wanted |= {task["key"] for decision in longer for task in decision["tasks"]}
    return {
        "section": quench_section(param),
        "converged": converged,
        "final_training": final_training,
        "melting": melting,
        "inputs": common["models"],
        "common": common,
        "runs": runs,
        "tasks": task_entries(tasks, common),
        "withdrawn": outdated(campaign, wanted, (*REPLANNED, *LONGER)),
    }


def _starts(starts: Starts, param: Param, entry: GlassParam, size: int, first: Stage) -> list[dict[str, Any]]:
    """Return where the runs of each replica begin: at frames of the bootstrap, if it has cells of this size.

    They are drawn together, so that replicas begin at different frames, of different trajectories if it has as many.
    If it has fewer frames than there are replicas, some begin at the same one, with other velocities: the seed of
    these is the replica's. Other sizes, and runs whose first stage the force field drives, begin with atoms packed at
    random.
    """
    assert param.quench is not None
    replicas = param.quench.replicas
    if first.driver == "force_field" or size not in bootstrap_sizes(entry):
        return [packed_start(entry.glass(), size)] * replicas
    seed = derived_seed(param.seed, "quench-start", entry.name, size)
    return starts.apart(entry.name, size, float(first.temperature_K or 0.0), "training", seed, replicas)


def _melting(campaign: Campaign, param: Param, iteration: int) -> dict[str, dict[str, Any]]:
    """Return by glass where it melts and how that is known: given, by the rule, or the highest tried for want of one.

    Glasses that a protocol needs no melting temperature for are left out.
    """
    own = param.quench
    assert own is not None
    given = {entry.name: own.given_melting_K(entry.name) for entry in param.glasses}
    found = {glass: {"temperature_K": value, "known": "given"} for glass, value in given.items() if value is not None}
    decision = campaign.state.decisions.get(("melting", iteration), {"tasks": []})
    sought = {entry.name for entry in melting_glasses(param)}
    for task in decision["tasks"]:
        glass = task["spec"]["glass"]
        if glass not in sought:
            continue
        rows = campaign.summary(task["key"])["displacements"]
        moved = {row["temperature_K"]: row["rms_displacement_A"] for row in rows}
        try:
            found[glass] = {"temperature_K": melting_temperature_K(moved), "known": "rule"}
        except ValueError:
            found[glass] = {"temperature_K": max(moved), "known": "highest tried"}
        found[glass]["rms_displacement_A"] = moved[found[glass]["temperature_K"]]
    return found


def _melting_tasks(campaign: Campaign, param: Param, iteration: int) -> set[str]:
    """Return the searches for a melting temperature that the quench of an ensemble rests on."""
    decision = campaign.state.decisions.get(("melting", iteration))
    sought = {entry.name for entry in melting_glasses(param)}
    return {task["key"] for task in (decision or {"tasks": []})["tasks"] if task["spec"]["glass"] in sought}


def quenched_samples(param: Param, larger_than: int = 0) -> int:
    """Return how many structures the melt-quench of all glasses makes to be relaxed, those of a force field too.

    larger_than: only those in cells of more atoms.
    """
    own = param.quench
    if own is None:
        return 0
    ways = {
        entry.name: len(own.stages_of(own.given_melting_K(entry.name))) + own.uses_force_field
        for entry in param.glasses
    }
    sizes = {entry.name: sum(size > larger_than for size in quench_sizes(own, entry)) for entry in param.glasses}
    return sum(ways[name] * own.replicas * count for name, count in sizes.items())


def quench_chunks(param: Param) -> int:
    """Return how many tasks the melt-quench of all glasses takes at most, the search for where they melt included."""
    own = param.quench
    if own is None:
        return 0
    counts = [
        chunk_count(own, entry.glass(), own.stages_of(own.given_melting_K(entry.name)))
        * own.replicas
        * len(quench_sizes(own, entry))
        for entry in param.glasses
    ]
    return sum(counts) + len(melting_glasses(param))
