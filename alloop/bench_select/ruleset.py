"""Which events are told apart and by which rules `full` chooses: the package's own, or those of a campaign."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from alloop.bench_select.events import DEFAULT_EVENTS
from alloop.selection.picks import Rules

if TYPE_CHECKING:
    from alloop.config import Param

BANDS_K = (1000.0, 2000.0, 3000.0)  # between the bands that have event quotas of their own
EVENT_SHARE, AUDIT_SHARE = 0.1, 0.1
MIN_SEPARATION_PS = 0.05


@dataclass(frozen=True)
class Ruleset:
    """How frames are looked at and chosen.

    source: whose rules they are; events: what is watched for, by name, as `alloop.selection.events.Watch` takes it;
    given: the rules of a campaign for an iteration of `max_labels`; without them those of `DEFAULT` hold.
    """

    source: str
    events: Mapping[str, Mapping[str, Any]]
    given: Rules | None = None

    def rules(self, n: int, trajectories: int) -> Rules:
        """Return the rules for a round of n labels from a pool of so many trajectories.

        By default a trajectory gives no more than twice its share. What a campaign counts per iteration is a share of
        its labels: a round gets as much in proportion, quotas and limits rounded up.
        """
        if self.given is None:
            return Rules(
                max_labels=n,
                max_per_trajectory=max(1, math.ceil(2 * n / trajectories)),
                min_separation_ps=MIN_SEPARATION_PS,
                audit=round(AUDIT_SHARE * n),
                event_quota=dict.fromkeys(self.events, math.ceil(EVENT_SHARE * n / (len(BANDS_K) + 1))),
                bands_K=BANDS_K,
                before_loss=0,
            )
        per = self.given.max_labels
        return replace(
            self.given,
            max_labels=n,
            max_per_trajectory=_in_proportion(self.given.max_per_trajectory, n, per),
            audit=round(self.given.audit * n / per),
            event_quota={event: _in_proportion(quota, n, per) for event, quota in self.given.event_quota.items()},
            before_loss=_in_proportion(self.given.before_loss, n, per),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the rules for the record of a comparison; of a campaign's, those of an iteration."""
        events = {event: dict(settings) for event, settings in self.events.items()}
        return {"source": self.source, "events": events, "rules": asdict(self.given) if self.given else None}

    def sentence(self) -> str:
        """Return what a person reads of the rules."""
        own = self.given
        if own is None:
            return f"events and rules of `full`: {self.source}"
        quotas = ", ".join(f"{event} {own.event_quota.get(event, 0)}" for event in self.events)
        edges = ", ".join(f"{edge:g}" for edge in own.bands_K)
        bands = f"temperature band (edges {edges} K)" if edges else "all temperatures"
        return (
            f"events and rules of `full`: {self.source}, its numbers for {own.max_labels} labels in proportion: "
            f"{quotas} per {bands}, events together {own.event_share:g} of the labels and new from {own.novelty:g} on; "
            f"{own.audit} at random; {own.before_loss} before a loss; {own.max_per_trajectory} of a trajectory, "
            f"{own.min_separation_ps:g} ps apart"
        )


DEFAULT = Ruleset("the defaults", DEFAULT_EVENTS)
"""The rules on a folder of frames."""


def ruleset_of(param: Param) -> Ruleset:
    """Return the rules by which a campaign of this configuration selects."""
    from alloop.decisions.selection import selection_rules
    from alloop.event_params import definitions

    return Ruleset(f"those of campaign {param.name}", definitions(param.select.events), selection_rules(param))


def _in_proportion(count: int, n: int, per: int) -> int:
    return -(-count * n // per)
