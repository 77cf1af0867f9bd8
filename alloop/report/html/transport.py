"""Lithium's diffusion in the quenched glasses: from the stage `transport` of the melt-quenches, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.frames import read_all_structures, read_some_columns
from alloop.glass.transport import (
    DEFAULT_DROP_PS,
    DEFAULT_WINDOW_PS,
    Diffusion,
    Estimate,
    combine_trajectories,
    diffusion,
)
from alloop.report.html.replicas import Replicas, melt_of, together
from alloop.report.html.runs import Run, Tell, finished_runs, runs
from alloop.report.trajectory import diffusion_record
from alloop.structure import from_record

STAGE = "transport"
"""Name of the stage, a hold, whose frames show how lithium diffuses; `urata2022` has one."""
WHOLE_PS = 300.0
"""Length of a stage that lags are fitted in the usual window of; a much shorter one is used in the same shares."""
_UNEVEN = 0.01  # times between frames may be off by this share of the shortest fitted lag


def transport(campaign: Campaign, tell: Tell) -> dict[str, Any]:
    """Return what is known of lithium's diffusion: ``runs``, one by one, and ``glasses``, the mean over their runs.

    ``asked`` counts the runs that have such a stage, whether they came to their end or not.

    Each record holds glass, atoms, ``li2o`` (mole fraction), temperature_K and stage_ps, and as ``diffusion`` what
    `diffusion_record` tells, None with a ``problem`` if nothing can be told. Runs of a glass and cell size are taken
    together whatever their rate of cooling, as Urata (2022) does. ``melts`` are the independent replicas among them; if
    there is one, its branches have no interval but in every figure of ``diffusion`` an ``sd_of_branches``.
    """
    li2o = lithium_contents(campaign)
    rows: list[dict[str, Any]] = []
    alike: dict[tuple[Any, ...], list[tuple[dict[str, Any], Diffusion]]] = {}
    for run in finished_runs(campaign):
        chunks = transport_chunks(run)
        if not chunks:
            continue
        tell(f"diffusion in {run['name']}")
        row = {key: run[key] for key in ("glass", "atoms", "cooling_rate_K_ps", "driven_by")}
        row |= {"run": run["name"], "li2o": li2o.get(run["glass"]), "problem": None, "diffusion": None}
        row |= {"temperature_K": chunks[0]["spec"]["condition"]["temperature_start_K"], "stage_ps": None}
        rows.append(row)
        try:
            row["stage_ps"], found = run_diffusion(campaign, chunks)
        except ValueError as error:
            row["problem"] = str(error)
            continue
        row["diffusion"] = diffusion_record(found, row["temperature_K"])
        way = (row["glass"], row["atoms"], row["temperature_K"], row["stage_ps"], found.window_ps, found.lags_ps[1])
        alike.setdefault(way, []).append((row, found))
    asked = sum(1 for run in runs(campaign) if transport_chunks(run))
    return {"asked": asked, "runs": rows, "glasses": [_together(own) for own in alike.values()]}


def transport_chunks(run: Run) -> list[dict[str, Any]]:
    """Return the chunks of a run's stage of transport, none if it has no such stage."""
    return [
        entry
        for entry in run["chunks"]
        if (entry["spec"].get("stage"), entry["spec"].get("stage_kind")) == (STAGE, "hold")
    ]


def lithium_contents(campaign: Campaign) -> dict[str, float]:
    """Return the mole fraction of Li2O of every glass of the campaign."""
    from alloop.config import parse  # slow to import

    param = parse(campaign.state.starts[-1]["config"], "the recorded configuration")
    return {entry.name: entry.glass().mole_fractions.get("Li2O", 0.0) for entry in param.glasses}


def run_diffusion(campaign: Campaign, chunks: Sequence[dict[str, Any]]) -> tuple[float, Diffusion]:
    """Return the length (ps) of a stage and the diffusion of lithium in it; ValueError if its frames tell none."""
    begun_ps, times_ps = 0.0, []
    results = [campaign.result(entry["key"]) for entry in chunks]
    for entry, result in zip(chunks, results, strict=True):
        condition = entry["spec"]["condition"]
        step_ps = condition["timestep_fs"] / 1000
        times_ps.append(begun_ps + step_ps * read_some_columns(result, ["step"])["step"])
        begun_ps += step_ps * condition["n_steps"]
    times = np.concatenate(times_ps)
    if len(times) < 2:
        raise ValueError(f"{len(times)} frames were kept in {begun_ps:g} ps; give a smaller quench.frame_every_ps")
    spacing_ps = float((times[-1] - times[0]) / (len(times) - 1))
    drop_ps, window_ps = fitted_part(begun_ps, spacing_ps)
    even = times[0] + spacing_ps * np.arange(len(times))
    if np.abs(times - even).max() > _UNEVEN * window_ps[0]:
        raise ValueError("frames are not evenly spaced; give a quench.chunk_ps that is a multiple of frame_every_ps")
    frames = (from_record(record) for result in results for record in read_all_structures(result))
    return begun_ps, diffusion(frames, time_step_ps=spacing_ps, drop_ps=drop_ps, window_ps=window_ps)


def fitted_part(stage_ps: float, spacing_ps: float) -> tuple[float, tuple[float, float]]:
    """Return what is dropped at a stage's start, and the window of lags (ps): as ever, or shares of a short stage."""
    if stage_ps - 2 * spacing_ps >= DEFAULT_DROP_PS + DEFAULT_WINDOW_PS[1]:
        return DEFAULT_DROP_PS, DEFAULT_WINDOW_PS
    share = stage_ps / WHOLE_PS
    return DEFAULT_DROP_PS * share, (DEFAULT_WINDOW_PS[0] * share, DEFAULT_WINDOW_PS[1] * share)


def _together(own: list[tuple[dict[str, Any], Diffusion]]) -> dict[str, Any]:
    """Return the record of runs of one glass, analysed in one way."""
    rows, single = [row for row, _ in own], [found for _, found in own]
    replicas = together((found.D_A2_ps.value, melt_of(row), row["driven_by"]) for row, found in own)
    found = single[0]
    if len(single) > 1:
        mean, half = replicas.mean, np.inf if replicas.half95 is None else replicas.half95
        found = replace(combine_trajectories(single), D_A2_ps=Estimate(mean, mean - half, mean + half))
    keys = ("glass", "atoms", "li2o", "temperature_K", "stage_ps")
    rates = sorted({row["cooling_rate_K_ps"] for row in rows if row["cooling_rate_K_ps"] is not None})
    return {key: rows[0][key] for key in keys} | {
        "cooling_rates_K_ps": rates,
        "models": len(set(replicas.models)),
        "melts": len(replicas.values),
        "diffusion": _with_branches(found, replicas, rows[0]["temperature_K"]),
    }


def _with_branches(found: Diffusion, replicas: Replicas, temperature_K: float) -> dict[str, Any]:
    """Return what `diffusion_record` tells, with the standard deviation of the branches if there is one melt."""
    record, deviation = diffusion_record(found, temperature_K), replicas.branch_deviation
    if deviation is not None:
        spread = diffusion_record(replace(found, D_A2_ps=Estimate(deviation, deviation, deviation)), temperature_K)
        for key, value in spread.items():
            if isinstance(value, dict):
                record[key] |= {"sd_of_branches": value["value"]}
    return record
