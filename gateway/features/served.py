"""A route's features as a worker serves them: which inputs a request may leave out, and how these are filled from the feature store."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from gateway.errors import DeadlinePassed, FeaturesMissing, FeaturesUnavailable
from gateway.features.client import FeatureClient, StoreFailed, StoreSilent
from gateway.features.frames import FoundColumn
from gateway.state.compiled import CompiledFeatures, FeatureInput
from gateway.telemetry.counters import CounterPage
from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.signature_check import check
from models.tensors import FLOATING, NUMPY_OF, Array
from routing.records import LOOKUPS
from routing.traffic import Features

_SENT, _FOUND, _STALE, _ABSENT, _TIMEOUT, _FAILED = range(len(LOOKUPS))
_WORDS: Final = {
    _STALE: "too old in the feature store",
    _ABSENT: "not in the feature store",
    _TIMEOUT: "not there in time",
    _FAILED: "out of reach with the feature store",
}
_NAMED_MAX: Final = 8


class Lookup(msgspec.Struct, frozen=True):
    """What was looked up for one request.

    `keys` by name, shape (rows, 1). `outcomes` and `ages_s` by input, row by row: indexes of LOOKUPS, and seconds (NaN: not known).
    """

    keys: dict[str, Array]
    outcomes: dict[str, bytes]
    ages_s: dict[str, Array]
    attributes: dict[str, list[Any]] = {}
    """What is kept apart and no model sees, by name, row by row; None where the store has none."""


class ServedFeatures:
    """The features of one endpoint at one revision. `asked` is what callers may send: join keys, then inputs, each optional where the
    other stands for it.
    """

    __slots__ = (
        "_attributes",
        "_endpoint",
        "_inputs",
        "_key_names",
        "_keys",
        "_max_age_s",
        "_service",
        "_specs",
        "_timeout_s",
        "asked",
    )

    def __init__(self, endpoint: str, compiled: CompiledFeatures, route: Features, signature: Signature) -> None:
        specs = {spec.name: spec for spec in signature.inputs}
        defaults = dict(route.defaults)
        self._endpoint = endpoint
        self._service = compiled.service
        self._keys = Signature(inputs=compiled.keys, outputs=(), columns=True)
        self._key_names = [spec.name for spec in compiled.keys]
        self._specs = specs
        self._inputs = [_Input(one, specs[one.name], defaults.get(one.name)) for one in compiled.inputs]
        self._attributes = compiled.attributes
        self._timeout_s = route.timeout_ms / 1000
        self._max_age_s = route.max_age_s or float("inf")
        self.asked = asked_signature(signature, compiled)

    @staticmethod
    def of(
        endpoint: str, compiled: CompiledFeatures | None, route: Features | None, signature: Signature
    ) -> "ServedFeatures | None":
        """None for a route without features."""
        return None if compiled is None or route is None else ServedFeatures(endpoint, compiled, route, signature)

    @property
    def key_specs(self) -> tuple[TensorSpec, ...]:
        """The join keys, in the order of the record."""
        return self._keys.inputs

    @property
    def attribute_types(self) -> dict[str, str]:
        """By name, the datatype of what is looked up to be kept apart."""
        return {one.name: one.datatype for one in self._attributes}

    @property
    def input_names(self) -> list[str]:
        """The inputs that the service has, in the order of the record."""
        return [one.spec.name for one in self._inputs]

    def needs_lookup(self, inputs: Mapping[str, Array]) -> bool:
        """Whether a request is one of this form: it brings a key, or lacks an input that it would have to bring without one."""
        return any(name in inputs for name in self._key_names) or any(
            one.spec.name not in inputs and not one.spec.optional for one in self._inputs
        )

    async def look_up(
        self, client: FeatureClient, inputs: Mapping[str, Array], deadline_ns: int, page: CounterPage
    ) -> tuple[dict[str, Array], Lookup]:
        """The inputs whole, and what came of it, which is counted on `page`.

        Raises InputInvalid, FeaturesMissing, FeaturesUnavailable and DeadlinePassed. What the request brings itself holds; the store is asked once, for all that is missing.
        """
        missing = [one for one in self._inputs if one.spec.name not in inputs]
        given = {name: inputs[name] for name in self._key_names if name in inputs}
        if missing and len(given) < len(self._key_names):
            raise InputInvalid(self._unkeyed(missing, given))
        whole = {name: array for name, array in inputs.items() if name in self._specs or name not in given}
        if given:
            wanted = tuple(spec for spec in self._keys.inputs if spec.name in given)
            arrays, rows = check(msgspec.structs.replace(self._keys, inputs=wanted), given)
            keys = dict(zip(given, arrays, strict=True))
        else:
            keys, rows = {}, 1
        lookup = Lookup(keys, {}, {}, {})
        if missing or (self._attributes and len(given) == len(self._key_names)):
            asked_ns = time.monotonic_ns()
            columns, trouble = await self._asked(client, keys, deadline_ns)
            now_unix_s = time.time()
            for one in missing:
                name = one.spec.name
                whole[name], lookup.outcomes[name], lookup.ages_s[name] = one.filled(
                    columns.get(one.full), rows, trouble, now_unix_s, self._max_age_s
                )
            for attribute in self._attributes:
                found = columns.get(attribute.full)
                lookup.attributes[attribute.name] = [None] * rows if found is None else found.values
            _count(page, self._endpoint, lookup, time.monotonic_ns() - asked_ns)
            _refuse(missing, lookup.outcomes)
        return whole, lookup

    async def _asked(
        self, client: FeatureClient, keys: Mapping[str, Array], deadline_ns: int
    ) -> tuple[dict[str, FoundColumn], int]:
        """The store's columns, or none and the outcome that this is for every value."""
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        try:
            values: dict[str, list[Any]] = {name: array.ravel().tolist() for name, array in keys.items()}
            return await client.ask(self._service, values, max(0.0, min(self._timeout_s, left_s))), _FOUND
        except StoreSilent:
            if left_s <= self._timeout_s:
                raise DeadlinePassed("the deadline passed before the features were there") from None
            return {}, _TIMEOUT
        except StoreFailed:
            return {}, _FAILED
        except ValueError:  # text with half a surrogate pair, or keys beyond a frame
            raise InputInvalid(f"{_listed(self._key_names, 'key')}: wanted Unicode text, at most 16 MB") from None

    def _unkeyed(self, missing: Sequence["_Input"], given: Mapping[str, Array]) -> str:
        absent = [name for name in self._key_names if name not in given]
        inputs = _listed([one.spec.name for one in missing], "input")
        return f"missing {inputs}: send {'it' if len(missing) == 1 else 'them'}, or {_listed(absent, 'key')} to look them up by"


class _Input:
    """An input that a feature of the service fills. `has_default`: a value that is missing can be stood in for."""

    __slots__ = ("_default", "_width", "full", "has_default", "is_list", "spec")

    def __init__(self, compiled: FeatureInput, spec: TensorSpec, default: str | float | bool | None) -> None:
        self.spec = spec
        self.full = compiled.full
        self.is_list = compiled.is_list
        self._width = spec.shape[1] if compiled.is_list else 1
        self._default: Any = default
        if default is None and spec.optional and spec.datatype in FLOATING:
            self._default = float("nan")
        elif default is None and spec.optional and spec.datatype == "BYTES":
            self._default = ""
        self.has_default = self._default is not None

    def filled(
        self, column: FoundColumn | None, rows: int, trouble: int, now_unix_s: float, max_age_s: float
    ) -> tuple[Array, bytes, Array]:
        """Values, outcomes and ages of all rows. Without a column every row has the outcome `trouble`."""
        ages = np.full(rows, np.nan)
        if column is None:
            return self._stand_ins(rows, _ABSENT if trouble == _FOUND else trouble, ages)
        outcomes = bytearray(rows)
        values: list[Any] = []
        for row, (value, time_unix_s) in enumerate(zip(column.values, column.times_unix_s, strict=True)):
            is_whole = value is not None and not (self.is_list and len(value) != self._width)
            outcome = _FOUND if is_whole else _ABSENT
            if outcome == _FOUND and time_unix_s > 0:
                ages[row] = max(0.0, now_unix_s - time_unix_s)
                outcome = _STALE if ages[row] > max_age_s else _FOUND
            outcomes[row] = outcome
            values.append(value if outcome == _FOUND else self._stand_in())
        try:
            return self._array(values), bytes(outcomes), ages
        except (
            ValueError,
            TypeError,
            OverflowError,
        ):  # the repository has changed its types since the revision was made
            return self._stand_ins(rows, _FAILED, ages)

    def _stand_ins(self, rows: int, outcome: int, ages: Array) -> tuple[Array, bytes, Array]:
        return self._array([self._stand_in()] * rows), bytes([outcome]) * rows, ages

    def _stand_in(self) -> Any:
        default = _BLANK[self.spec.datatype] if self._default is None else self._default
        return [default] * self._width if self.is_list else default

    def _array(self, values: list[Any]) -> Array:
        spec = self.spec
        array: Array = np.array(values, dtype=NUMPY_OF[spec.datatype])
        if spec.datatype == "BYTES" and not all(type(value) is str for value in array.ravel().tolist()):
            raise TypeError
        return array.reshape(len(values), *spec.shape[1:])


_BLANK: Final[dict[str, Any]] = {name: "" if name == "BYTES" else 0 for name in NUMPY_OF}
"""Stands in where there is no default, in arrays of requests that are refused for it."""


def asked_signature(signature: Signature, compiled: CompiledFeatures) -> Signature:
    """What callers of an endpoint with features may send, for decoding and metadata."""
    looked_up = {one.name for one in compiled.inputs}
    inputs = [
        msgspec.structs.replace(spec, optional=True) if spec.name in looked_up else spec for spec in signature.inputs
    ]
    keys = [spec for spec in compiled.keys if all(spec.name != other.name for other in signature.inputs)]
    return msgspec.structs.replace(signature, inputs=(*keys, *inputs))


def _refuse(missing: Sequence["_Input"], outcomes: Mapping[str, bytes]) -> None:
    """Raises where a value is missing that has no default. The caller can mend only what the store does not know."""
    for outcome in (_ABSENT, _STALE, _TIMEOUT, _FAILED):
        names = [one.spec.name for one in missing if not one.has_default and outcome in outcomes[one.spec.name]]
        if not names:
            continue
        row = outcomes[names[0]].index(outcome)
        text = f"{_listed(names, 'feature')}: {_WORDS[outcome]} (row {row}), and without a default"
        if outcome == _ABSENT:
            raise FeaturesMissing(text)
        raise FeaturesUnavailable(text, "features_stale" if outcome == _STALE else "feature_store")


def _count(page: CounterPage, endpoint: str, lookup: Lookup, took_ns: int) -> None:
    """Counts the values of one lookup by outcome, and its time."""
    totals: dict[int, int] = {}
    for outcomes in lookup.outcomes.values():
        for outcome in set(outcomes):
            totals[outcome] = totals.get(outcome, 0) + outcomes.count(outcome)
    for outcome, amount in totals.items():
        labels = {"endpoint": endpoint, "outcome": LOOKUPS[outcome]}
        page.cells[page.counter("runoff_feature_values_total", labels)] += amount
    if totals:
        page.histogram("runoff_feature_lookup_duration_seconds", {"endpoint": endpoint}).observe(took_ns // 1000)


def _listed(names: Sequence[str], what: str) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:_NAMED_MAX]))}{more}"
