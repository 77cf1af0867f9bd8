"""The part `select.events` of `param.json`: what is worth a label besides the deviation, and how many labels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from alloop.glass.events import BOND_CUTOFFS_A, ON_BY_DEFAULT, PRESETS
from alloop.param_types import Count, CountOrZero, Element, Fraction, Positive, Section
from alloop.selection.pair_lengths import ANY, length_matrix_A, same_pair, split_pair

RESERVED = ("bootstrap", "candidate", "audit", "before_loss")
"""Other reasons why a frame comes home or is labelled; no event may be called so."""
_OTHERS = "any"  # stands for the species that no key of a mapping names

# ---------------------------------------------------------------------------------------- lengths


def _check_pairs(lengths_A: dict[str, float]) -> dict[str, float]:
    """Return the mapping with "X-X" as "any"; ValueError for a key that is no pair of elements."""
    for pair in lengths_A:
        for symbol in split_pair(pair):
            if symbol not in atomic_numbers:  # which has "X" too
                near = difflib.get_close_matches(symbol.capitalize(), atomic_numbers, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{pair!r} is no pair, {symbol!r} no element; {hint}Write 'B-O', 'Li-X' or 'any'")
    if "any" in lengths_A and f"{ANY}-{ANY}" in lengths_A:
        raise ValueError("'any' and 'X-X' are the same pair; keep one")
    return {"any" if split_pair(pair) == (ANY, ANY) else pair: length for pair, length in lengths_A.items()}


def _check_unordered(lengths_A: dict[str, float]) -> dict[str, float]:
    pairs = list(lengths_A)
    for number, pair in enumerate(pairs):
        for other in pairs[:number]:
            if same_pair(pair, other):
                raise ValueError(f"{other!r} and {pair!r} are the same pair; keep one")
    return lengths_A


OrderedPairs = Annotated[dict[str, Positive], AfterValidator(_check_pairs)]
Pairs = Annotated[OrderedPairs, AfterValidator(_check_unordered)]
_NUMBER_OR_OBJECT = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
        ]
    }
)
Cutoffs = Annotated[dict[Element, Positive], _NUMBER_OR_OBJECT]


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_TEXT_OR_LIST = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
Elements = Annotated[list[Element], BeforeValidator(_one_as_list), Field(min_length=1), _TEXT_OR_LIST]


def _for_each(value: Any, key: str) -> Any:
    """Return settings whose single `cutoff_A` is spread over the elements of a key, if they are such."""
    if not isinstance(value, Mapping) or isinstance(value.get("cutoff_A", {}), Mapping):
        return value
    elements = _one_as_list(value.get(key))
    if not isinstance(elements, list) or not all(isinstance(element, str) for element in elements):
        return value
    return {**value, "cutoff_A": dict.fromkeys(elements, value["cutoff_A"])}


def _check_cutoffs(cutoffs_A: Mapping[str, float], elements: Iterable[str], key: str) -> None:
    lacking, idle = sorted(set(elements) - cutoffs_A.keys()), sorted(cutoffs_A.keys() - set(elements))
    if lacking:
        raise ValueError(f"cutoff_A has no length for {', '.join(lacking)}; give one in Å, or one number for all")
    if idle:
        raise ValueError(f"cutoff_A has {', '.join(idle)}, which {key} does not; add it there or take it out here")


# ---------------------------------------------------------------------------------------- kinds


class EventParam(Section):
    """What every event has."""

    quota: CountOrZero = Field(5, description="labels per temperature band and iteration; 0 watches without asking")

    def elements(self) -> set[str]:
        """Return the elements that the event names."""
        return set()

    def watched(self) -> set[str]:
        """Return the elements of which the system must have one for the event to be possible; empty if any will do."""
        return set()


class PairDistanceParam(EventParam):
    """Atoms too close to, or too far from, their nearest partner."""

    kind: Literal["pair_distance"] = Field(description="pair_distance")
    below_A: Pairs = Field({}, description="asked for where two are closer; pairs such as B-O, Li-X or any")
    above_A: OrderedPairs = Field({}, description="asked for where the first-named has no second-named so near")
    gate_A: Pairs = Field({}, description="lost, and never labelled, where two are closer")

    @model_validator(mode="after")
    def _in_order(self) -> PairDistanceParam:
        if not (self.below_A or self.above_A or self.gate_A):
            raise ValueError("watches for nothing; give below_A, above_A or gate_A")
        named = {symbol for lengths in (self.below_A, self.gate_A) for pair in lengths for symbol in split_pair(pair)}
        species = [_OTHERS, *sorted(named - {ANY})]
        gates, below = length_matrix_A(species, self.gate_A), length_matrix_A(species, self.below_A)
        for i, one in enumerate(species):
            for j, other in enumerate(species[i:], start=i):
                if 0 < below[i, j] <= gates[i, j]:
                    pair = "any" if other == _OTHERS else f"{other}-{ANY}" if one == _OTHERS else f"{one}-{other}"
                    raise ValueError(
                        f"for {pair} gate_A is {gates[i, j]:g} and below_A {below[i, j]:g}; a gate must lie below: "
                        f'lower "gate_A": {{"{pair}": ...}}, or raise "below_A": {{"{pair}": ...}}'
                    )
        for pair, above in self.above_A.items():
            least = max(float(length_matrix_A(split_pair(pair), part)[0, 1]) for part in (self.gate_A, self.below_A))
            if least >= above:
                raise ValueError(
                    f"for {pair} above_A is {above:g}, below_A or gate_A {least:g}: every distance would be an event; "
                    "above_A must be the longest of them"
                )
        return self

    def elements(self) -> set[str]:
        """Return the elements of all pairs."""
        pairs = (*self.below_A, *self.above_A, *self.gate_A)
        return {symbol for pair in pairs for symbol in split_pair(pair)} - {ANY}


class CoordinationParam(EventParam):
    """Atoms with too many or too few neighbours."""

    kind: Literal["coordination"] = Field(description="coordination")
    element: Element = Field(description="whose neighbours are counted")
    by: Elements = Field(description="elements that count as neighbours")
    cutoff_A: Cutoffs = Field(description="within which they count: one length, or one for each element of `by`")
    at_least: Count | None = Field(None, description="an event with so many or more")
    at_most: CountOrZero | None = Field(None, description="an event with so many or fewer; with at_least, in between")

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: Any) -> Any:
        return _for_each(value, "by")

    @model_validator(mode="after")
    def _whole(self) -> CoordinationParam:
        _check_cutoffs(self.cutoff_A, self.by, "by")
        if self.at_least is None and self.at_most is None:
            raise ValueError("every number of neighbours would be an event; give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"at_least is {self.at_least}, at_most {self.at_most}: no number is both; "
                "for both ends declare two events"
            )
        return self

    def elements(self) -> set[str]:
        """Return the counted element and its neighbours."""
        return {self.element, *self.by}

    def watched(self) -> set[str]:
        """Return the element whose neighbours are counted."""
        return {self.element}


class _BetweenFormers(EventParam):
    formers: Elements = Field(["B", "Si"], description="network formers")
    cutoff_A: Cutoffs = Field(
        {}, description="of their bonds to oxygen: one length, or one for each; B 1.9 and Si 2.0 if not given"
    )

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = _for_each({"formers": ["B", "Si"], **value}, "formers")
        formers, given = _one_as_list(value["formers"]), value.get("cutoff_A", {})
        if not isinstance(formers, list) or not isinstance(given, Mapping):
            return value
        known = {former: BOND_CUTOFFS_A[former] for former in BOND_CUTOFFS_A if former in formers}
        return {**value, "cutoff_A": {**known, **given}}

    @field_validator("formers")
    @classmethod
    def _distinct(cls, formers: list[str]) -> list[str]:
        if len(set(formers)) < len(formers):
            raise ValueError(f"{formers} names one twice; name each once")
        return formers

    def elements(self) -> set[str]:
        """Return the formers."""
        return set(self.formers)

    def watched(self) -> set[str]:
        """Return the formers."""
        return set(self.formers)


class EdgeSharingParam(_BetweenFormers):
    """Two formers that share two or more oxygen atoms."""

    kind: Literal["edge_sharing"] = Field(description="edge_sharing")
    by: Element = Field("O", description="what they share")

    @model_validator(mode="after")
    def _whole(self) -> EdgeSharingParam:
        _check_cutoffs(self.cutoff_A, self.formers, "formers")
        return self

    def elements(self) -> set[str]:
        """Return the formers and what they share."""
        return {*self.formers, self.by}


class RingParam(_BetweenFormers):
    """Rings of one size."""

    kind: Literal["ring"] = Field(description="ring")
    size: Annotated[int, Field(ge=2, le=12)] = Field(description="formers in the ring; 3 for a ring of three BO3")
    definition: Literal["guttman", "king", "primitive"] = Field("primitive", description="which cycles are rings")

    @model_validator(mode="after")
    def _whole(self) -> RingParam:
        _check_cutoffs(self.cutoff_A, self.formers, "formers")
        if "O" in self.formers:
            raise ValueError("formers names O, which is what joins them; take it out")
        return self


class DensityParam(EventParam):
    """A density out of bounds; meant for runs at constant pressure."""

    kind: Literal["density"] = Field(description="density")
    lowest_g_cm3: Positive | None = Field(None, description="an event below")
    highest_g_cm3: Positive | None = Field(None, description="an event above")
    relative_excursion: Fraction | None = Field(
        None, description="an event where it differs by more than this fraction from the start of the chunk"
    )

    @model_validator(mode="after")
    def _whole(self) -> DensityParam:
        low, high = self.lowest_g_cm3, self.highest_g_cm3
        if low is None and high is None and self.relative_excursion is None:
            raise ValueError("watches for nothing; give lowest_g_cm3, highest_g_cm3 or relative_excursion")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"lowest_g_cm3 is {low:g}, highest_g_cm3 {high:g}; lowest must be below highest")
        return self


class TemperatureParam(EventParam):
    """A temperature far from the thermostat's target."""

    kind: Literal["temperature"] = Field(description="temperature")
    excursion_K: Positive = Field(
        description="an event farther from the target; N atoms at T fluctuate by T x sqrt(2 / 3N)"
    )


_MODELS: dict[str, type[EventParam]] = {
    "pair_distance": PairDistanceParam,
    "coordination": CoordinationParam,
    "edge_sharing": EdgeSharingParam,
    "ring": RingParam,
    "density": DensityParam,
    "temperature": TemperatureParam,
}


def _kind_of_event(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


AnyEvent = Annotated[
    Annotated[PairDistanceParam, Tag("pair_distance")]
    | Annotated[CoordinationParam, Tag("coordination")]
    | Annotated[EdgeSharingParam, Tag("edge_sharing")]
    | Annotated[RingParam, Tag("ring")]
    | Annotated[DensityParam, Tag("density")]
    | Annotated[TemperatureParam, Tag("temperature")],
    Discriminator(_kind_of_event),
]

# ---------------------------------------------------------------------------------------- presets


def _with_presets(value: Any) -> Any:
    """Return all events with what their presets say; ValueError names every event that is neither preset nor kind."""
    if not isinstance(value, Mapping):
        return value
    events = {**{name: {} for name in ON_BY_DEFAULT}, **value}
    problems = [problem for name, own in events.items() if (problem := _name_problem(name, own))]
    if problems:
        raise ValueError("; ".join(problems))
    return {name: _merged(PRESETS.get(name, {}), own) for name, own in events.items()}


def _name_problem(name: str, own: Any) -> str | None:
    kind = _kind_of_event(own)
    if not name.replace("_", "a").replace("-", "a").isalnum() or not name.isascii() or len(name) > 40:
        return f"{name!r} cannot be a name; use up to 40 letters, digits, - and _"
    if name in RESERVED:
        return f"{name!r} is another reason for a label; choose another name"
    if not isinstance(own, Mapping | EventParam):
        return f'{name} must be an object such as {{}} or {{"quota": 5}}; for an event that asks nothing, a quota of 0'
    if name in PRESETS:
        preset = PRESETS[name]["kind"]
        return None if kind in (None, preset) else f"{name} is a preset of kind {preset}, not {kind!r}; rename yours"
    if kind is None:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"presets are {', '.join(PRESETS)}."
        return f"{name!r} is no preset and names no kind; {hint} Kinds are {', '.join(_MODELS)}"
    if not isinstance(kind, str) or kind not in _MODELS:
        near = difflib.get_close_matches(str(kind), _MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_MODELS)}"
        return f"{name} is of kind {kind!r}, which there is not; {hint}"
    return None


def _merged(preset: Mapping[str, Any], own: Any) -> Any:
    """Return a preset's settings with what differs; of lengths by pair or element, those that are given."""
    if not preset or not isinstance(own, Mapping):
        return own
    merged: dict[str, Any] = {**preset, **own}
    for key, lengths in preset.items():
        if isinstance(lengths, Mapping) and isinstance(own.get(key, {}), Mapping):
            merged[key] = {**lengths, **_respelt(own.get(key, {}), lengths)}
    return merged


def _respelt(lengths: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return lengths with their pairs written as in another mapping, where that has the same pair ("O-B" as "B-O")."""
    spelt = {tuple(sorted(pair.split("-"))): pair for pair in like}
    return {spelt.get(tuple(sorted(pair.split("-"))), pair): length for pair, length in lengths.items()}


EventsParam = Annotated[dict[str, AnyEvent], BeforeValidator(_with_presets)]


def default_events() -> dict[str, Any]:
    """Return the events that are watched for if `param.json` names none."""
    return TypeAdapter(EventsParam).validate_python({})


def definitions(events: Mapping[str, EventParam]) -> dict[str, dict[str, Any]]:
    """Return what a task is told of the events: their complete settings by name, but for how many labels they get."""
    return {name: event.model_dump(mode="json", exclude={"quota"}) for name, event in events.items()}


def never_seen(name: str, event: EventParam, elements: Iterable[str]) -> str | None:
    """Say why an event names what a system of these elements does not have, or None.

    A preset may name more elements than there are. One that is always on is never wrong.
    """
    there = set(elements)
    preset = PRESETS.get(name)
    if name not in ON_BY_DEFAULT and event.watched() and not event.watched() & there:
        return f"watches {', '.join(sorted(event.watched()))}, which elements {sorted(there)} lacks"
    own = TypeAdapter(EventsParam).validate_python({name: {}})[name].elements() if preset else set()
    foreign = sorted(event.elements() - own - there)
    return f"names {', '.join(foreign)}, which elements {sorted(there)} lacks" if foreign else None
