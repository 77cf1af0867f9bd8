"""From one level of theory to another: promotion from a foundation's labels to the campaign's own, and relabelling."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from alloop.campaign import Campaign, label_task
from alloop.config import Param
from alloop.decisions.training import training_tasks
from alloop.errors import NeedsPersonError
from alloop.frames import read_structures
from alloop.store import read_json

GOLDEN_RATIO = (1 + 5**0.5) / 2


def decide_promote(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for labels at the campaign's own level of some structures the foundation has labelled, of both roles.

    They are what its held-out sets begin with, and by them the foundation's energies are brought onto its scale.
    """
    state = campaign.state
    assert param.label.foundation is not None
    level = campaign.state.starts[-1]["levels"]["target"]
    wanted = param.label.foundation.promote
    held_out = spread_over_trajectories(_by_trajectory(campaign, "held_out"), max(1, wanted // 4))
    training = spread_over_trajectories(_by_trajectory(campaign, "training"), wanted - len(held_out))
    if not training:
        raise NeedsPersonError(
            "the foundation left no label to go on from\n  alloop status shows why; mend it, then: alloop retry"
        )
    chosen = set(training + held_out)
    return {"level": level, "picks": at_level(campaign, [key for key in state.picks if key in chosen], level)}


def _by_trajectory(campaign: Campaign, role: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in campaign.state.labels(role):
        groups.setdefault(campaign.state.picks[key]["trajectory"], []).append(key)
    return groups


def spread_over_trajectories(groups: dict[str, list[str]], count: int) -> list[str]:
    """Return at most `count` keys: trajectories take turns, and each gives keys evenly spaced along itself.

    A last turn that is not enough for all goes to some of them, evenly spaced too.
    Where along itself a trajectory begins differs from one to the next by the golden ratio, so that together they
    cover hot and cold, early and late, even where each gives a single key.
    """
    total = sum(map(len, groups.values()))
    shares: Counter[str] = Counter()
    while shares.total() < min(count, total):
        open_groups = [name for name in groups if shares[name] < len(groups[name])]
        turns = min(len(open_groups), min(count, total) - shares.total())
        shares.update(open_groups[turn * len(open_groups) // turns] for turn in range(turns))
    found: list[str] = []
    for number, (name, keys) in enumerate(groups.items()):
        phase = (0.5 + number / GOLDEN_RATIO) % 1
        found += [keys[int((turn + phase) * len(keys) / shares[name])] for turn in range(shares[name])]
    return found


def at_level(campaign: Campaign, keys: list[str], level: dict[str, Any]) -> list[dict[str, Any]]:
    """Return picks that ask for the same structures at another level; role, reason and iteration stay theirs."""
    picks = campaign.state.picks
    frames: dict[str, list[int]] = {}
    for key in keys:
        frames.setdefault(picks[key]["source"]["task"], []).append(picks[key]["source"]["frame"])
    structures = {
        (task, frame): structure
        for task, wanted in frames.items()
        for frame, structure in zip(wanted, read_structures(campaign.result(task), wanted), strict=True)
    }
    found = []
    for key in keys:
        pick = picks[key]
        structure = structures[pick["source"]["task"], pick["source"]["frame"]]
        task = label_task("", pick["name"], structure, level["content"], ())
        found.append(pick | {"key": task.key, "given": False, "level": level["name"], "of": key})
    return found


def decide_pretrain(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for an ensemble trained on the foundation's labels, their energies brought onto the campaign's own scale."""
    state = campaign.state
    foundation = state.picks[state.decisions["promote", iteration - 1]["picks"][0]["of"]]["level"]
    shift = energy_shift(campaign, iteration, param.elements)
    training = sorted(state.labels("training", foundation))
    held_out = sorted(state.labels("held_out", foundation))
    return training_tasks(campaign, param, iteration, "pretrain", training, held_out, energy_shift_eV=shift)


def energy_shift(campaign: Campaign, iteration: int, elements: list[str]) -> dict[str, float]:
    """Return, per element, what to add to a foundation's energy for each atom (eV).

    The solution, of least norm where compositions leave it open, of E - E_foundation = sum n_el shift_el, per atom,
    over the training structures that have both labels, those made anew since the promotion by their present ones. By
    Huber's loss: a few near-overlaps, on which a foundation may be far off, shall not pull it.
    """
    state = campaign.state
    promoted = {pick["of"] for pick in state.decisions["promote", iteration - 1]["picks"]}
    rows, differences = [], []
    for key in state.labels("training"):
        origin: str | None = key
        while origin is not None and origin not in promoted:
            origin = state.picks[origin].get("of")
        if origin is not None:
            label = read_json(campaign.result(key) / "label.json")
            before = read_json(campaign.result(origin) / "label.json")
            counts = Counter(label["structure"]["symbols"])
            rows.append([counts[element] for element in elements])
            differences.append(label["energy_eV"] - before["energy_eV"])
    if not rows:
        raise NeedsPersonError(
            "no structure has a label of both the foundation and the campaign's own labeler: all of those failed\n"
            "  alloop status shows why; mend the labeler, then: alloop retry"
        )
    atoms = np.sum(rows, axis=1)
    solution = robust_solution(np.array(rows) / atoms[:, None], np.array(differences) / atoms)
    return dict(zip(elements, solution.tolist(), strict=True))


_HUBER_EV_ATOM = 0.05
_REWEIGHTINGS = 30


def robust_solution(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return x (P,) of least norm that minimises Huber's loss of values (N,) - matrix (N, P) @ x, both per atom in eV.

    Quadratic up to 0.05 eV/atom, linear beyond; weights follow the residuals of the solution before (Huber, Robust
    Statistics, 1981, section 7.8).
    """
    weights = np.ones(len(values))
    solution = np.zeros(matrix.shape[1])
    for _ in range(_REWEIGHTINGS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(matrix * root[:, None], values * root, rcond=1e-9)[0]
        residuals = np.abs(values - matrix @ solution)
        weights = _HUBER_EV_ATOM / np.maximum(residuals, _HUBER_EV_ATOM)
    return solution


def new_level(campaign: Campaign, param: Param) -> dict[str, Any]:
    """Return the level a configuration gives to the labels of now: its foundation's while that is what labels."""
    levels = campaign.levels_of(param)
    level = levels["foundation"] if _stays_foundation(campaign, param) else levels["target"]
    assert level is not None
    return level


def _stays_foundation(campaign: Campaign, param: Param) -> bool:
    """Tell whether a foundation labels now, and the configuration still has one."""
    return campaign.state.foundation_level is not None and param.label.foundation is not None


def _imported_at(campaign: Campaign, key: str, level: str) -> bool:
    """Tell whether a label was made anew from an imported one of this level, which then counts again."""
    state, origin = campaign.state, campaign.state.picks[key].get("of")
    while origin is not None:
        pick = state.picks[origin]
        if pick["given"] and pick["level"] == level and origin in state.done and origin not in state.excluded:
            return True
        origin = pick.get("of")
    return False


def relabel_content(campaign: Campaign, param: Param) -> dict[str, Any]:
    """Return the decision that has every label of the present level made anew at the level of the configuration."""
    state = campaign.state
    level = new_level(campaign, param)
    present = [key for key, pick in state.picks.items() if pick["level"] == state.level and key not in state.excluded]
    wanted = [key for key in present if not _imported_at(campaign, key, level["name"])]
    return {
        "iteration": state.iteration,
        "level": level,
        "foundation": _stays_foundation(campaign, param),
        "picks": at_level(campaign, wanted, level),
    }
