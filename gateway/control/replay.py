"""A recorded window shown to another version: the shadow's own run over rows of the lake, and the ledger of what came of it.

Nothing is stored. The pairs stand in place of the table `shadows` for one look, under the sequence of the prediction they belong to, so
that verdicts are a function of the same order as those of a mirror that was there at the time.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.evidence.query import Queries, Snapshot, columns_of, quoted, window_us
from gateway.shadow import local
from gateway.shadow.draw import Draw, Job, column_of
from gateway.shadow.pairs import blocks
from gateway.spool.frame import Frame
from gateway.streams import shadows
from gateway.streams.schema import SHADOWS, Naming
from models.catalog import LoadedModel
from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array
from routing.records import MirrorBlock, RequestRow, ShadowBlock

MIRROR: Final = "replay"
"""The name under which the version stands in the ledger."""
ROWS_MAX: Final = 1_000_000
"""The newest rows of a window that are replayed; some 500 MB of pairs."""
_BATCH_ROWS: Final = 8192
_OURS: Final = (
    "prediction_id", "row", "rows", "revision", "variant", "model", "version", "unit", "experiment", "answer_label", "answer_score", "sequence",
)  # fmt: skip
_LIVE: Final = ("revision", "variant", "model", "version")
_WINDOW: Final = """
    endpoint = $1 AND variant IS NOT NULL AND ($2 IS NULL OR variant = $2)
    AND received_at >= make_timestamptz($3) AND received_at < make_timestamptz($4)
"""


class NotRecorded(Exception):
    """An input that the version needs was not recorded, or not as it needs it; the message names it."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: the window is [since, until) of arrival, in Unix seconds; `variant`: only those that it answered.

    `with_sensitive`: inputs that are kept apart are taken from where they lie.
    """

    endpoint: str
    variant: str | None = None
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    rows_max: int = ROWS_MAX
    with_sensitive: bool = False


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """`pairs` has the columns of `shadows`; `predictions` were in the window, of which `without_inputs` could not be replayed.

    `kept_apart`: the inputs that some of these lack because they are sensitive and were not asked for.
    """

    pairs: pa.Table
    predictions: int
    without_inputs: int
    kept_apart: tuple[str, ...] = ()


def replay(
    queries: Queries,
    question: Question,
    model: LoadedModel,
    on_progress: Callable[[int, int], None] = lambda _a, _b: None,
) -> Replayed:
    """Runs `model` on the newest rows of the window; `on_progress` is told the rows done and those to do. Raises NotRecorded."""
    bounds = [question.endpoint, question.variant, *window_us(question.since_unix_s, question.until_unix_s)]
    signature = model.staged.signature
    with queries.snapshot("predictions", "sensitive") as snapshot:
        apart = {spec.name: columns_of(snapshot, "sensitive", "attribute", spec.name) for spec in signature.inputs}
        if question.with_sensitive:
            _join_sensitive(snapshot, [name for names in apart.values() for name in names])
        else:
            snapshot.run("CREATE TEMP VIEW shown AS FROM predictions")
        inputs = {
            spec.name: _column(snapshot, spec, apart[spec.name], with_apart=question.with_sensitive)
            for spec in signature.inputs
        }
        needed = [inputs[spec.name] for spec in signature.inputs if not spec.optional]
        is_whole = " AND ".join(f"{one} IS NOT NULL" for one in needed if one is not None) or "inputs_digest IS NULL"
        counts = snapshot.rows(
            f"SELECT count(*) AS rows, count(*) FILTER (WHERE NOT ({is_whole})) AS lacking FROM shown WHERE {_WINDOW}",  # noqa: S608  # our own names, quoted
            bounds,
        )[0]
        chosen = ", ".join([*_OURS, *(f"{one} AS {quoted('in_' + name)}" for name, one in inputs.items() if one)])
        reader = snapshot.batches(
            f"SELECT * FROM (SELECT epoch_us(received_at) AS unix_us, {chosen} FROM shown WHERE {_WINDOW} AND {is_whole}"  # noqa: S608  # see above
            " ORDER BY unix_us DESC, prediction_id DESC, row DESC LIMIT $5) ORDER BY unix_us, prediction_id, row",
            [*bounds, question.rows_max],
            rows=_BATCH_ROWS,
        )
        due = min(counts["rows"] - counts["lacking"], question.rows_max)
        found, done = [SHADOWS.empty_table()], 0
        for part in _whole_requests(reader):
            found += _pairs(part, question.endpoint, model)
            done += part.num_rows
            on_progress(done, due)
    return Replayed(
        pairs=pa.concat_tables(found).combine_chunks(),
        predictions=counts["rows"],
        without_inputs=counts["lacking"],
        kept_apart=() if question.with_sensitive else tuple(name for name, names in apart.items() if names),
    )


def _join_sensitive(snapshot: Snapshot, names: Sequence[str]) -> None:
    """Makes `shown`: the predictions, and beside each what is kept apart of it."""
    chosen = "".join(f", s.{quoted(name)}" for name in names)
    snapshot.run(
        f"CREATE TEMP VIEW shown AS SELECT p.*{chosen} FROM predictions p"  # noqa: S608  # our own names, quoted
        " LEFT JOIN sensitive s ON s.prediction_id = p.prediction_id AND s.row = p.row AND s.endpoint = p.endpoint AND s.date = p.date"
    )


def _column(snapshot: Snapshot, spec: TensorSpec, apart: list[str], *, with_apart: bool) -> str | None:
    """The SQL of an input's recorded values, whichever datatype it was recorded under; None for an optional one that never was."""
    names = columns_of(snapshot, "predictions", "input", spec.name) + (apart if with_apart else [])
    if not names and not spec.optional:
        if apart:
            raise NotRecorded(
                f"input '{spec.name}' is sensitive and kept apart: --with-sensitive takes it from the table `sensitive`,"
                " for whoever may read that"
            )
        raise NotRecorded(
            f"input '{spec.name}' of the version was never recorded: it is no input of the endpoint, or its route says"
            " record.inputs: none or hash, or drops it (record.mask)"
        )
    if len(names) < 2:
        return quoted(names[0]) if names else None
    kind = "VARCHAR" if spec.datatype == "BYTES" else "DOUBLE" if math.prod(spec.shape[1:]) == 1 else "DOUBLE[]"
    return f"coalesce({', '.join(f'try_cast({quoted(name)} AS {kind})' for name in names)})"


def _whole_requests(reader: Any) -> Iterator[pa.Table]:
    """The reader's rows in portions that do not cut a request."""
    rest: pa.Table | None = None
    for batch in reader:
        rows = pa.Table.from_batches([batch])
        rows = rows if rest is None else pa.concat_tables([rest, rows]).combine_chunks()
        last = rows["prediction_id"][-1]
        cut = pc.index(rows["prediction_id"], last).as_py()
        rest = rows.slice(cut)
        if cut:
            yield rows.slice(0, cut)
    if rest is not None:
        yield rest


def _pairs(rows: pa.Table, endpoint: str, model: LoadedModel) -> list[pa.Table]:
    sequences = dict(
        zip(
            zip(rows["prediction_id"].to_pylist(), rows["row"].to_pylist(), strict=True),
            rows["sequence"].to_pylist(),
            strict=True,
        )
    )
    made: list[ShadowBlock] = []
    for part in _alike(rows, model.staged.signature):
        job = Job(_draw(part, endpoint, model.staged.signature), MIRROR, ())
        job.indexes = list(range(len(job.draw.block.requests)))
        job.open = len(job.indexes)
        local.run(model, [job], rows_max=model.rows_max, budget_s=math.inf)
        made += blocks(job, time.time_ns() // 1000)
    return [_numbered(table.select(SHADOWS.names), sequences) for table in shadows.tables(made, Naming(()))]


def _numbered(pairs: pa.Table, sequences: dict[tuple[str, int], int]) -> pa.Table:
    """The pairs under their predictions' sequence. How late a replay is says nothing: its lag is nought."""
    keys = zip(pairs["prediction_id"].to_pylist(), pairs["row"].to_pylist(), strict=True)
    numbers = pa.array([sequences[key] for key in keys], pa.int64())
    pairs = pairs.set_column(pairs.column_names.index("sequence"), "sequence", numbers)
    return pairs.set_column(pairs.column_names.index("lag_us"), "lag_us", pa.array(np.zeros(len(pairs), np.int64)))


def _alike(rows: pa.Table, signature: Signature) -> Iterator[pa.Table]:
    """The rows by who answered them and by the widths of their lists: what can stand in one block."""
    lists = [f"in_{spec.name}" for spec in signature.inputs if f"in_{spec.name}" in rows.column_names]
    lists = [name for name in lists if pa.types.is_list(rows.schema.field(name).type)]
    keys = rows.select(list(_LIVE))
    for name in lists:
        keys = keys.append_column(f"width_{name}", pc.list_value_length(rows[name]))
    codes = keys.group_by(keys.column_names).aggregate([])
    if codes.num_rows == 1:
        yield rows
        return
    for place in range(codes.num_rows):
        is_one = None
        for name in keys.column_names:
            value = codes[name][place]
            same = pc.is_null(keys[name]) if not value.is_valid else pc.equal(keys[name], value)
            is_one = same if is_one is None else pc.and_(is_one, same)
        yield rows.filter(pc.fill_null(is_one, False))  # its only form


def _draw(rows: pa.Table, endpoint: str, signature: Signature) -> Draw:
    """The rows as the shadow reads a mirror frame."""
    is_first = np.append(
        True, np.diff(pc.dictionary_encode(rows["prediction_id"].combine_chunks()).indices.to_numpy()) != 0
    )  # its only form
    starts = np.flatnonzero(is_first)
    counts = np.diff(np.append(starts, rows.num_rows)).tolist()
    heads = rows.take(pa.array(starts))
    live = {name: rows[name][0].as_py() for name in _LIVE}
    requests = [
        RequestRow(
            prediction_id=bytes.fromhex(one["prediction_id"].replace("-", "")),
            rows=count,
            received_unix_us=one["unix_us"],
            assigned=0,
            answered=0,
            assigned_by=0,
            bucket=0,
            propensity=None,
            protocol=0,
            status=200,
            queue_us=0,
            compute_us=0,
            total_us=0,
            batch_rows=count,
            unit=one["unit"],
            experiment=bool(one["experiment"]),
            mirrors=1,
        )
        for one, count in zip(
            heads.select(["prediction_id", "unix_us", "unit", "experiment"]).to_pylist(), counts, strict=True
        )
    ]
    given = [spec for spec in signature.inputs if f"in_{spec.name}" in rows.column_names]
    block = MirrorBlock(
        endpoint,
        live["revision"],
        (live["variant"],),
        live["model"],
        live["version"],
        (MIRROR,),
        requests,
        [column_of(spec.name, spec.datatype, _tensor(spec, rows[f"in_{spec.name}"])) for spec in given],
        [],
    )
    draw = Draw("lake", Frame(1, msgspec.msgpack.encode(block), 0, 0))
    draw.live_labels = rows["answer_label"].to_pylist()
    draw.live_scores = rows["answer_score"].to_pylist()
    return draw


def _tensor(spec: TensorSpec, values: pa.ChunkedArray) -> Array:
    """Recorded values as the version takes them, rows first. Raises NotRecorded for what cannot be that."""
    column = values.combine_chunks()
    rows, flat = len(column), column
    if pa.types.is_list(column.type):
        flat = pc.list_flatten(column)
    tail: Sequence[int] = spec.shape[1:]
    if sum(length < 0 for length in tail) == 1:
        known = -math.prod(tail)
        tail = [len(flat) // max(1, rows * known) if length < 0 else length for length in tail]
    try:
        if spec.datatype == "BYTES":
            return np.array(pc.fill_null(flat.cast(pa.string()), "").to_pylist(), dtype=object).reshape(rows, *tail)
        if pa.types.is_string(flat.type):
            raise NotRecorded(f"input '{spec.name}' was masked: hashes are no {spec.datatype}")
        if pa.types.is_decimal(flat.type):  # unsigned integers that no other type of the lake holds
            numbers: Array = np.array([int(value or 0) for value in flat.to_pylist()], dtype=object)
        else:
            missing = float("nan") if spec.datatype in FLOATING else 0.0
            whole = flat if flat.null_count == 0 else pc.fill_null(flat.cast(pa.float64()), missing)
            numbers = whole.to_numpy(zero_copy_only=False)
        return numbers.astype(NUMPY_OF[spec.datatype]).reshape(rows, *tail)
    except (ValueError, pa.ArrowException) as error:
        raise NotRecorded(f"input '{spec.name}': wanted {spec.datatype} {list(spec.shape)}: {error}") from error
