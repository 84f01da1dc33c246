"""Labelled predictions as rows to train on: what went in, what came out, what was true; with a digest and where every row came from."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gateway.evidence.query import Queries, Row, Snapshot, quoted, window_us
from gateway.evidence.truths import hold_latest, resolve
from gateway.streams.digest import digest_of

_BATCH_ROWS: Final = 65_536
_OURS: Final = (
    "prediction_id", "row", "received_at", "revision", "variant", "model", "version", "digest", "unit", "experiment", "answer_label",
    "answer_score",
)  # fmt: skip
_LABEL: Final = ("label_text", "label_number", "labelled_at")
_ANSWERED: Final = """
    endpoint = $1 AND variant IS NOT NULL AND received_at >= make_timestamptz($2) AND received_at < make_timestamptz($3)
"""
_JOINED: Final = """
    (SELECT * FROM predictions WHERE {answered}) p
    JOIN latest_labels l ON l.id = p.prediction_id::UUID AND l.row = p.row AND NOT l.retracted
"""


_APART: Final = (
    "LEFT JOIN (SELECT * FROM sensitive WHERE endpoint = $1) s ON s.prediction_id = p.prediction_id AND s.row = p.row"
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The window is [since, until) of arrival, in Unix seconds; None is open. `label_window_s` as in quality.

    `with_sensitive`: attributes that are kept apart stand beside the inputs, as `attribute_<name>`.
    """

    endpoint: str
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    label_window_s: float | None = None
    with_sensitive: bool = False


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """`rows`: one a labelled row, in the order of arrival; inputs under their own names, ours beside them, `label` last.

    `lineage` says from what it was made: window, versions of the tables, revisions, models, and how many rows were left out and why.
    """

    rows: pa.Table
    features: tuple[str, ...]
    lineage: dict[str, Any]


def dataset(queries: Queries, question: Question) -> Dataset:
    """The answered rows of an endpoint that have a label and whose inputs were recorded. The newest label within the window holds."""
    bounds = [question.endpoint, *window_us(question.since_unix_s, question.until_unix_s)]
    tables = ("predictions", "labels", "sensitive")
    with queries.snapshot(*tables, endpoint=question.endpoint, since_unix_s=question.since_unix_s) as snapshot:
        resolve(snapshot, question.endpoint, since_unix_s=question.since_unix_s, window_s=question.label_window_s)
        hold_latest(snapshot)
        inputs = _inputs(snapshot, bounds)
        is_whole = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in inputs) or "FALSE"
        joined = _JOINED.format(answered=_ANSWERED)
        attributes = _attributes(snapshot, question)
        chosen = ", ".join(
            [f"p.{name}" for name in _OURS]
            + [f"p.{quoted(name)}" for name in inputs]
            + [f"s.{quoted(name)}" for name in attributes]
        )
        apart = _APART if attributes else ""
        found = snapshot.batches(
            f"SELECT {chosen}, l.label_text, l.label_number, l.holds_at AS labelled_at FROM {joined} {apart} WHERE {is_whole}"  # noqa: S608  # our own names
            " ORDER BY p.received_at, p.prediction_id, p.row",
            bounds,
            rows=_BATCH_ROWS,
        ).read_all()
        counts = snapshot.rows(
            f"SELECT (SELECT count(*) FROM predictions WHERE {_ANSWERED}) AS predictions, (SELECT count(*) FROM {joined}) AS labelled",  # noqa: S608  # see above
            bounds,
        )[0]
        versions = dict(snapshot.versions)
    features = _names(inputs)
    rows = _shaped(found, inputs, features)
    lineage = _lineage(question, rows, features, counts, versions)
    return Dataset(rows=rows, features=features, lineage=lineage | ({"sensitive": attributes} if attributes else {}))


def _attributes(snapshot: Snapshot, question: Question) -> list[str]:
    """The sensitive attributes that were asked for and that are kept of this endpoint."""
    if not question.with_sensitive:
        return []
    names = [name for name in snapshot.columns("sensitive") if name.startswith("attribute_")]
    if not names:
        return []
    counted = ", ".join(f"count({quoted(name)}) AS {quoted(name)}" for name in names)
    present = snapshot.rows(f"SELECT {counted} FROM sensitive WHERE endpoint = ?", [question.endpoint])[0]  # noqa: S608  # our own names
    return [name for name in names if present[name]]


def _inputs(snapshot: Snapshot, bounds: Sequence[object]) -> list[str]:
    """The input columns that hold something in the window."""
    names = [name for name in snapshot.columns("predictions") if name.startswith("input_")]
    if not names:
        return []
    counted = ", ".join(f"count({quoted(name)}) AS {quoted(name)}" for name in names)
    present = snapshot.rows(f"SELECT {counted} FROM predictions WHERE {_ANSWERED}", bounds)[0]  # noqa: S608  # see above
    return [name for name in names if present[name]]


def _names(inputs: Sequence[str]) -> tuple[str, ...]:
    """Inputs under the names that the model knows; one that is called as a column of ours keeps its prefix."""
    ours = {*_OURS, *_LABEL, "label"}
    plain = [name.removeprefix("input_") for name in inputs]
    return tuple(full if name in ours else name for full, name in zip(inputs, plain, strict=True))


def _shaped(found: pa.Table, inputs: Sequence[str], features: Sequence[str]) -> pa.Table:
    names = dict(zip(inputs, features, strict=True))
    renamed = found.rename_columns([names.get(name, name) for name in found.column_names])
    label = _label(renamed["label_text"], renamed["label_number"])
    kept = renamed.drop_columns(["label_text", "label_number"])
    return kept.append_column("label", label).combine_chunks()


def _label(texts: pa.ChunkedArray, numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels in the narrowest form that holds all of them: booleans, integers, numbers, else texts."""
    if not len(texts):
        return texts
    if pc.all(pc.is_in(texts, value_set=pa.array(["true", "false"]))).as_py():
        return pc.equal(texts, "true")
    if numbers.null_count:
        return texts
    are_whole = pc.all(pc.equal(pc.floor(numbers), numbers)).as_py() and pc.max(pc.abs(numbers)).as_py() < 2**53
    return numbers.cast(pa.int64()) if are_whole else numbers


def _lineage(
    question: Question, rows: pa.Table, features: Sequence[str], counts: Row, versions: dict[str, int]
) -> dict[str, Any]:
    who = rows.select(["variant", "model", "version", "digest"]).group_by(["variant", "model", "version", "digest"])
    served = who.aggregate([([], "count_all")]).rename_columns(["variant", "model", "version", "digest", "rows"])
    return {
        "endpoint": question.endpoint,
        "since_unix_s": question.since_unix_s,
        "until_unix_s": question.until_unix_s,
        "label_window_s": question.label_window_s,
        "rows": rows.num_rows,
        "predictions": counts["predictions"],
        "labelled": counts["labelled"],
        "without_inputs": counts["labelled"] - rows.num_rows,
        "features": list(features),
        "label_type": str(rows.schema.field("label").type),
        "digest": f"sha256:{digest_of(rows)}",
        "tables": versions,
        "revisions": sorted(pc.unique(rows["revision"]).to_pylist()),
        "models": sorted(served.to_pylist(), key=lambda one: (one["variant"], one["model"], one["version"])),
    }
