"""Look for events in a trajectory of the labeler's own dynamics."""

from __future__ import annotations

from collections import Counter

from alloop.attempt import Context, TaskError
from alloop.selection.events import Watch
from alloop.store import write_json


def count_events(context: Context) -> None:
    """Write ``summary.json``: ``frames`` that were looked at, ``atoms`` of each element in a frame, ``counts``.

    counts: of each event, how many atoms show it in a frame, mean over all frames. spec: reference, with the declared
    events, every how many frames are read, and how many of these are skipped. TaskError for a file that cannot be read,
    has too few frames, or whose frames are not of one composition.
    """
    from alloop.glass.analysis import read_frames  # rings and all, which other tasks can spare

    told, name = context.spec["reference"], context.files["file"].name
    watch: Watch | None = None
    composition: Counter[str] = Counter()
    showing: Counter[str] = Counter()
    frames = 0
    try:
        for number, atoms in enumerate(read_frames(context.files["file"], f"::{told['every']}")):
            if number < told["skip"]:
                continue
            watch = watch or Watch(told["events"], atoms)
            composition = composition or Counter(atoms.symbols)
            if composition != Counter(atoms.symbols):
                raise ValueError(
                    f"{name}: frame {number} of those read is {atoms.symbols}, others are {dict(composition)}; "
                    "give one trajectory of one cell per file"
                )
            showing.update({event: len(found) for event, found in watch.look(atoms).offending.items()})
            frames += 1
    except ValueError as error:
        raise TaskError(str(error), "config", final=True) from None
    if watch is None:
        raise TaskError(f"{name} has no frame after the {told['skip']} skipped", "config", final=True)
    counts = {event: showing[event] / frames for event in watch.names}
    write_json(context.out / "summary.json", {"frames": frames, "atoms": dict(composition), "counts": counts})
