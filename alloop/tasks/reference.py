"""Look for events in a trajectory of the labeler's own dynamics."""

from __future__ import annotations

from collections import Counter

from alloop.attempt import Context, TaskError
from alloop.selection.events import Watch
from alloop.store import write_json


def count_events(context: Context) -> None:
    """Write ``summary.json``: how many frames were looked at, and the share of them that shows each event.

    spec: reference, with the declared events, every how many frames are read, and how many of these are skipped.
    TaskError for a file that cannot be read or has too few frames.
    """
    from alloop.glass.analysis import read_frames  # rings and all, which other tasks can spare

    told = context.spec["reference"]
    watch: Watch | None = None
    seen: Counter[str] = Counter()
    frames = 0
    try:
        for number, atoms in enumerate(read_frames(context.files["file"], f"::{told['every']}")):
            if number < told["skip"]:
                continue
            watch = watch or Watch(told["events"], atoms)
            found = watch.look(atoms)
            seen.update(name for name in watch.names if found.seen(name))
            frames += 1
    except ValueError as error:
        raise TaskError(str(error), "config", final=True) from None
    if watch is None:
        raise TaskError(
            f"{context.files['file'].name} has no frame after the {told['skip']} skipped", "config", final=True
        )
    write_json(context.out / "summary.json", {"frames": frames, "share": {n: seen[n] / frames for n in watch.names}})
