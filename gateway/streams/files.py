"""Any CSV, JSON or Parquet file as Arrow rows. It refuses no value: what does not fit a type is kept as text, what fits no form as a line."""

import gzip
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyarrow import csv, parquet

SIZE_MAX: Final = 2 << 30
"""Bytes of one file, packed and unpacked: it is read whole, and becomes one commit."""
INVALID: Final = "_invalid"
"""The column of lines that are no rows of their file."""
_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_TABS: Final = (".tsv", ".tab")


class FileUnreadable(Exception):
    """Neither CSV nor JSON nor Parquet, or too large; the message says which."""


def rows_of(name: str, data: bytes) -> pa.Table:
    """The rows of a file, by what it holds rather than by its name (which tells tabs from commas). Raises FileUnreadable."""
    if data[:2] == _GZIP:
        data, name = _unpacked(data), name.removesuffix(".gz")
    if data[:4] == _PARQUET:
        try:
            return parquet.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise FileUnreadable(f"no whole Parquet file: {error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data[:4096]:
            raise FileUnreadable("neither CSV nor JSON nor Parquet") from None
        text = data.decode("latin-1")  # what spreadsheets of old wrote; every byte is a letter in it
    if text.lstrip()[:1] in {"{", "["}:
        return _json(text)
    return _csv(text, "\t" if name.lower().endswith(_TABS) else _delimiter(text))


def _unpacked(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found = file.read(SIZE_MAX + 1)
    except (OSError, EOFError) as error:
        raise FileUnreadable(f"no whole gzip file: {error}") from error
    if len(found) > SIZE_MAX:
        raise FileUnreadable(f"more than {SIZE_MAX >> 30} GiB when unpacked")
    return found


def _json(text: str) -> pa.Table:
    """A list of objects, one object, or one a line; what is no object stands under `value`."""
    invalid: list[str] = []
    try:
        document = msgspec.json.decode(text)
        items = document if isinstance(document, list) else [document]
    except msgspec.DecodeError:
        items = []
        for line in filter(str.strip, text.splitlines()):
            try:
                items.append(msgspec.json.decode(line))
            except msgspec.DecodeError:
                invalid.append(line)
    rows = [item if isinstance(item, dict) else {"value": item} for item in items]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return _with_invalid(pa.table(columns) if columns else None, invalid)


def _column(values: Sequence[Any]) -> pa.Array:
    """Values of one kind as that kind, of several as text: texts as they are, everything else as JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        texts = [
            value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
            for value in values
        ]
        return pa.array(texts, pa.string())


def _csv(text: str, delimiter: str) -> pa.Table:
    """The first line names the columns. Columns whose values are of several kinds are texts; lines of another length are kept as lines."""
    invalid: list[str] = []

    def keep(row: csv.InvalidRow) -> str:
        invalid.append(row.text)
        return "skip"

    head, _, rest = text.partition("\n")
    if not head.strip():
        return _with_invalid(None, [line for line in rest.splitlines() if line.strip()])
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep)
    data = text.encode()
    try:
        return _with_invalid(_read_csv(data, parse, {}), invalid)
    except pa.ArrowException:
        invalid.clear()
    try:
        names = _read_csv(head.encode() + b"\n", parse, {}).column_names
        return _with_invalid(_read_csv(data, parse, dict.fromkeys(names, pa.string())), invalid)
    except pa.ArrowException:
        return _with_invalid(None, [line for line in text.splitlines() if line.strip()])


def _read_csv(data: bytes, parse: csv.ParseOptions, types: Mapping[str, pa.DataType]) -> pa.Table:
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    # One block, so that types are taken from all values and not from the first ones.
    read = csv.ReadOptions(block_size=max(1 << 20, len(data) + 1))
    return csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)


def _delimiter(text: str) -> str:
    """The one that the first line has most of; a comma where it has none."""
    head = text.partition("\n")[0]
    return max(",;\t|", key=head.count)


def _with_invalid(rows: pa.Table | None, lines: Sequence[str]) -> pa.Table:
    kept = pa.table({INVALID: pa.array(lines, pa.string())})
    if rows is None or not rows.num_columns:
        return kept
    return pa.concat_tables([rows, kept], promote_options="default") if lines else rows
