"""What a person asks of a campaign from outside its driver: quarantined work again, labels out of training.

While a driver lives, only it may take decisions: the request waits in ``run/requests/`` for it, a second or so.
Without a driver the decision is taken at once.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import Any

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.errors import CampaignHeldError, InputError
from alloop.failpoint import failpoint
from alloop.report.snapshot import write_snapshot
from alloop.store import Task, create_json_once, read_json

KINDS = ("retry", "exclude")
_PATIENCE_SECONDS = 10.0


def ask(campaign: Campaign, kind: str, **content: Any) -> str:
    """Bring about a decision of a person; return "done", or "asked" if the driver has yet to take it.

    CampaignHeldError if another process took the decision's number at the same moment.
    """
    if not campaign.driver_alive():
        campaign.load()
        campaign.decide(kind, **content)
        with contextlib.suppress(OSError):  # so that status need not count everything anew
            write_snapshot(campaign)
        return "done"
    file = leave(campaign, kind, **content)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while file.exists() and time.monotonic() < deadline:
        if not campaign.driver_alive():
            file.unlink(missing_ok=True)
            return ask(campaign, kind, **content)
        time.sleep(0.1)
    return "asked" if file.exists() else "done"


def leave(campaign: Campaign, kind: str, **content: Any) -> Path:
    """Put a request where the driver finds it, and return its file, which goes once it is decided."""
    folder = _folder(campaign)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    create_json_once(file, {"kind": kind, "content": content})
    return file


def waiting(campaign: Campaign) -> list[tuple[Path, str, dict[str, Any]]]:
    """Return the requests that wait for the driver, oldest first; unreadable ones are left alone."""
    found = []
    for file in sorted(_folder(campaign).glob("[0-9]*.json")):
        try:
            record = read_json(file)
            kind, content = record["kind"], record["content"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if kind in KINDS:
            found.append((file, kind, content))
    return found


def take(campaign: Campaign) -> list[tuple[str, dict[str, Any]]]:
    """Decide, as the driver, what persons have asked for; return it."""
    taken = []
    for file, kind, content in waiting(campaign):
        if not _taken_before(campaign, file.stem):
            campaign.decide(kind, **content, request=file.stem)
        failpoint("request:before")
        file.unlink(missing_ok=True)
        failpoint("request:after")
        taken.append((kind, content))
    return taken


def _taken_before(campaign: Campaign, request: str) -> bool:
    """Tell whether a driver took this request's decision and was killed before it could remove the file."""
    return request in campaign.state.requests


def _folder(campaign: Campaign) -> Path:
    return campaign.run_folder / "requests"


def quarantined(campaign: Campaign, names: list[str], failed: str | None, *, everything: bool) -> list[str]:
    """Return the keys of quarantined tasks: those named, those of a failure class, or all; InputError if none is.

    Chunks of iterations that have chosen their frames are never among them: nothing would come of another try.
    """
    state = campaign.state
    if not (names or failed or everything):
        raise InputError("name tasks, a class (--class unconverged) or --all; alloop status lists what is quarantined")
    wanted = {key: record for key, record in state.quarantined.items() if key not in state.superseded}
    found = {key for key, record in wanted.items() if everything or record["class"] == failed}
    for name in names:
        matches = [key for key in wanted if _is_called(state.tasks[key], name)]
        if len(matches) != 1:
            listed = ", ".join(state.tasks[key].name for key in [*wanted][:5]) or "nothing"
            raise InputError(f"{name!r} names {len(matches)} quarantined tasks\n  quarantined is {listed}")
        found.update(matches)
    if not found:
        raise InputError(f"nothing is quarantined{f' with class {failed}' if failed else ''}")
    late = sorted(state.tasks[key].name for key in found if state.is_too_late(key))
    if (names and late) or len(late) == len(found):
        raise InputError(
            f"too late for another try: the iteration of {', '.join(late[:5])} has chosen its frames without it\n"
            "  nothing needs to be done: it costs itself only, and no other work waits for it"
        )
    return sorted(key for key in found if not state.is_too_late(key))


def _is_called(task: Task, text: str) -> bool:
    folder = f"{task.name}-{task.key}"
    return (
        text in (task.key, task.name, folder)
        or Path(text).name == folder
        or (len(text) > 3 and task.key.startswith(text))
    )


def relabel(campaign: Campaign, param: Param, *, really: bool) -> tuple[int, str, str]:
    """Have every label made anew at the configuration's level of theory; return how many, the old and the new level.

    Nothing is decided unless `really`. CampaignHeldError while a driver runs; InputError if the level is the same.
    """
    from alloop.decisions.levels import new_level, relabel_content

    if not campaign.exists():
        raise InputError("no campaign has begun here; change param.json as you like, then: alloop run")
    if campaign.driver_alive():
        raise CampaignHeldError("a driver runs here, and relabelling needs it stopped\n  end it with: alloop stop")
    state = campaign.load()
    old, new = str(state.level), new_level(campaign, param)
    if old == new["name"]:
        raise InputError(f"param.json still names the level of theory the labels have, {old}; nothing to do")
    if not any(not pick["given"] for pick in state.picks.values()):
        raise InputError("no label was asked for yet; change param.json as you like, then: alloop run")
    content = relabel_content(campaign, param)
    if really:
        campaign.decide("relabel", **content)
    return len(content["picks"]), old, new["name"]
