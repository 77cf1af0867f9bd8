"""Measure an ensemble on labels: the error of its forces, energies and virials, and its deviation on each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.frames import read_structures, write_arrays
from alloop.potential.ensemble import Ensemble, EnsembleEvaluation
from alloop.selection.deviation import DeviationStatistics, force_deviation
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame, from_record
from alloop.tasks.describe import Descriptions, describe_labels
from alloop.tasks.label import read_label
from alloop.tasks.reference import count_events


def run(context: Context) -> None:
    """Write ``errors.npz`` (one row per label, K columns where models differ) and ``summary.json``.

    Arrays over L labels and K models: ``label`` (L,) keys, ``n_atoms`` (L,), ``force_se`` (L, K) summed squared
    force error in (eV/Å)², ``force_abs`` (L, K) summed absolute error of force components in eV/Å, ``force_max`` (L,)
    largest error of a mean force, ``model_force_max`` (L, K) of each model's force (length of the error vector of an
    atom), ``mean_force_se`` (L,) that of the ensemble's mean, ``energy_error_eV`` (L, K), ``virial_se`` (L, K),
    ``max_deviation_eV_A`` (L,). Of S force components drawn at random, about equally many of each label:
    ``sample_row`` (S,) place of the label, ``sample_true_eV_A`` and ``sample_mean_eV_A`` (S,) by the labeler and the
    ensemble's mean.
    """
    spec = context.spec
    if "reference" in spec:
        count_events(context)
        return
    if "frames" in spec:
        rank(context)
        return
    if "describer" in spec:
        describe_labels(context)
        return
    keys = sorted({key for group in spec["sets"].values() for key in group})
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    sample: list[tuple[np.ndarray, np.ndarray]] = []
    rng, per_label = np.random.default_rng(0), -(-SAMPLED_COMPONENTS // max(1, len(keys)))
    ensemble = Ensemble([model_file(context, key) for key in spec["models"]])
    for label, found in _evaluated(context, ensemble, keys):
        force_error = found.forces_eV_A - label.forces_eV_A
        mean_error = force_error.mean(axis=0)
        rows["n_atoms"].append(len(label.atoms))
        rows["force_se"].append((force_error**2).sum(axis=(1, 2)))
        rows["force_abs"].append(np.abs(force_error).sum(axis=(1, 2)))
        rows["force_max"].append(np.linalg.norm(mean_error, axis=1).max())
        rows["model_force_max"].append(np.linalg.norm(force_error, axis=2).max(axis=1))
        rows["mean_force_se"].append((mean_error**2).sum())
        rows["energy_error_eV"].append(found.energies_eV - label.energy_eV)
        rows["virial_se"].append(((found.virials_eV - label.virial_eV) ** 2).sum(axis=(1, 2)))
        rows["max_deviation_eV_A"].append(force_deviation(found.forces_eV_A).max())
        chosen = rng.choice(mean_error.size, min(per_label, mean_error.size), replace=False)
        sample.append((label.forces_eV_A.ravel()[chosen], found.forces_eV_A.mean(axis=0).ravel()[chosen]))
    errors = {name: np.array(values) for name, values in rows.items()} | {"label": np.array(keys)}
    write_arrays(context.out / "errors.npz", errors | _sampled(sample))
    summary = {name: summarise(errors, np.isin(errors["label"], group)) for name, group in spec["sets"].items()}
    write_json(context.out / "summary.json", summary)


def _evaluated(
    context: Context, ensemble: Ensemble, keys: Sequence[str]
) -> Iterator[tuple[LabeledFrame, EnsembleEvaluation]]:
    """Yield labels with their evaluation, few of them in memory at a time."""
    read: deque[LabeledFrame] = deque()

    def structures() -> Iterator[Atoms]:
        for key in keys:
            read.append(read_label(context.result_of(key)))
            yield read[-1].atoms

    for _, found in ensemble.evaluate_stream(structures()):
        yield read.popleft(), found


def _explored(context: Context, frames: Mapping[str, Sequence[int]]) -> Iterator[Atoms]:
    """Yield explored frames, chunk by chunk."""
    for key, own in frames.items():
        yield from map(from_record, read_structures(context.result_of(key), own))


def _sampled(sample: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of force components, true and predicted, drawn from each label; float32, as they are drawn."""
    true, mean = (np.concatenate([np.zeros(0), *(own[k] for own in sample)]).astype(np.float32) for k in (0, 1))
    row = np.repeat(np.arange(len(sample)), [len(own) for own, _ in sample])
    return {"sample_row": row, "sample_true_eV_A": true, "sample_mean_eV_A": mean}


def rank(context: Context) -> None:
    """Write ``ranks.npz`` and ``summary.json``: the ensemble's largest force deviation on explored frames, and where.

    Arrays over F frames: ``task`` (F,) key of the chunk, ``frame`` (F,) its number there, ``max_deviation_eV_A`` (F,).
    """
    spec = context.spec
    sources = [(key, frame) for key, frames in spec["frames"].items() for frame in frames]
    ensemble = Ensemble([model_file(context, key) for key in spec["models"]])
    statistics = DeviationStatistics()
    maxima, descriptions = np.zeros(len(sources)), Descriptions(context)
    for number, (atoms, found) in enumerate(ensemble.evaluate_stream(_explored(context, spec["frames"]))):
        deviation = force_deviation(found.forces_eV_A)
        maxima[number] = deviation.max()
        descriptions.add(atoms, deviation, {})
    descriptions.write(context.out)
    statistics.add(maxima)
    write_arrays(
        context.out / "ranks.npz",
        {
            "task": np.array([key for key, _ in sources]),
            "frame": np.array([frame for _, frame in sources], dtype=int),
            "max_deviation_eV_A": maxima,
        },
    )
    write_json(context.out / "summary.json", {"frames": len(sources), "max_deviations_eV_A": statistics.to_json()})


SAMPLED_COMPONENTS = 3000
"""About as many force components are kept for a parity plot."""

_COLUMNS = (
    "n_atoms",
    "force_se",
    "force_abs",
    "force_max",
    "model_force_max",
    "mean_force_se",
    "energy_error_eV",
    "virial_se",
    "max_deviation_eV_A",
)


def summarise(errors: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, Any]:
    """Return the errors over the chosen labels; all None for an empty choice.

    ``force_rmse_eV_A`` is the root mean square over labels, atoms, components AND models: the error of one model,
    as the dynamics is driven by one; ``force_mae_eV_A`` is the mean absolute one, and ``max_force_error_eV_A`` the
    largest of any, likewise. ``mean_force_rmse_eV_A`` is that of the ensemble's mean force.
    """
    count = int(chosen.sum())
    if count == 0:
        names = (
            "force_rmse_eV_A",
            "force_mae_eV_A",
            "mean_force_rmse_eV_A",
            "energy_rmse_eV_atom",
            "max_force_error_eV_A",
        )
        return {"labels": 0, "force_components": 0} | dict.fromkeys(names)
    atoms = errors["n_atoms"][chosen]
    components = 3 * atoms.sum()
    per_atom = errors["energy_error_eV"][chosen] / atoms[:, None]
    return {
        "labels": count,
        "force_components": int(components),
        "force_rmse_eV_A": float(np.sqrt(errors["force_se"][chosen].mean(axis=1).sum() / components)),
        "force_mae_eV_A": float(errors["force_abs"][chosen].mean(axis=1).sum() / components),
        "mean_force_rmse_eV_A": float(np.sqrt(errors["mean_force_se"][chosen].sum() / components)),
        "energy_rmse_eV_atom": float(np.sqrt((per_atom**2).mean())),
        "max_force_error_eV_A": float(errors["model_force_max"][chosen].max()),
    }


def model_file(context: Context, key: str) -> Any:
    """Return the model file, compressed if there is one, of a trained model."""
    result = context.result_of(key)
    return result / read_json(result / "summary.json")["model"]
