"""What `alloop analyze` makes of whole trajectories: g(r), S(Q), angles, diffusion, the history of rings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from alloop.errors import InputError
from alloop.report.frame_files import frames_of_file
from alloop.store import write_json

if TYPE_CHECKING:
    from alloop.glass.ring_history import RingHistory
    from alloop.glass.transport import Diffusion, Estimate

Q_MAX_PER_A = 20.0
_LEAST_Q_VECTORS = 12  # fewer vectors in a shell of S(Q) are a speckle of the box and not drawn


_EVENT_FILES = "ring-*.extxyz"


@dataclass(frozen=True)
class Frames:
    """The files that were given, of which every n-th frame is read, one at a time and as often as asked.

    frame_ps: time between two frames of a file, None if not known; types: elements of a LAMMPS dump's atom types.
    """

    paths: tuple[Path, ...]
    every: int = 1
    frame_ps: float | None = None
    types: tuple[str, ...] = ()

    def of(self, path: Path) -> Iterator[Atoms]:
        """Frames of one file."""
        return frames_of_file(path, self.every, self.types)

    def all(self) -> Iterator[Atoms]:
        """Every n-th frame of all files, pieces of one run: the stride goes on over their ends."""
        frames = (atoms for path in self.paths for atoms in frames_of_file(path, 1, self.types))
        return islice(frames, 0, None, self.every)

    def step_ps(self, purpose: str) -> float:
        """Time between two frames read; InputError if it is not known."""
        if self.frame_ps is None:
            raise InputError(f"{purpose} needs the time between two frames of the file; give --frame-ps")
        return self.frame_ps * self.every


def write_rdf(frames: Frames, file: Path) -> None:
    """Write total and partial g(r), averaged over all frames, as a plot, or as columns if the file ends in .csv."""
    from alloop.glass.correlation import radial_distribution

    def draw(axes: Any) -> None:
        for name, values in sorted(found.partial.items()):
            axes.plot(found.r_A, values, linewidth=1, label=name)
        axes.plot(found.r_A, found.total, color="black", label="total")
        axes.set(xlabel="r (Å)", ylabel="g(r)", title=_mean_over(found.n_frames), xlim=(0, found.edges_A[-1]))

    with _told("g(r)", file):
        found = radial_distribution(frames.all())
        found.write_csv(file) if file.suffix == ".csv" else _plot(file, draw)


def write_structure_factor(frames: Frames, file: Path, isotopes: Sequence[str]) -> None:
    """Write neutron and X-ray S(Q), averaged over all frames, as a plot, or with all partials if it ends in .csv."""
    from alloop.glass.scattering import structure_factors_direct

    def draw(axes: Any) -> None:
        sampled = found.n_vectors is None or found.n_vectors >= _LEAST_Q_VECTORS
        for name, values in totals.items():
            axes.plot(found.q_per_A[sampled], values[sampled], linewidth=1, label=name)
        axes.set(xlabel="Q (1/Å)", ylabel="S(Q)", title=_mean_over(found.n_frames), xlim=(0, Q_MAX_PER_A))

    with _told("S(Q)", file):
        found = structure_factors_direct(frames.all(), q_max_per_A=Q_MAX_PER_A)
        totals = {"neutron": found.neutron(isotopes=isotopes), "x-ray": found.xray()}
        if file.suffix == ".csv":
            columns = {"q_per_A": found.q_per_A, **totals, **found.partial}
            _columns(file, columns)
        else:
            _plot(file, draw)


def write_angles(frames: Frames, file: Path, cutoffs_A: dict[str, float]) -> None:
    """Write the distributions of bond angles, over all frames, as a plot, or as columns if the file ends in .csv."""
    from alloop.glass.angles import angle_distributions

    def draw(axes: Any) -> None:
        for name in found.counts:
            axes.plot(found.angle_deg, found.per_degree(name), label=f"{name} (mean {found.mean_deg[name]:.1f}°)")
        axes.set(xlabel="angle (°)", ylabel="P (1/°)", title=_mean_over(found.n_frames), xlim=(60, 180))

    with _told("bond angles", file):
        found = angle_distributions(frames.all(), cutoffs_A=cutoffs_A)
        found.write_csv(file) if file.suffix == ".csv" else _plot(file, draw)


def find_diffusion(
    frames: Frames, element: str, window_ps: tuple[float, float], drop_ps: float, temperature_K: float | None
) -> tuple[Diffusion, dict[str, Any]]:
    """Return the diffusion of an element, each file a replica, and its figures ready for JSON; InputError as ever."""
    from alloop.glass.transport import combine_trajectories, diffusion

    step_ps = frames.step_ps("diffusion")
    try:
        single = [
            diffusion(frames.of(path), time_step_ps=step_ps, element=element, window_ps=window_ps, drop_ps=drop_ps)
            for path in frames.paths
        ]
        found = single[0] if len(single) == 1 else combine_trajectories(single)
        return found, diffusion_record(found, temperature_K)
    except ValueError as error:
        raise InputError(f"diffusion of {element}: {error}") from None


def diffusion_record(found: Diffusion, temperature_K: float | None) -> dict[str, Any]:
    """Return the figures of a diffusion ready for JSON; the conductivity if the temperature is known."""
    record = {
        "element": found.element,
        "replicas": found.n_trajectories,
        "atoms": found.n_atoms,
        "window_ps": list(found.window_ps),
        "dropped_ps": found.dropped_ps,
        "D_cm2_s": _interval(found.D_cm2_s),
        "number_density_times_D_1_cm_s": _interval(found.C_times_D_per_cm_s),
    }
    if temperature_K is not None:
        record["temperature_K"] = temperature_K
        record["conductivity_S_cm"] = _interval(found.conductivity_S_cm(temperature_K))
    return record


def _interval(estimate: Estimate) -> dict[str, float | None]:
    """JSON knows no infinity: a bound that is not known is None."""
    values = {"value": estimate.value, "low_95": estimate.low, "high_95": estimate.high}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def write_diffusion(found: Diffusion, record: dict[str, Any], file: Path) -> None:
    """Write the MSD as a plot with the fitted line, as columns (.csv), or the figures (.json)."""

    def draw(axes: Any) -> None:
        window = np.array(found.window_ps)
        axes.plot(found.lags_ps, found.msd_A2, color="black", label=f"{found.element}, {found.n_atoms} atoms")
        fit = 6 * found.D_A2_ps.value * window + found.intercept_A2
        axes.plot(window, fit, color="tab:red", label=f"D = {found.D_cm2_s.value:.3g} cm²/s")
        axes.set(xlabel="time (ps)", ylabel="mean squared displacement (Å²)", xlim=(0, 1.5 * window[1]))
        axes.set_ylim(0, 1.6 * max(float(fit[-1]), 1e-6))

    with _told("mean squared displacement", file):
        if file.suffix == ".json":
            write_json(file, record)
        elif file.suffix == ".csv":
            _columns(file, {"lag_ps": found.lags_ps, "msd_A2": found.msd_A2})
        else:
            _plot(file, draw)


def diffusion_text(record: dict[str, Any]) -> str:
    """Return the figures of `find_diffusion` for people."""

    def told(values: dict[str, float | None], unit: str) -> str:
        low, high = ("?" if values[end] is None else f"{values[end]:.2g}" for end in ("low_95", "high_95"))
        return f"{values['value']:.3g} {unit} (95 %: {low} to {high})"

    parts = [
        f"diffusion of {record['element']} ({record['atoms']} atoms, {record['replicas']} replica(s), lags "
        f"{record['window_ps'][0]:g} to {record['window_ps'][1]:g} ps): D {told(record['D_cm2_s'], 'cm²/s')}",
        f"C·D {told(record['number_density_times_D_1_cm_s'], '1/(cm s)')}",
    ]
    if "conductivity_S_cm" in record:
        told_conductivity = told(record["conductivity_S_cm"], "S/cm")
        parts.append(f"Nernst-Einstein conductivity at {record['temperature_K']:g} K {told_conductivity}")
    return "; ".join(parts)


def find_history(
    frames: Frames, cutoffs_A: dict[str, float], temperature_K: float | None, ramp_K: tuple[float, float] | None
) -> RingHistory:
    """Return the history of three-membered boron rings through all files, pieces of one run in their order.

    Temperatures run linearly between the two of a ramp, or are the one given, or those that the frames carry as
    ``temperature_K``. InputError if none is known.
    """
    from alloop.glass.ring_history import ring_history

    step_ps = frames.step_ps("the history of rings")
    carried = [atoms.info.get("temperature_K") for atoms in frames.all()]
    number = len(carried)
    if ramp_K is not None:
        temperatures_K = np.linspace(*ramp_K, number)
    elif temperature_K is not None:
        temperatures_K = np.full(number, temperature_K)
    elif None in carried:
        raise InputError(
            "the history of rings needs temperatures, and the frames carry no temperature_K; give --ramp-K FROM TO for "
            "a linear ramp, or --temperature-K"
        )
    else:
        temperatures_K = np.array(carried, dtype=float)
    times_ps = np.arange(number, dtype=np.float64) * step_ps
    try:
        return ring_history(frames.all(), times_ps=times_ps, temperatures_K=temperatures_K, cutoffs_A=cutoffs_A)
    except ValueError as error:
        raise InputError(f"history of rings: {error}") from None


def write_history(found: RingHistory, file: Path) -> None:
    """Write counts against temperature and survival of the final rings as a plot, or everything (.json)."""

    def draw(axes: Any) -> None:
        counts = found.counts_by_temperature()
        axes.plot(counts.temperature_K, counts.mean, color="black", label="three-membered boron rings")
        axes.set(xlabel="temperature (K)", ylabel="rings")
        survival = found.survival()
        if survival.final_rings:
            right = axes.twinx()
            right.plot(found.temperatures_K, survival.present, color="tab:red", linewidth=1)
            right.set_ylabel("share of the final rings that exist", color="tab:red")
            right.set_ylim(0, 1.05)

    with _told("history of rings", file):
        if file.suffix == ".json":
            write_json(file, found.as_dict())
        else:
            _plot(file, draw)


def write_events(found: RingHistory, frames: Frames, folder: Path) -> int:
    """Write the surroundings of every ring that forms or breaks, before and after, as extxyz; return how many.

    InputError for a folder that holds files of events already, which would be mixed with these.
    """
    from ase.io import write

    from alloop.glass.ring_history import structures_of_events

    with _told("ring events", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob(_EVENT_FILES)):
            raise ValueError("there are ring events of an earlier analysis; give a new folder")
        for number, (event, before, after) in enumerate(structures_of_events(found.events, frames.all())):
            name = f"ring-{number:04d}-{event.kind}-{event.temperature_K:.0f}K.extxyz"
            write(folder / name, [before, after], format="extxyz")
    return len(found.events)


def history_text(found: RingHistory) -> str:
    """Return the gist of a history for people."""
    kinds = [event.kind for event in found.events]
    return (
        f"three-membered boron rings: {found.counts[0]} at first, {found.counts[-1]} at last; "
        f"{kinds.count('formation')} formed and {kinds.count('decomposition')} broke "
        f"(for at least {found.persistence_ps:g} ps)"
    )


def _mean_over(n_frames: int) -> str:
    return f"mean over {n_frames} frame(s)"


def _columns(file: Path, columns: dict[str, np.ndarray]) -> None:
    table = np.column_stack(list(columns.values()))
    np.savetxt(file, table, fmt="%.6g", delimiter=",", header=",".join(columns), comments="")


@contextmanager
def _told(what: str, file: Path) -> Iterator[None]:
    """Turn what goes wrong with frames or a file into a message that names both."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(f"{what} to {file}: {error}") from None


def _plot(file: Path, draw: Callable[[Any], None]) -> None:
    """Draw on one pair of axes and save in the format of the file's suffix; .pdf and .svg are vectors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    try:
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
        figure.savefig(file, dpi=150)
    finally:
        plt.close(figure)
