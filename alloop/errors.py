"""Errors that reach a person: one readable message with a remedy, and the exit code they end with."""

from __future__ import annotations

DONE = 0
BAD_INPUT = 2
NOT_CONVERGED = 3
HELD_BY_ANOTHER = 4
NEEDS_PERSON = 5


class AlloopError(Exception):
    """A problem a person can mend; the message says what was found, what was expected and what to do."""

    exit_code = BAD_INPUT


class InputError(AlloopError):
    """Bad configuration or input."""


class CampaignHeldError(AlloopError):
    """Another driver holds the campaign, or has taken it over."""

    exit_code = HELD_BY_ANOTHER


class NeedsPersonError(AlloopError):
    """A kind of work is paused and cannot go on without a person."""

    exit_code = NEEDS_PERSON
