"""Reads one object of a document key by key: gathers every problem instead of stopping at the first, and names keys nobody asked for."""

import difflib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar

from routing.errors import Problem

Choice = TypeVar("Choice", bound=str)

_SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,10})([smhdw])")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)
_INDEX: Final = re.compile(r"\[\d+\]")
_SECONDS_MAX: Final = 36_500 * 86_400
_UNIX_MAX_S: Final = 253_402_300_799
_MISSING: Final = object()


class Fields:
    """One object under reading. Each reader marks its key as known; `close` reports the keys that are left.

    A reader that reports a problem returns its default, or an empty value, so that reading goes on: what is built from a document
    with problems is thrown away. `unbuilt` maps key paths (`mirrors[].remote.protocol`) to the values that are refused as
    `not_built_yet`, or to None where the key itself is.
    """

    def __init__(
        self, document: object, path: str, problems: list[Problem], unbuilt: Mapping[str, frozenset[str] | None]
    ) -> None:
        self._path = path
        self._problems = problems
        self._unbuilt = unbuilt
        self._known: list[str] = []
        self._values: Mapping[object, object] = {}
        if isinstance(document, Mapping):
            self._values = document
        else:
            self._wrong_type("", "an object", document)

    def text(
        self,
        key: str,
        default: str | None = None,
        *,
        pattern: re.Pattern[str] | None = None,
        wanted: str = "",
    ) -> str:
        """A text that fits `pattern` whole (`wanted` describes it). Without a default the key is required."""
        value = self._take(key)
        if value is _MISSING:
            if default is None:
                self.problem(key, "missing", f"'{key}' is required", f"add '{key}'")
            return default or ""
        if not isinstance(value, str):
            return self._wrong_type(key, "a text", value) or default or ""
        if pattern is not None and not pattern.fullmatch(value):
            self.problem(key, "bad_text", f"wanted {wanted}, got {value[:80]!r}")
            return default or ""
        return value

    def text_or_none(self, key: str, *, pattern: re.Pattern[str] | None = None, wanted: str = "") -> str | None:
        """The same, None when absent or null."""
        return None if self._is_absent(key) else self.text(key, pattern=pattern, wanted=wanted)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._take(key)
        if isinstance(value, bool):
            return value
        if value is not _MISSING:
            self._wrong_type(key, "true or false", value)
        return default

    def choice(self, key: str, options: tuple[Choice, ...], default: Choice) -> Choice:
        value = self._take(key)
        if value is _MISSING:
            return default
        for option in options:
            if value == option:
                return option
        self.problem(key, "not_one_of", f"wanted one of {', '.join(options)}, got {_shown(value)}")
        return default

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A finite number from `low` to `high`; whole numbers count, booleans do not."""
        value = self._take(key)
        if value is _MISSING:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong_type(key, "a number", value)
        elif not math.isfinite(value) or not low <= value <= high:
            self.problem(key, "out_of_range", f"wanted {low:g} to {high:g}, got {value}")
        else:
            return float(value)
        return default

    def number_or_none(self, key: str, low: float, high: float) -> float | None:
        return None if self._is_absent(key) else self.number(key, low, low, high)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key)
        if value is _MISSING:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(key, "a whole number", value)
        elif not low <= value <= high:
            self.problem(key, "out_of_range", f"wanted {low} to {high}, got {value}")
        else:
            return value
        return default

    def whole_or_none(self, key: str, low: int, high: int) -> int | None:
        return None if self._is_absent(key) else self.whole(key, low, low, high)

    def duration_s(self, key: str, default: int | None = None) -> int:
        """Seconds of a text such as `90s`, `10m`, `12h`, `30d`, `2w`. Without a default the key is required."""
        if self._is_absent(key):
            if default is None:
                self.problem(key, "missing", f"'{key}' is required", f"add '{key}'")
            return default or 1
        value = self._take(key)
        seconds = seconds_of(value) if isinstance(value, str) else None
        if seconds is None:
            message = f"wanted a duration of up to 100 years, got {_shown(value)}"
            self.problem(key, "duration_invalid", message, "write 90s, 10m, 12h or 30d")
        return seconds or default or 1

    def duration_or_none_s(self, key: str) -> int | None:
        return None if self._is_absent(key) else self.duration_s(key)

    def instant_unix_s(self, key: str) -> int | None:
        """Whole seconds since 1970 of an RFC 3339 instant with its offset (YAML reads unquoted ones as `datetime`), or None."""
        if self._is_absent(key):
            return None
        value = self._take(key)
        try:
            moment = value
            if isinstance(value, str) and _INSTANT.fullmatch(value):
                moment = datetime.fromisoformat(value.upper())
            if isinstance(moment, datetime) and moment.tzinfo is not None:
                unix_s = math.floor(moment.timestamp())
                if 0 <= unix_s <= _UNIX_MAX_S:
                    return unix_s
        except (ValueError, OverflowError):
            pass  # a thirteenth month: reported below
        wanted = f"wanted an RFC 3339 instant with its offset, from 1970 to 9999, got {_shown(value)}"
        self.problem(key, "instant_invalid", wanted, "write 2026-12-31T00:00:00Z")
        return None

    def child(self, key: str) -> "Fields":
        """The object under `key`, empty when absent; the caller closes it."""
        value = self._take(key)
        return self._inner({} if value is _MISSING else value, self._at(key))

    def child_or_none(self, key: str) -> "Fields | None":
        return None if self._is_absent(key) else self.child(key)

    def children(self, key: str) -> list["Fields"]:
        """The objects of the list under `key`, none when absent; the caller closes each."""
        return [self._inner(item, f"{self._at(key)}[{index}]") for index, item in enumerate(self._items(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, none when absent."""
        items = enumerate(self._items(key))
        return tuple(self._inner({"": item}, f"{self._at(key)}[{index}]").text("") for index, item in items)

    def _items(self, key: str) -> list[object]:
        value = self._take(key)
        if isinstance(value, list | tuple):
            return [*value]
        if value is not _MISSING:
            self._wrong_type(key, "a list", value)
        return []

    def text_or_child(self, key: str, default: str) -> "str | Fields":
        value = self._take(key)
        if value is _MISSING:
            return default
        return value if isinstance(value, str) else self._inner(value, self._at(key))

    def is_object(self, key: str) -> bool:
        """Whether the value is an object; asks for nothing."""
        return isinstance(self._values.get(key), Mapping)

    def names(self) -> list[str]:
        """The keys of an object whose keys are of the writer's own choosing: columns, headers, arms."""
        for key in self._values:
            if not isinstance(key, str) or not key:
                self._known.append(str(key))
                self.problem("", "wrong_type", f"wanted keys that are texts, got {_shown(key)}")
        return [key for key in self._values if isinstance(key, str) and key]

    def scalar(self, key: str) -> str | float | bool:
        value = self._take(key)
        if isinstance(value, str | int | float):
            return value
        return self._wrong_type(key, "a text, a number, true or false", value)

    def scalars(self, key: str) -> tuple[str | float | bool, ...]:
        """One scalar, or a list of at least one."""
        value = self._values.get(key)
        if not isinstance(value, list | tuple):
            return (self.scalar(key),)
        self._take(key)
        if not value:
            self.problem(key, "out_of_range", "wanted at least one value, got none")
        return tuple(
            self._inner({"": item}, f"{self._at(key)}[{index}]").scalar("") for index, item in enumerate(value)
        )

    def close(self) -> None:
        """Reports every key that no reader asked for, with the nearest known one as the remedy."""
        for key in self._values:
            if str(key) not in self._known:
                near = difflib.get_close_matches(str(key), self._known, n=1)
                remedy = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(self._known))}"
                self.problem(str(key)[:80], "unknown_key", f"no such key: {_shown(key)}", remedy)

    def problem(self, key: str, code: str, message: str, remedy: str = "") -> None:
        """Reports a problem at `key` of this object (empty: the object itself)."""
        self._problems.append(Problem(self._at(key), code, message, remedy))

    def _is_absent(self, key: str) -> bool:
        """Whether an optional key is left out, or null; marks it as known."""
        self._known.append(key)
        return self._values.get(key) is None

    def _take(self, key: str) -> object:
        self._known.append(key)
        value = self._values.get(key, _MISSING)
        place = _INDEX.sub("[]", self._at(key))
        if value is not _MISSING and place in self._unbuilt:
            values = self._unbuilt[place]
            if values is None:
                self.problem(key, "not_built_yet", f"'{key}' is not built yet", f"leave '{key}' out")
            elif isinstance(value, str) and value in values:
                self.problem(key, "not_built_yet", f"{value!r} is not built yet")
        return value

    def _inner(self, document: object, path: str) -> "Fields":
        return Fields(document, path, self._problems, self._unbuilt)

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path and key else self._path or key

    def _wrong_type(self, key: str, wanted: str, got: object) -> str:
        self.problem(key, "wrong_type", f"wanted {wanted}, got {_shown(got)}")
        return ""


def seconds_of(text: str) -> int | None:
    """The seconds of a duration such as `90s`, `10m`, `12h`, `30d`, `2w`; None for what is none, or longer than 100 years."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS_OF[match[2]] if match else 0
    return seconds if 0 < seconds <= _SECONDS_MAX else None


def _shown(value: object) -> str:
    """A value in a message: scalars as they are, cut; of anything larger the kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return repr(value)[:80]
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"
