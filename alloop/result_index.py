"""A disposable index of accepted results, so that a campaign is loaded without opening every manifest again.

``run/results.jsonl`` holds a line per result, appended by the driver: key, when its folder last changed, sizes of its
files, and what of its manifest the campaign counts. It may be deleted at any time. A line that is torn, or whose
result's folder has changed since, counts for nothing: that manifest is read as if there were no index.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alloop.cost import cores_of
from alloop.failpoint import failpoint, write
from alloop.store import MANIFEST, write_bytes

_FORM = 1


class Accepted(NamedTuple):
    """What a campaign counts of a result.

    changed_ns: time of the last change of its folder; sizes: bytes of each of its files; record: seconds, cores, gpus,
    waited_s, notes; failures: seconds, cores, gpus, waited_s and id of the failed attempts before it.
    """

    changed_ns: int
    sizes: dict[str, int]
    record: dict[str, Any]
    failures: list[dict[str, Any]]

    def holds(self, result: str, *, sizes: bool) -> bool:
        """Tell whether the result is still the folder that was accepted; with `sizes` every file is looked at."""
        try:
            if os.stat(result).st_mtime_ns != self.changed_ns:  # noqa: PTH116
                return False
            return not sizes or all(
                os.stat(f"{result}/{name}").st_size == size  # noqa: PTH116
                for name, size in self.sizes.items()
            )
        except OSError:
            return False


_COUNTED = ("seconds", "cores", "gpus", "waited_s")


def accepted(result: Path, manifest: Mapping[str, Any], failures: list[dict[str, Any]]) -> Accepted:
    """Return what the index keeps of a result, from its manifest and the failure records of its task."""
    record = manifest["record"]
    notes = record.get("notes") or {}
    kept = {name: record.get(name) for name in _COUNTED} | {"cores": cores_of(record)}
    kept["failed_attempts"] = int(record.get("failed_attempts") or 0)
    if notes:
        kept["notes"] = {name: notes[name] for name in ("code", "flags") if name in notes}
    lost = [
        {name: entry.get(name) for name in _COUNTED} | {"cores": cores_of(entry), "attempt": entry["attempt"]}
        for entry in failures
    ]
    sizes = {name: int(entry["size"]) for name, entry in manifest["files"].items()}
    return Accepted(result.stat().st_mtime_ns, sizes, kept, lost)


class ResultIndex:
    """The index file: read as a whole, written by appending what is new."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._new: list[str] = []
        self._lines = 0

    def read(self) -> dict[str, Accepted]:
        """Return the entries by key, later lines before earlier ones; empty if there is no index."""
        try:
            lines = self.file.read_bytes().splitlines()
        except OSError:
            lines = []
        self._lines = len(lines)
        found = {}
        for fields in _parsed(lines):
            try:
                form, key, changed_ns, sizes, record, failures = fields
                if form == _FORM and record["seconds"] >= 0 and changed_ns > 0 and sizes.keys() and len(failures) >= 0:
                    found[key] = Accepted(changed_ns, sizes, record, failures)
            except (ValueError, TypeError, LookupError, AttributeError):
                continue
        return found

    def note(self, key: str, entry: Accepted) -> None:
        """Remember a result until the next `flush`."""
        fields = [_FORM, key, entry.changed_ns, entry.sizes, entry.record, entry.failures]
        self._new.append(json.dumps(fields, separators=(",", ":")))

    def flush(self) -> None:
        """Append, as the driver, what is new; a disk that is full costs the index and nothing else."""
        if not self._new:
            return
        data = "".join(f"{line}\n" for line in self._new).encode()
        try:
            with self.file.open("ab", buffering=0) as stream:
                write(stream, b"\n" + data)  # ends a line that a killed driver left torn
            failpoint("index:appended")
        except OSError:
            return
        self._lines += len(self._new)
        self._new.clear()

    def tidy(self, entries: dict[str, Accepted]) -> None:
        """Write the index anew, as the driver, if more than half of its lines are of no use."""
        if self._lines <= 2 * len(entries) + 1000:
            return
        self._new.clear()
        for key, entry in entries.items():
            self.note(key, entry)
        data = "".join(f"{line}\n" for line in self._new).encode()
        self._new.clear()
        try:
            write_bytes(self.file, data)
        except OSError:
            return
        self._lines = len(entries)


def _parsed(lines: list[bytes]) -> list[Any]:
    """Return the JSON values of all lines that are whole."""
    try:
        whole: list[Any] = json.loads(b"[" + b",".join(line for line in lines if line) + b"]")
        return whole
    except ValueError:
        pass
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def manifest_of(result: Path) -> dict[str, Any]:
    """Return the manifest of a result."""
    found: dict[str, Any] = json.loads((result / MANIFEST).read_bytes())
    return found
