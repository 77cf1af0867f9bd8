"""The end of a run: every ensemble measured on one set, and the melt-quench with the final one."""

from __future__ import annotations

from typing import Any

from alloop.campaign import Campaign
from alloop.config import MeltQuenchParam, Param, steps
from alloop.decisions.exploration import Starts
from alloop.decisions.training import evaluation_task, held_out_sets
from alloop.event_params import definitions
from alloop.glass.composition import stoichiometric_counts
from alloop.seeds import derived_seed
from alloop.state import task_entries
from alloop.store import Task, make_task


def decide_assess(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the errors of every ensemble so far on ONE set, the final held-out sets together."""
    sets = {"held_out": [key for keys in held_out_sets(campaign).values() for key in keys]}
    tasks = [
        evaluation_task(campaign, param, number, sets, "production/assess")
        for number in range(iteration + 1)
        if sets["held_out"]
    ]
    return {"tasks": task_entries(tasks, {})}


def decide_quench(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the melt-quench of every glass with this ensemble, or for nothing if `quench` does not apply."""
    own = param.quench
    verdict = campaign.state.decisions.get(("verdict", iteration))
    converged = bool(verdict and verdict["converged"])
    if own is None or (own.when == "converged" and not converged):
        return {"converged": converged, "common": {}, "tasks": []}
    common = melt_quench_common(campaign, param, own, iteration)
    starts = Starts(campaign)
    tasks: list[Task] = []
    for entry in param.glasses:
        for wanted in entry.n_atoms:
            size = sum(stoichiometric_counts(entry.glass(), wanted).values())
            for replica in range(own.replicas):
                name = f"{entry.name}.n{size}.{own.cooling_rate_K_ps:g}Kps.r{replica}"
                seed = derived_seed(param.seed, "quench", iteration, name)
                start = starts.fresh(entry.name, size, own.melt_temperature_K, "training", seed)
                own_seed = (param.seed, iteration)
                tasks += melt_quench_chunks(own, common, name, entry.name, start, own_seed, "production")
    return {"converged": converged, "inputs": common["models"], "common": common, "tasks": task_entries(tasks, common)}


def melt_quench_common(campaign: Campaign, param: Param, own: MeltQuenchParam, iteration: int) -> dict[str, Any]:
    """Return what the specs of all chunks of an ensemble's melt-quenches share."""
    return {
        "models": campaign.state.models(iteration),
        "type_map": param.elements,
        "engine": own.engine,
        "deviation_every": own.deviation_every,
        "frame_every": steps(own.frame_every_ps, own.timestep_fs, own.deviation_every),
        "trust_low_eV_A": param.select.trust_low_eV_A,
        "trust_high_eV_A": param.select.trust_high_eV_A,
        "lost_eV_A": param.explore.lost_eV_A,
        "events": definitions(param.select.events),
        "cooling_rate_K_ps": own.cooling_rate_K_ps,
    }


def melt_quench_chunks(
    own: MeltQuenchParam,
    common: dict[str, Any],
    name: str,
    glass: str,
    start: dict[str, Any],
    seed: tuple[int, int],
    group: str,
) -> list[Task]:
    """Return the chained chunks of one glass: melt, cool, and the final hold that is analysed."""
    cool_ps = (own.melt_temperature_K - own.final_temperature_K) / own.cooling_rate_K_ps
    stages = [
        ("melt", own.melt_temperature_K, own.melt_temperature_K, own.melt_ps),
        ("cool", own.melt_temperature_K, own.final_temperature_K, cool_ps),
        ("final", own.final_temperature_K, own.final_temperature_K, own.final_ps),
    ]
    tasks: list[Task] = []
    for stage, from_K, to_K, duration_ps in stages:
        chunks = max(1, round(duration_ps / own.chunk_ps))
        for chunk in range(chunks):
            condition = {
                "ensemble": own.ensemble,
                "temperature_start_K": from_K + (to_K - from_K) * chunk / chunks,
                "temperature_end_K": from_K + (to_K - from_K) * (chunk + 1) / chunks,
                "timestep_fs": own.timestep_fs,
                "n_steps": steps(duration_ps / chunks, own.timestep_fs, own.deviation_every),
            }
            label = f"{name}.s{len(tasks):02d}-{stage}"
            spec = common | {
                "glass": glass,
                "stage": stage,
                "start": start,
                "condition": condition,
                "seed": derived_seed(seed[0], "quench", seed[1], label),
            }
            tasks.append(make_task("quench", group, label, spec, (start["task"],)))
            start = {"task": tasks[-1].key, "state": "end"}
    return tasks


def quench_chunks(param: Param) -> int:
    """Return how many chunks the melt-quench of all glasses takes."""
    own = param.quench
    return chunks_of_one(own) * own.replicas * sum(len(entry.n_atoms) for entry in param.glasses) if own else 0


def chunks_of_one(own: MeltQuenchParam) -> int:
    """Return how many chunks one melt-quench takes."""
    cool_ps = (own.melt_temperature_K - own.final_temperature_K) / own.cooling_rate_K_ps
    return sum(max(1, round(duration_ps / own.chunk_ps)) for duration_ps in (own.melt_ps, cool_ps, own.final_ps))
