"""Train one model of the ensemble: train, freeze and compress in this one process."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from alloop.attempt import Context, TaskError
from alloop.potential.dataset import write_systems
from alloop.potential.descriptor import DESCRIBER, write_describer
from alloop.potential.short_range import ShortRange
from alloop.potential.training import LCURVE, TrainRequest, last_step, train
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame
from alloop.tasks.label import read_label
from alloop.tasks.sources import checkpoint_hash

PROGRESS_SECONDS = 3.0


def run(context: Context) -> None:
    """Write the model, its compressed form, its checkpoint, ``lcurve.out``, ``input.json`` and ``summary.json``."""
    spec = context.spec
    began = time.monotonic()
    directory = context.work / "train"
    directory.mkdir()
    if spec["resume"] == "checkpoint":
        _continue_from(context, directory)
    systems = {
        role: write_systems(
            [shifted(read_label(context.result_of(key)), spec.get("energy_shift_eV", {})) for key in spec[role]],
            context.work / role,
            spec["type_map"],
        )
        for role in ("training", "held_out")
        if spec[role]
    }
    wall = spec.get("network", {}).get("short_range")
    request = TrainRequest(
        template=spec["template"],
        type_map=spec["type_map"],
        training_systems=systems["training"],
        validation_systems=systems.get("held_out", ()),
        n_steps=spec["steps"],
        start_lr=spec["start_lr"],
        stop_lr=spec["stop_lr"],
        seed=spec["seed"],
        init_checkpoint=_start(context),
        scratch_steps=spec.get("scratch", {}).get("steps"),
        scratch_lr=spec.get("scratch", {}).get("start_lr"),
        restart=spec["resume"] == "checkpoint",
        save_freq=spec["save_every"],
        compress=spec["compress"],
        backend=spec["backend"],
        short_range=ShortRange(**wall) if wall else None,
    )
    with _told(context, directory / LCURVE):
        trained = train(request, directory)
    files = [
        trained.model,
        *([trained.compressed_model] if trained.compressed_model else []),
        *([trained.short_range_table] if trained.short_range_table else []),
        trained.lcurve,
        trained.log,
    ]
    for file in [*files, *trained.checkpoint_files, directory / "input.json"]:
        shutil.move(file, context.out / file.name)
    if passed_over := request.init_checkpoint is not None and trained.started_from == "scratch":
        print(f"{request.init_checkpoint} cannot be started from, see {trained.log.name}", flush=True)
    lacking = None
    if spec.get("describe"):
        lacking = _describe(context.out, trained.model.name, trained.checkpoint.name, spec["backend"])
    driving = trained.compressed_model or trained.model
    write_json(
        context.out / "summary.json",
        {
            "model": driving.name,
            "checkpoint": trained.checkpoint.name,
            "training_labels": len(spec["training"]),
            "steps": trained.steps,
            "seconds": round(time.monotonic() - began, 1),
            "started_from": trained.started_from,
        }
        | ({"init_passed_over": True} if passed_over else {})
        | ({"no_describer": lacking} if lacking else {}),
    )


def _describe(out: Path, model: str, checkpoint: str, backend: str) -> str | None:
    """Write the model as the campaign's describing one, or return why that cannot be done.

    Without it frames are chosen without regard to environments. A template of a person's own may hold what DeePMD
    cannot write so. A model with a wall names its table's file relative to where the process is.
    """
    try:
        with contextlib.chdir(out):
            write_describer(out / model, out / checkpoint, out / DESCRIBER, backend)
    except Exception as error:
        (out / DESCRIBER).unlink(missing_ok=True)
        print(f"no describing model: {type(error).__name__}: {error}", flush=True)
        return f"{type(error).__name__}: {error}"
    return None


def shifted(label: LabeledFrame, shift_eV: dict[str, float]) -> LabeledFrame:
    """Return the label with `shift_eV` of its element added to the energy for every atom; forces stay as they are."""
    energy_eV = label.energy_eV + sum(shift_eV.get(symbol, 0.0) for symbol in label.atoms.symbols)
    return replace(label, energy_eV=energy_eV)


@contextlib.contextmanager
def _told(context: Context, lcurve: Path) -> Iterator[None]:
    """Tell how far the training is, every few seconds, by the learning curve that it writes meanwhile."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            step = last_step(lcurve)
            context.progress(min(1.0, step / context.spec["steps"]), f"step {step}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _continue_from(context: Context, directory: Path) -> None:
    """Bring in what the newest earlier attempt left behind: checkpoint and learning curve."""
    for earlier in context.earlier:
        found = earlier / "train"
        if (found / "checkpoint").is_file():
            skipped = shutil.ignore_patterns("systems")
            shutil.copytree(found, directory, symlinks=True, dirs_exist_ok=True, ignore=skipped)
            return


def _start(context: Context) -> Path | None:
    """Return the checkpoint prefix to start from: that of a trained model, or a person's own, or None."""
    spec = context.spec
    if spec["init"]:
        result = context.result_of(spec["init"])
        return result / read_json(result / "summary.json")["checkpoint"]
    if "init_sha256" not in spec:
        return None
    own = context.files["init"]
    try:
        unchanged = checkpoint_hash(own, spec["backend"]) == spec["init_sha256"]
    except ValueError as error:
        raise TaskError(f"{error}; put the files back", kind="bug") from None
    if not unchanged:
        raise TaskError(f"{own} is not the checkpoint this task was made from; put it back as it was", kind="bug")
    return own
