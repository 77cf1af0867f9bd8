"""Melt-quenches as chains of tasks: one builder for all protocols, for production and for the probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alloop.campaign import Campaign
from alloop.config import GlassParam, Param, steps
from alloop.decisions.force_fields import ForceField, quench_force_field
from alloop.decisions.seeding import glass_record
from alloop.event_params import definitions
from alloop.glass.composition import Glass, stoichiometric_counts
from alloop.glass.protocol import Chunk, Stage, chunks, cooling_rate_K_ps
from alloop.quench_params import MeltQuenchParam, QuenchParam
from alloop.seeds import derived_seed
from alloop.state import asked_entries
from alloop.store import Task, make_task
from alloop.structure import content_key

Levels = Callable[[str, float], tuple[float, float]]
"""Low and high trust level, eV/Å, of a glass at a temperature in K."""
_MINIMISE = {"force_eV_A": 0.02, "steps": 5000}


@dataclass(frozen=True)
class Sample:
    """What a melt-quench is made of: so many atoms of a glass, the replica's number, and where its runs begin.

    seed: what its seeds derive from, without the part that stands for stage and chunk. start: as a chunk's spec has
    it, but for the force field, which packs atoms and drives stages; None where nothing needs one.
    """

    glass: Glass
    atoms: int
    replica: int
    start: dict[str, Any]
    seed: tuple[int, ...]
    force_field: ForceField | None = None


def packed_start(glass: Glass, n_atoms: int) -> dict[str, Any]:
    """Return the start of a run from atoms that are packed at random by the force field, see `packed_by`.

    What experiment found is no part of the record of the glass.
    """
    record = glass_record(glass) | {"experimental_4B": None}
    return {"packed": {"counts": stoichiometric_counts(glass, n_atoms), "glass": record}}


def packed_by(start: dict[str, Any], field: ForceField | None) -> dict[str, Any]:
    """Return a start with the force field that packs its atoms, as specs have it; other starts as they are."""
    if "packed" not in start:
        return start
    return {"packed": start["packed"] | {"force_field": _needed(field).spec}}


def _needed(field: ForceField | None) -> ForceField:
    if field is None:
        raise ValueError("these stages or this start need a force field; give the Sample one")
    return field


def force_field_uses(own: QuenchParam, entry: GlassParam) -> list[str]:
    """Return, for people, what of a glass's quench needs the force field; nothing if the ensemble does it all."""
    runs = own.stages_of(own.given_melting_K(entry.name)).values()
    driven = dict.fromkeys(stage.name for stages in runs for stage in stages if stage.driver == "force_field")
    found = [f"stage{'s' if len(driven) > 1 else ''} {', '.join(driven)}"] if driven else []
    if own.melting_sought(entry.name):
        found.append("the search for where it melts")
    packs = [str(size) for size in quench_sizes(own, entry) if driven or size not in bootstrap_sizes(entry)]
    return found + ([f"packing {' and '.join(packs)} atoms"] if packs else [])


def quench_common(param: Param, own: MeltQuenchParam, models: list[str]) -> dict[str, Any]:
    """Return what the specs of all chunks that an ensemble of these models drives share."""
    return _records(own) | {
        "models": models,
        "type_map": param.elements,
        "engine": own.engine,
        "lost_eV_A": param.explore.lost_eV_A,
        "events": definitions(param.select.events),
    }


def _records(own: MeltQuenchParam) -> dict[str, Any]:
    frame_every = steps(own.frame_every_ps, own.timestep_fs, own.deviation_every)
    return {"deviation_every": own.deviation_every, "frame_every": frame_every}


def quench_chains(
    own: MeltQuenchParam,
    common: dict[str, Any],
    sample: Sample,
    runs: Mapping[str, Sequence[Stage]],
    group: str,
    levels: Levels | None = None,
) -> tuple[list[Task], list[dict[str, Any]]]:
    """Return the tasks of all runs of a sample, each once, and for every run a record with the keys of its chunks.

    Runs that begin with the same stages share the tasks of these, whose names then name no run. What the force
    field drives depends on no ensemble. The models of an ensemble drive the replicas in turn, so that what differs
    between replicas holds what differs between models. levels: trust levels, which are needed to run them.
    """
    chains: dict[str, list[Task]] = {}
    for label, stages in runs.items():
        chain: list[Task] = []
        start = packed_by(sample.start, sample.force_field)
        for chunk in chunks(stages, own.chunk_ps):
            spec = _spec(own, common, sample, chunk, levels) | {"start": start}
            inputs = (start["task"],) if "task" in start else ()
            name = f"{_name(sample, label)}.s{len(chain):02d}-{chunk.stage.name}"
            classical = "force_field" in spec or "packed" in start
            files = _needed(sample.force_field).files if classical else {}
            chain.append(make_task("quench", group, name, spec, inputs, files))
            start = {"task": chain[-1].key, "state": "end"}
        chains[label] = chain
    uses = Counter(task.key for chain in chains.values() for task in chain)
    tasks: dict[str, Task] = {}
    for chain in chains.values():
        for task in chain:
            last = task.name.rpartition(".")[2]
            shared = replace(task, name=f"{_name(sample, '')}.{last}") if uses[task.key] > 1 else task
            tasks.setdefault(task.key, shared)
    return list(tasks.values()), [_run(sample, label, runs[label], chain) for label, chain in chains.items()]


def _name(sample: Sample, label: str) -> str:
    return ".".join(filter(None, [sample.glass.name, f"n{sample.atoms}", label, f"r{sample.replica}"]))


def _run(sample: Sample, label: str, stages: Sequence[Stage], chain: list[Task]) -> dict[str, Any]:
    return {
        "name": _name(sample, label),
        "run": label,
        "glass": sample.glass.name,
        "atoms": sample.atoms,
        "replica": sample.replica,
        "cooling_rate_K_ps": cooling_rate_K_ps(stages),
        "tasks": [task.key for task in chain],
    }


def _spec(
    own: MeltQuenchParam, common: dict[str, Any], sample: Sample, chunk: Chunk, levels: Levels | None
) -> dict[str, Any]:
    """Return the spec of a chunk but for its start; its seed does not depend on the run."""
    stage, classical = chunk.stage, chunk.stage.driver == "force_field"
    campaign_seed, *purpose = sample.seed
    which = "classical" if classical else "/".join(map(str, purpose))
    place = (sample.glass.name, sample.atoms, sample.replica, stage.name, chunk.part)
    spec = {
        "glass": sample.glass.name,
        "atoms": sample.atoms,
        "replica": sample.replica,
        "stage": stage.name,
        "stage_kind": stage.kind,
        "seed": derived_seed(campaign_seed, "quench", which, *place),
    }
    if not classical:
        spec["driven_by"] = sample.replica % max(1, len(common.get("models", ())))
    if stage.kind == "minimise":
        return common | spec | {"minimise": _MINIMISE}
    n_steps = steps(chunk.duration_ps, own.timestep_fs, own.deviation_every)
    first = None
    if chunk.analyse_from_ps is not None:
        first = max(0, n_steps - steps(chunk.duration_ps - chunk.analyse_from_ps, own.timestep_fs))
    spec["analyse_from_step"] = first
    spec["condition"] = {
        "ensemble": stage.ensemble,
        "temperature_start_K": chunk.start_K,
        "temperature_end_K": chunk.end_K,
        "timestep_fs": own.timestep_fs,
        "n_steps": n_steps,
    }
    if classical:
        return _records(own) | spec | {"events": {}, "force_field": _needed(sample.force_field).spec}
    if levels is not None:
        low, high = levels(sample.glass.name, (chunk.start_K + chunk.end_K) / 2)
        spec |= {"trust_low_eV_A": low, "trust_high_eV_A": high}
    return common | spec


def chunk_count(own: MeltQuenchParam, glass: Glass, runs: Mapping[str, Sequence[Stage]]) -> int:
    """Return how many tasks the runs of one sample take, those that they share counted once."""
    sample = Sample(glass, 0, 0, {"task": "", "frame": 0}, (0,), ForceField({}, {}))
    return len(quench_chains(own, {}, sample, runs, "")[0])


def quench_section(param: Param) -> str:
    """Return a hash of what is to be quenched and how; empty without a `quench` section.

    When it is quenched, and whether it is relaxed, are no part: the same runs asked for by a command are the same runs.
    """
    if param.quench is None:
        return ""
    sizes = {entry.name: quench_sizes(param.quench, entry) for entry in param.glasses}
    own = param.quench.model_dump(mode="json", exclude={"when", "relax"})
    return content_key({"quench": own | {"force_field": quench_force_field(param)}, "sizes": sizes})


def bootstrap_sizes(entry: GlassParam) -> set[int]:
    """Return the sizes, in atoms, of the cells of a glass that the bootstrap makes."""
    return {sum(stoichiometric_counts(entry.glass(), wanted).values()) for wanted in entry.n_atoms}


def quench_sizes(own: QuenchParam, entry: GlassParam) -> list[int]:
    """Return the numbers of atoms of the cells to quench, as whole units of the composition make them."""
    wanted = own.n_atoms or entry.n_atoms
    return list(dict.fromkeys(sum(stoichiometric_counts(entry.glass(), number).values()) for number in wanted))


def outdated(campaign: Campaign, wanted: set[str], kinds: tuple[str, ...]) -> list[str]:
    """Return the tasks of earlier decisions of these kinds that are not done and no longer wanted by any decision."""
    state = campaign.state
    settled = wanted | state.done | state.superseded
    return [
        entry["key"]
        for (kind, _), decision in state.decisions.items()
        if kind in kinds
        for entry in asked_entries(decision)
        if entry["key"] not in settled and all(asking in kinds for asking, _ in state.asked_in[entry["key"]])
    ]
