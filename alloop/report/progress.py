"""What a running driver shows: one line per decision and per finished stage, and a live line on a terminal."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.status import Status

from alloop.campaign import Campaign
from alloop.store import Task

_QUIET_SECONDS = 60.0
_AGAIN_SECONDS = 600.0


class Watcher:
    """Tells a person what the driver does."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Status | None = None
        self._last_line = time.monotonic()
        self._done: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print one line with the time of day."""
        self.console.print(f"[dim]{datetime.now():%H:%M:%S}[/dim] {text}", highlight=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def say_once(self, text: str) -> None:
        """Print what goes on and on, once in ten minutes; numbers in it may change meanwhile."""
        known = re.sub(r"[0-9.]+", "0", text)
        if time.monotonic() - self._said.get(known, -_AGAIN_SECONDS) >= _AGAIN_SECONDS:
            self._said[known] = time.monotonic()
            self.say(f"[yellow]{text}[/yellow]")

    def decided(self, kind: str, iteration: int, content: dict[str, Any]) -> None:
        """Tell of a decision; picks of single frames are too many to tell."""
        if kind == "pick":
            return
        where = f"iteration {iteration}: " if iteration >= 0 else ""
        self.say(where + _sentence(kind, content))

    def adopted(self, task: Task) -> None:
        """Tell of an attempt taken over from an earlier driver."""
        self.say(f"{task.kind} {task.name} still runs; taken over")

    def done(self, task: Task) -> None:
        """Note a finished task; long ones get a line of their own."""
        self._done[task.kind] = self._done.get(task.kind, 0) + 1
        if task.kind in ("train", "bootstrap", "quench"):
            self.say(f"{task.kind} {task.name} done")

    def quarantined(self, task: Task, message: str) -> None:
        """Tell of a task that was given up."""
        self.say(f"[red]{task.kind} {task.name} quarantined[/red]: {message}")

    def tick(self, campaign: Campaign) -> None:
        """Refresh the live line; where there is no terminal, say something once a minute."""
        if self.console.is_terminal:
            if self._live is None:
                self._live = self.console.status("")
                self._live.start()
            self._live.update(_in_flight(campaign))
        elif time.monotonic() - self._last_line > _QUIET_SECONDS and (text := _in_flight(campaign)):
            self.say(text)

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _in_flight(campaign: Campaign) -> str:
    """Return per kind of work how many tasks have ended, and how far the running ones are that tell."""
    state, told = campaign.state, campaign.progress()
    parts = []
    for (kind, iteration), unfinished in state.unfinished.items():
        if unfinished:
            done, total = state.stage_counts(kind, iteration)
            what = {"seed_labels": "label", "select": "label"}.get(kind, kind)
            running = ", ".join(f"{100 * told[key]:.0f} %" for key in sorted(unfinished & told.keys()))
            parts.append(f"{what} {done}/{total}" + (f" (running: {running})" if running else ""))
    return ", ".join(parts)


_LABELS_ASKED = {
    "seed_labels": "{} starting configurations to label",
    "promote": "{} structures of the foundation to label as {}",
    "relabel": "{} labels to make anew as {}",
}
_TRAINED_ON = {"train": "labels", "pretrain": "labels of the foundation, energies shifted onto the campaign's scale"}


def _sentence(kind: str, content: dict[str, Any]) -> str:
    if kind == "bootstrap":
        return f"{len(content['tasks'])} sources of starting configurations"
    if kind in _LABELS_ASKED:
        return _LABELS_ASKED[kind].format(len(content["picks"]), content["level"]["name"])
    if kind in _TRAINED_ON:
        count = len(content["common"]["training"])
        return f"{kind} {len(content['tasks'])} models on {count} {_TRAINED_ON[kind]}"
    if kind == "explore":
        left = f"; {len(content['withdrawn'])} of an older ensemble not begun" if content["withdrawn"] else ""
        return f"explore in {len(content['tasks'])} chunks{left}"
    if kind == "rank":
        frames = sum(map(len, content["tasks"][0]["spec"]["frames"].values()))
        return f"judge {frames} frames that wait for a label by the new ensemble"
    if kind == "melting":
        return f"how far Si and B move at rising temperatures, for {len(content['tasks'])} glasses"
    if kind == "probe":
        return f"short melt-quenches in {len(content['tasks'])} chunks, to compare the glasses of ensembles"
    if kind == "relax":
        count = len(content["tasks"])
        return (
            f"relax {count} of its glasses with the labeler" if count else "nothing to relax: other criteria are open"
        )
    if kind == "describe":
        return f"describe the environments of {len(content['labels'])} labels it was trained on"
    if kind == "select":
        counts = content["classes"]
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(content["reasons"].items())) or "none"
        return (
            f"{counts['accurate']} accurate, {counts['candidate']} candidate, {counts['failed']} failed frames; "
            f"to label: {reasons}"
        )
    if kind == "evaluate":
        return "measure the ensemble on the new labels, before training on them"
    if kind == "verdict":
        return ("[green]converged[/green]: " if content["converged"] else "not converged: ") + content["reason"]
    if kind == "assess":
        return f"measure {len(content['tasks'])} ensembles on the final held-out sets"
    if kind == "final_train":
        return f"train {len(content['tasks'])} models longer, for the quench"
    if kind == "final_check":
        return "measure them and the ensemble they come from on the held-out sets"
    if kind == "guard":
        return str(content["reason"])
    if kind == "relax_glass":
        points = len(content.get("points", ()))
        told = f"relax {len(content['tasks'])} glasses with the labeler"
        return told + (f", and ask for the energy of {points} larger ones" if points else "")
    if not content["tasks"]:
        return "no melt-quench asked for"
    mark = "" if content["converged"] else " (ensemble not converged)"
    longer = content.get("final_training")
    return f"melt-quench in {len(content['tasks'])} chunks{mark}" + (f"; {longer['reason']}" if longer else "")
