"""What a person asks of a campaign from outside its driver: quarantined work again, labels out of training.

While a driver lives, only it may take decisions: the request waits in ``run/requests/`` for it, a second or so.
Without a driver the decision is taken at once.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from alloop.campaign import Campaign
from alloop.errors import CampaignHeldError
from alloop.store import create_json_once, read_json

KINDS = ("retry", "exclude")
_PATIENCE_SECONDS = 10.0


def ask(campaign: Campaign, kind: str, **content: Any) -> str:
    """Bring about a decision of a person; return "done", or "asked" if the driver has yet to take it.

    CampaignHeldError if another process took the decision's number at the same moment.
    """
    if not campaign.driver_alive():
        campaign.load()
        campaign.decide(kind, **content)
        return "done"
    folder = _folder(campaign)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    create_json_once(file, {"kind": kind, "content": content})
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while file.exists() and time.monotonic() < deadline:
        if not campaign.driver_alive():
            file.unlink(missing_ok=True)
            return ask(campaign, kind, **content)
        time.sleep(0.1)
    return "asked" if file.exists() else "done"


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
        file.unlink(missing_ok=True)
        taken.append((kind, content))
    return taken


def _taken_before(campaign: Campaign, request: str) -> bool:
    """Tell whether a driver took this request's decision and was killed before it could remove the file."""
    return request in campaign.state.requests


def _folder(campaign: Campaign) -> Path:
    return campaign.run_folder / "requests"


def refuse_while_driven(campaign: Campaign, what: str) -> None:
    """Raise CampaignHeldError if a driver lives, for what changes too much to happen beside one."""
    if campaign.driver_alive():
        raise CampaignHeldError(f"a driver runs here, and {what} needs it stopped\n  end it with: alloop stop")
