"""Labels in files: a JSON list or object, JSON lines, CSV or Parquet with the columns of the label call, or a TOML file of tables that hold them."""

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.commands.talk import CommandFailed
from routing.records import LABELS_MAX

_PARQUET: Final = (".parquet", ".pq")
_COLUMNS: Final = ("prediction_id", "endpoint", "request_id", "row", "label", "at", "attributes")


def read_labels(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The labels in portions of at most 10,000, as the gateway takes them. Raises CommandFailed with the line that is wrong."""
    if path.suffix == ".toml":
        yield from _tables(path)
        return
    if path.suffix in _PARQUET:
        yield from _parquet(path)
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = (
                _csv(path, file)
                if path.suffix == ".csv"
                else _lines(path, file)
                if path.suffix == ".jsonl"
                else _json(path)
            )
            while portion := list(islice(rows, LABELS_MAX)):
                yield portion
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: cannot be read: {error}") from error


def _tables(path: Path) -> Iterator[list[dict[str, Any]]]:
    """What the tables hold that the file names."""
    from gateway.streams.truth_tables import TruthUnreadable, read, truth_tables

    try:
        for truth in truth_tables(path):
            yield from filter(None, read(truth, datetime.now(UTC)))
    except TruthUnreadable as error:
        raise CommandFailed(str(error)) from error


def _parquet(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Nulls are left out, but for `label`, where null retracts; times are instants, UTC where they have no zone."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check(path, file.schema_arrow.names)
            for batch in file.iter_batches(LABELS_MAX):
                yield [_of_parquet(row) for row in batch.to_pylist(maps_as_pydicts="strict")]
    except (OSError, pa.ArrowException) as error:
        raise CommandFailed(f"{path}: cannot be read: {error}") from error


def _of_parquet(row: dict[str, Any]) -> dict[str, Any]:
    from gateway.streams.truth_tables import plain

    label = row["label"]
    if isinstance(label, float) and not isfinite(label):
        raise CommandFailed(f"a label of {label} is no truth; leave the row out, or write null to retract it")
    if isinstance(text := row.get("attributes"), str):
        row["attributes"] = _value(text)
    return {name: plain(value) for name, value in row.items() if value is not None or name == "label"}


def _json(path: Path) -> Iterator[dict[str, Any]]:
    try:
        document = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise CommandFailed(f"{path}: not JSON ({error}); write .jsonl for one object a line") from error
    for place, row in enumerate(document if isinstance(document, list) else [document]):
        yield _object(path, f"label {place}", row)


def _lines(path: Path, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _object(path, f"line {number}", msgspec.json.decode(line))
            except msgspec.DecodeError as error:
                raise CommandFailed(f"{path}: line {number}: not JSON: {error}") from error


def _csv(path: Path, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Empty cells are left out, but for an empty `label`, which retracts; numbers, true/false and the JSON of attributes are read as what they are."""
    reader = csv.DictReader(lines)
    _check(path, reader.fieldnames or ())
    for cells in reader:
        row: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
        row |= {name: _value(row[name]) for name in ("row", "attributes") if name in row}
        row["label"] = _value(cells["label"])
        yield row


def _check(path: Path, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown or "label" not in names:
        raise CommandFailed(
            f"{path}: wanted the columns {', '.join(_COLUMNS)} (at least an id and label), got {', '.join(names)}"
        )


def _value(text: str | None) -> object:
    if not text:
        return None
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value


def _object(path: Path, place: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise CommandFailed(f"{path}: {place}: wanted an object, got {type(row).__name__}")
    return row
