"""Labels that lie in tables of others: Delta, Parquet, CSV or JSON, here or in an object store, or a Feast view; which, a TOML file says.

    [[labels]]
    endpoint = "phishing"
    table = "s3://warehouse/cases"      # a Delta table, files or a folder of files, or feast:/srv/features#case_outcomes
    request_id = "case_id"              # or prediction_id: the column that says which prediction
    label = "is_phishing"
    at = "closed_at"                    # the column that says when it became known; optional, as `row`
    attributes = ["region", "origin"]   # columns that a label carries beside its value, under their own names; optional

A null label is one that is not known yet, and is passed over, unless `nulls = "retract"`.
"""

import datetime as dt
import tomllib
from collections.abc import Iterator
from math import isinf, isnan
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from msgspec import Meta
from pyarrow import dataset as files

from routing.records import LABELS_MAX

_FEAST: Final = "feast:"
_FORMATS: Final = {".csv": "csv", ".json": "json", ".jsonl": "json", ".feather": "feather"}
_Name = Annotated[str, Meta(min_length=1)]


class TruthUnreadable(Exception):
    """The file, a table it names, or a column of one; the message says which."""


class TruthTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where labels of an endpoint lie. `every_s`: how often a gateway that was told of the file looks.

    `days`: rows whose `at` is older are not looked at; None: all are.
    """

    endpoint: _Name
    table: _Name
    label: _Name
    prediction_id: _Name | None = None
    request_id: _Name | None = None
    at: _Name | None = None
    row: _Name | None = None
    attributes: Annotated[tuple[_Name, ...], Meta(max_length=32)] = ()
    nulls: Literal["skip", "retract"] = "skip"
    every_s: Annotated[float, Meta(ge=1)] = 300.0
    days: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if (self.prediction_id is None) == (self.request_id is None):
            raise ValueError("wanted one of prediction_id and request_id")
        if self.days is not None and self.at is None:
            raise ValueError("days needs the column `at`")

    @property
    def wanted(self) -> list[str]:
        """The columns that are read."""
        return sorted({*self.columns.values(), *self.attributes})

    @property
    def columns(self) -> dict[str, str]:
        """Field of the label call → column of the table, but for the attributes."""
        named = {"prediction_id": self.prediction_id, "request_id": self.request_id, "row": self.row, "at": self.at}
        return {field: column for field, column in named.items() if column is not None} | {"label": self.label}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    labels: Annotated[list[TruthTable], Meta(min_length=1)]


def truth_tables(path: Path) -> list[TruthTable]:
    """What the file names. Raises TruthUnreadable."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).labels
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TruthUnreadable(f"{path}: {error}") from error


def read(truth: TruthTable, now: dt.datetime) -> Iterator[list[dict[str, Any]]]:
    """The labels that the table holds now, as the label call takes them, in portions of at most 10,000. Raises TruthUnreadable."""
    try:
        for batch in _batches(truth, now):
            found = _labels(truth, batch)
            for start in range(0, len(found), LABELS_MAX):
                yield found[start : start + LABELS_MAX]
    except (OSError, ValueError, DeltaError, pa.ArrowException) as error:
        raise TruthUnreadable(f"{truth.table}: {error}") from error


def _batches(truth: TruthTable, now: dt.datetime) -> Iterator[pa.RecordBatch]:
    since = None if truth.days is None else now - dt.timedelta(days=truth.days)
    if truth.table.startswith(_FEAST):
        yield from _of_feast(truth, since, now)
        return
    found = _dataset(truth.table)
    missing = [column for column in truth.wanted if column not in found.schema.names]
    if missing:
        raise TruthUnreadable(f"{truth.table}: no column {missing[0]!r}; it has {', '.join(found.schema.names)}")
    recent: Any = None
    if since is not None and truth.at is not None and pa.types.is_timestamp(type_ := found.schema.field(truth.at).type):
        recent = pc.field(truth.at) >= pa.scalar(since if type_.tz else since.replace(tzinfo=None), type_)
    yield from found.to_batches(columns=truth.wanted, filter=recent)


def _dataset(table: str) -> Any:
    if ("://" in table or Path(table).is_dir()) and DeltaTable.is_deltatable(table):
        return DeltaTable(table).to_pyarrow_dataset()
    return files.dataset(table, format=_FORMATS.get(Path(table).suffix.lower(), "parquet"))


def _of_feast(truth: TruthTable, since: dt.datetime | None, now: dt.datetime) -> Iterator[pa.RecordBatch]:
    """What the view's own offline store holds, each row with its event timestamp."""
    repo, _, view_name = truth.table.removeprefix(_FEAST).partition("#")
    try:
        from gateway.streams.feast_view import rows_of_view
    except ImportError as error:
        raise TruthUnreadable(f"{error}; install the extra: pip install 'runoff[feast]'") from error
    try:
        found = rows_of_view(repo, view_name, truth.wanted, since or dt.datetime.fromtimestamp(0, dt.UTC), now)
        yield from found.to_batches(LABELS_MAX)
    except Exception as error:  # Feast raises whatever its parts raise
        raise TruthUnreadable(f"{truth.table}: {type(error).__name__}: {error}") from error


def _labels(truth: TruthTable, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    named = [(field, batch.column(column).to_pylist()) for field, column in truth.columns.items()]
    beside = [batch.column(column).to_pylist() for column in truth.attributes]
    found = []
    for place, values in enumerate(zip(*(values for _, values in named), strict=True)):
        row = {field: plain(value) for (field, _), value in zip(named, values, strict=True)}
        label = row.pop("label")
        if label is None and truth.nulls == "skip":
            continue
        given = {field: value for field, value in row.items() if value is not None}
        if not (isinstance(label, float) and isinf(label)):  # JSON has none: it would come as null, and retract
            given["label"] = label
        for key in ("prediction_id", "request_id"):
            if key in given:
                given[key] = str(given[key])
        if "request_id" in given:
            given["endpoint"] = truth.endpoint
        carried = {name: plain(of[place]) for name, of in zip(truth.attributes, beside, strict=True)}
        if attributes := {name: value for name, value in carried.items() if value is not None}:
            given["attributes"] = attributes
        found.append(given)
    return found


def plain(value: Any) -> Any:
    """As JSON has it: moments in UTC where they name no zone; a day is its beginning; not a number is nothing; of an object what is in it."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat()
    if isinstance(value, dt.date):
        return dt.datetime.combine(value, dt.time(), dt.UTC).isoformat()
    if isinstance(value, float) and isnan(value):
        return None
    return value
