"""Who may enter a paired test: each unit once, with its first eligible labelled row, in the order in which control committed them.

Rows of one unit share their fate; counting rows instead of units gave 54% false verdicts at α = 0.05 with three rows a unit
(research/PERFORMANCE.md 8). So the second row of a unit, a repeated delivery, a corrected label and a retraction change nothing.
"""

import re
from enum import StrEnum
from typing import Final

import msgspec

from routing.split import canonical_unit

UNITS_MAX: Final = 1_000_000
"""A test takes no more units than this (some 100 MB of keys); one that a million units cannot decide has no difference worth a promotion."""

_BOOLEANS: Final = {"true": "1.0", "false": "0.0"}
_NUMBER: Final = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS_MAX: Final = 15
"""Longer ones may be ids that differ in digits which a float does not hold."""


class PairedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that champion and candidate both answered, with its truth.

    `unit`: the recorded unit; None where the route has none, then the request is the unit. `experiment` and `unit_missing` as recorded.
    `label` None: retracted. A label of champion or candidate is None when that model did not answer this row. `keyed`: the truth came
    with a key.
    """

    prediction_id: bytes
    unit: bytes | str | None
    experiment: bool
    unit_missing: bool
    label: str | float | bool | None
    champion_label: str | None
    candidate_label: str | None
    keyed: bool = True


class Entry(StrEnum):
    """What became of a row; all but ENTERED leave the test as it was."""

    ENTERED = "entered"
    OUTSIDE = "outside_experiment"
    UNLABELLED = "unlabelled"
    UNANSWERED = "unanswered"
    UNKEYED = "unkeyed"
    SEEN = "unit_seen"
    FULL = "full"


class Pairing:
    """The units of one test. Not frozen: the set of units is the state, and it only grows."""

    def __init__(self, *, keys_in_use: bool, units_max: int = UNITS_MAX) -> None:
        self._units: set[bytes] = set()
        self._keys_in_use = keys_in_use
        self._units_max = units_max

    def admit(self, row: PairedRow) -> Entry:
        """Whether this row enters; if so its unit never will again."""
        if not row.experiment or row.unit_missing:
            return Entry.OUTSIDE
        if row.label is None:
            return Entry.UNLABELLED
        if row.champion_label is None or row.candidate_label is None:
            return Entry.UNANSWERED
        if self._keys_in_use and not row.keyed:
            return Entry.UNKEYED
        unit = unit_key(row.unit, row.prediction_id)
        if unit in self._units:
            return Entry.SEEN
        if len(self._units) >= self._units_max:
            return Entry.FULL
        self._units.add(unit)
        return Entry.ENTERED

    def readmit(self, unit: bytes | str | None, prediction_id: bytes) -> None:
        """Takes a unit as entered, from the stored order, after a restart."""
        self._units.add(unit_key(unit, prediction_id))

    def __len__(self) -> int:
        return len(self._units)


def unit_key(unit: bytes | str | None, prediction_id: bytes) -> bytes:
    """What stands for the unit of analysis: the recorded unit, else the request; marked, so that one is never taken for the other."""
    if unit is None:
        return b"p" + prediction_id
    return b"u" + (unit if isinstance(unit, bytes) else unit.encode("utf-8", "surrogatepass"))


def is_right(label: str | float | bool, predicted: str) -> bool:
    """Whether a predicted class, as text, is the labelled one: as text, as numbers (`1`, `1.0`) or as booleans (`true`, `True`, `1`).

    The same rule as `plain` in gateway/evidence/query.py, by which quality and the ledger match; a test compares the two.
    """
    truth = canonical_unit(label).decode("utf-8", "surrogatepass")
    return truth == predicted or plain(truth) == plain(predicted)


def plain(label: str) -> str:
    """The form in which labels are compared: decimal numbers of up to 15 characters as floats, booleans as the numbers 1 and 0."""
    found = _BOOLEANS.get(label.lower())
    if found is not None:
        return found
    return repr(float(label)) if len(label) <= _NUMBER_CHARACTERS_MAX and _NUMBER.fullmatch(label) else label
