"""Room 2 for MLflow scoring: the four JSON forms and CSV → inputs; a reply → `predictions` shaped as MLflow's `predict` gives them.

Follows mlflow 3.17's `mlflow/pyfunc/scoring_server` and `proto_json_utils`: which bodies are taken, how values are cast, which status
and error code a refusal has. Not followed, on purpose: bare NaN in JSON is refused, no message repeats the caller's data, and
Parquet is answered 415, because reading it needs a library that a worker does not load.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import orjson
from msgspec import Raw, Struct

from gateway.errors import MediaTypeUnsupported, RequestMalformed, translate
from gateway.request import InferReply
from gateway.rest.dataframes import Cell, cast_columns, from_csv, from_records, from_split
from gateway.rest.headers import error_headers, request_id_of
from gateway.rest.json_tensors import RANK_MAX, UNREADABLE, depth_of, joined, malformed, nested_decoder
from models.errors import InputInvalid, ModelFailed
from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_WANTED: Final = (
    f"The input must be a JSON dictionary with exactly one of the input fields {{{', '.join(map(repr, FORMS))}}}"
)
_UNEXPECTED: Final = (
    "Encountered an unexpected error while evaluating the model. Verify that the serialized input Dataframe is compatible with the"
    " model for inference."
)
_top: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode


class _Split(Struct, forbid_unknown_fields=True):
    """A data frame in `split` orientation whose cells are scalars."""

    data: list[list[Cell]]
    columns: list[str | int] | None = None
    index: list[Cell] | None = None


class _SplitOfOne(Struct, forbid_unknown_fields=True):
    """The same with the one column's values unwrapped, which pandas takes as well."""

    data: list[Cell]
    columns: list[str | int] | None = None
    index: list[Cell] | None = None


_Nested = Cell | list[Cell]


class _SplitOfLists(Struct, forbid_unknown_fields=True):
    """The same for a tensor signature: a cell may be the flat list of a row's tensor."""

    data: list[list[_Nested]]
    columns: list[str | int] | None = None
    index: list[Cell] | None = None


_split: Final = msgspec.json.Decoder(_Split).decode
_split_of_one: Final = msgspec.json.Decoder(_SplitOfOne).decode
_split_of_lists: Final = msgspec.json.Decoder(_SplitOfLists).decode
_records: Final = msgspec.json.Decoder(list[dict[str, Cell]]).decode
_records_of_lists: Final = msgspec.json.Decoder(list[dict[str, _Nested]]).decode
_by_name: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_raw_records: Final = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_cells: Final = msgspec.json.Decoder(list[Cell]).decode
_cell: Final = msgspec.json.Decoder(Cell).decode


class Scored(Struct, frozen=True):
    """A scoring request. `client_request_id` is Databricks' field, stored as the request id where no header gives one."""

    inputs: dict[str, Array]
    client_request_id: str | None = None


def decode(body: bytes, content_type: str | None, signature: Signature) -> Scored:
    """Reads a request of any form. Without a Content-Type the body is taken for JSON.

    Raises MediaTypeUnsupported, RequestMalformed (MLflow's BAD_REQUEST) and InputInvalid (its INVALID_PARAMETER_VALUE).
    """
    media_type = _media_type(content_type)
    if media_type == "text/csv":
        if not signature.columns:
            raise RequestMalformed(
                "CSV needs a model with a column signature; this one takes tensors: send JSON 'inputs'"
            )
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise RequestMalformed("Invalid input. Ensure that input is a valid UTF-8 encoded string.") from None
        return Scored(_with_rows(from_csv(text, signature)))
    fields = _fields(body)
    given = [form for form in FORMS if form in fields]
    if len(given) != 1:
        raise RequestMalformed(f"{_WANTED}. Received dictionary with input fields: {given}.")
    form = given[0]
    try:
        inputs = (_columns if signature.columns else _tensors)(form, fields[form], signature)
    except UNREADABLE as error:
        what = str(error) if isinstance(error, msgspec.ValidationError) else malformed(fields[form], error)
        raise RequestMalformed(f"Invalid input. Provided {form} field is not valid: {what}") from None
    return Scored(_with_rows(inputs), _client_request_id(fields))


def encode(reply: InferReply) -> bytes:
    """`{"predictions": …, "prediction_id": …}`; raises ModelFailed where outputs do not line up to records."""
    document: dict[str, object] = {"predictions": predictions(reply), "prediction_id": reply.prediction_id}
    if reply.explain is not None:
        document["explain"] = reply.explain
    return orjson.dumps(document)


def predictions(reply: InferReply) -> object:
    """What MLflow's own `predict` would have returned for this model, as plain lists and objects.

    Values go through Python floats, as MLflow's `tolist` does, so that an FP32 score prints the same digits.
    """
    answer = reply.model.answer
    by_name = {spec.name: array for spec, array in zip(reply.model.signature.outputs, reply.outputs, strict=True)}
    names = answer.scoring_outputs or tuple(by_name)
    if answer.scoring_form == "columns":
        return {name: by_name[name].tolist() for name in names}
    if answer.scoring_form == "records":  # MLflow flattens every output into a column of a data frame
        columns = [by_name[name].reshape(-1).tolist() for name in names]
        if len({len(column) for column in columns}) > 1:
            raise ModelFailed(_UNEXPECTED)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    array = by_name[names[0]]
    return array.reshape(-1).tolist() if answer.scoring_form == "list" else array.tolist()


def refuse(error: BaseException) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of a refusal, with MLflow's codes: what a model cannot take and what it raises are both 400.

    A media type that is not taken is answered as text, as theirs is.
    """
    wire = translate(error)
    headers = error_headers(wire, error)
    if isinstance(error, MediaTypeUnsupported):
        return 415, [*headers, ("content-type", "text/plain; charset=utf-8")], wire.message.encode()
    status, code, message = wire.status, wire.mlflow_code, wire.message
    if isinstance(error, InputInvalid):
        code = "INVALID_PARAMETER_VALUE"
    elif isinstance(error, ModelFailed):
        status, code, message = 400, "BAD_REQUEST", _UNEXPECTED
    return (
        status,
        [*headers, ("content-type", "application/json")],
        orjson.dumps({"error_code": code, "message": message}),
    )


def _media_type(content_type: str | None) -> str:
    media_type, *pairs = [part.strip() for part in (content_type or "application/json").split(";")]
    parameters = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        raise MediaTypeUnsupported("The scoring server only supports UTF-8")
    if set(parameters) - {"charset"}:
        raise MediaTypeUnsupported("Unrecognized content type parameters: only charset is known.")
    if media_type not in ("application/json", "text/csv"):
        raise MediaTypeUnsupported(
            "This predictor only supports the following content types: Types: ['text/csv', 'application/json']."
            f" Got '{(content_type or '')[:64]}'."
        )
    return media_type


def _fields(body: bytes) -> dict[str, Raw]:
    try:
        return _top(body)
    except msgspec.ValidationError:
        received = " Received a list." if body.lstrip()[:1] == b"[" else ""
        raise RequestMalformed(f"Invalid input. {_WANTED}.{received}") from None
    except UNREADABLE as error:
        raise RequestMalformed(
            f"Invalid input. Ensure that input is a valid JSON formatted string. Error: {malformed(body, error)}"
        ) from None


def _with_rows(inputs: dict[str, Array]) -> dict[str, Array]:
    """Refuses a table without rows, which scikit-learn and LightGBM do too (XGBoost answers nothing for nothing)."""
    if any(array.ndim and not len(array) for array in inputs.values()):
        raise RequestMalformed("Invalid input. Wanted at least one row.")
    return inputs


def _client_request_id(fields: dict[str, Raw]) -> str | None:
    try:
        return request_id_of(_text(fields["client_request_id"]))
    except (KeyError, *UNREADABLE):
        return None


# ── column signatures ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _columns(form: str, raw: Raw, signature: Signature) -> dict[str, Array]:
    if form == "dataframe_split":
        try:
            split: _Split | _SplitOfOne = _split(raw)
        except msgspec.ValidationError as error:
            try:
                split = _split_of_one(raw)
            except msgspec.ValidationError:
                raise error from None
            split = _Split([[cell] for cell in split.data], split.columns, split.index)
        assert isinstance(split, _Split)
        _check_index(split.index, len(split.data))
        return from_split(_names(split), split.data, signature)
    if form == "dataframe_records":
        return from_records(_records(raw), signature)
    first = _opening(raw)
    if first == b"{":
        return _named_columns(form, _by_name(raw), signature)
    if first == b"[{":
        return from_records(_records(raw), signature, as_text=True)
    if first == b"[" and len(signature.inputs) == 1:
        return cast_columns(signature, {signature.inputs[0].name: _cells(raw)}, as_text=True)
    _tensor(
        signature.inputs[0], raw
    )  # MLflow reads values without names as the first column's type before it misses the names
    return cast_columns(signature, {})


def _named_columns(form: str, fields: dict[str, Raw], signature: Signature) -> dict[str, Array]:
    """`{"a": [1, 2], "b": ["x", "y"]}`; scalars throughout are one row."""
    known = [spec.name for spec in signature.inputs if spec.name in fields]
    columns: dict[str, Sequence[Cell]] = {
        name: _cells(fields[name]) if _opening(fields[name])[:1] == b"[" else [_cell(fields[name])] for name in known
    }
    if len({len(column) for column in columns.values()}) > 1:
        error = RequestMalformed if form == "instances" else InputInvalid
        raise error("Invalid input. The length of values for each input/column name are not the same")
    return cast_columns(signature, columns, as_text=True)


def _names(split: _Split | _SplitOfLists) -> list[str | int]:
    if split.columns is not None:
        return split.columns
    return list(range(len(split.data[0]) if split.data else 0))


def _check_index(index: list[Cell] | None, rows: int) -> None:
    if index is not None and len(index) != rows:
        raise RequestMalformed(
            "Invalid input. Provided dataframe_split field is not a valid dataframe representation in 'split' format. "
            f"The index has {len(index)} entries for {rows} rows"
        )


# ── tensor signatures ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tensors(form: str, raw: Raw, signature: Signature) -> dict[str, Array]:
    specs = signature.inputs
    if form.startswith("dataframe"):
        return _tensors_of_frame(form, raw, signature)
    first = _opening(raw)
    if first == b"{":
        fields = _by_name(raw)
        return {spec.name: _tensor(spec, fields[spec.name]) for spec in specs if spec.name in fields}
    if first == b"[{":
        records = _raw_records(raw)
        return {
            spec.name: _tensor(spec, joined([record[spec.name] for record in records]))
            for spec in specs
            if all(spec.name in record for record in records)
        }
    if len(specs) != 1:
        raise InputInvalid(f"Model is missing inputs: wanted an object with {[spec.name for spec in specs]}.")
    return {specs[0].name: _tensor(specs[0], raw)}


def _tensors_of_frame(form: str, raw: Raw, signature: Signature) -> dict[str, Array]:
    """A frame's columns for several inputs, by name; for one input its cells: one list a row, or one column an element."""
    if form == "dataframe_split":
        split = _split_of_lists(raw)
        _check_index(split.index, len(split.data))
        names, rows = [str(name) for name in _names(split)], split.data
    else:
        records = _records_of_lists(raw)
        names = list(records[0]) if records else []
        rows = [[record.get(name) for name in names] for record in records]
    if any(len(row) != len(names) for row in rows):
        raise RequestMalformed(f"Invalid input. Provided {form} field has rows of unequal length")
    if len(signature.inputs) > 1 or (len(names) == 1 and names[0] == signature.inputs[0].name):
        columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        return {
            spec.name: _reshaped(spec, _array(spec, columns[spec.name]))
            for spec in signature.inputs
            if spec.name in columns
        }
    spec = signature.inputs[0]
    return {spec.name: _reshaped(spec, _array(spec, [row[0] for row in rows] if len(names) == 1 else rows))}


def _reshaped(spec: TensorSpec, array: Array) -> Array:
    """A column of scalars for shape [-1] or [-1, 1], and flat lists for the inner dimensions, as MLflow reshapes them."""
    if list(spec.shape).count(-1) > 1 or array.ndim == len(spec.shape):
        return array
    try:
        return array.reshape(spec.shape)
    except ValueError:
        raise InputInvalid(
            f"The value in the Input DataFrame column '{spec.name}' could not be converted to the expected shape of: "
            f"'{list(spec.shape)}'."
        ) from None


def _tensor(spec: TensorSpec, raw: bytes | Raw) -> Array:
    depth = depth_of(raw)
    if depth > RANK_MAX:
        raise RequestMalformed(f"Invalid input. Lists are nested deeper than {RANK_MAX}")
    return _array(spec, nested_decoder(Cell, depth)(raw))


def _array(spec: TensorSpec, values: object) -> Array:
    """As numpy converts nested lists to the declared type, which is what MLflow does: 1 → 1.0, and 1.5 → 1 for integers."""
    try:
        if spec.datatype == "BYTES":
            array: Array = np.array(values, dtype=object)
            if not all(isinstance(value, str) for value in array.ravel().tolist()):
                raise TypeError
            return array
        with np.errstate(over="ignore"):
            if spec.datatype in FLOATING:
                return np.array(values, dtype=np.float64).astype(NUMPY_OF[spec.datatype], copy=False)
            return np.array(values, dtype=NUMPY_OF[spec.datatype])
    except (ValueError, TypeError, OverflowError):
        raise RequestMalformed(
            f"Invalid input. Failed to convert input {spec.name} to type '{NUMPY_OF[spec.datatype]}'."
        ) from None


def _opening(raw: bytes | Raw) -> bytes:
    """The first one or two structural bytes: `{`, `[`, `[{`, `[[`, or those of a scalar."""
    text = bytes(memoryview(raw)[:64]).lstrip()
    if text[:1] != b"[":
        return text[:1]
    inner = text[1:].lstrip()[:1]
    return b"[" + inner if inner in (b"{", b"[") else b"["
