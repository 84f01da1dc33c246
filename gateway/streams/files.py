"""Any CSV, JSON or Parquet file as Arrow rows. It refuses no value: what does not fit a type is kept as text, what fits no form as a line."""

import codecs
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv, parquet

SIZE_MAX: Final = 2 << 30
"""Bytes of one file, packed and unpacked: it is read whole, and becomes one commit."""
INVALID: Final = "_invalid"
"""The column of lines that are no rows of their file."""
_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_TABS: Final = (".tsv", ".tab")
_WIDE: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON: Final = re.compile(r'\s*(?:\{\s*["}]|\[\s*(?:["\[\]{}\-0-9tfnNI]|$))')
"""How JSON begins; names in brackets are the head of a CSV file."""
_NO_NUMBER: Final = r"^\s*(?:\+|-?0[0-9xX])"
"""Digits that a number would lose: leading zeros of codes, the plus of telephone numbers."""
_NO_DOUBLE: Final = _NO_NUMBER + r"|^\s*-?[0-9]{16,}\s*$"
_SUSPECT: Final = re.compile(rb"(?<![0-9.eE+-])(?:\+|-?0[0-9xX]|-?[0-9]{16})")
"""Whether a file has any such text: few do, and only they are read a second time."""


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
    text = _text(data)
    if _JSON.match(text):
        return _json(text)
    text = text.lstrip("\r\n")
    return _csv(text, "\t" if name.lower().endswith(_TABS) else _delimiter(text))


def _text(data: bytes) -> str:
    """UTF-8, UTF-16 where it says so, else what spreadsheets of old wrote, in which every byte is a letter."""
    try:
        return data.decode("utf-16" if data.startswith(_WIDE) else "utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data[:4096]:
            raise FileUnreadable("neither CSV nor JSON nor Parquet") from None
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


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
        document = _value(text)
        items = document if isinstance(document, list) else [document]
    except (ValueError, RecursionError):
        items = []
        # Nothing else ends a line of JSON: its texts may hold all other ends of lines.
        for line in filter(str.strip, text.split("\n")):
            try:
                items.append(_value(line))
            except (ValueError, RecursionError):
                invalid.append(line.rstrip("\r"))
    rows = [item if item and isinstance(item, dict) else {"value": item} for item in items]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return _with_invalid(pa.table(columns) if columns else None, invalid)


def _value(text: str) -> Any:
    """JSON, also with the NaN and Infinity that Python and pandas write. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


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
        return _with_invalid(None, [line for line in rest.split("\n") if line.strip()])
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep)
    data = text.encode()
    try:
        rows = _read_csv(data, parse, {})
        kept, invalid = invalid, []
        return _with_invalid(_with_codes(rows, data, parse), kept)
    except pa.ArrowException:
        invalid.clear()
    try:
        names = _read_csv(head.encode() + b"\n", parse, {}).column_names
        return _with_invalid(_read_csv(data, parse, dict.fromkeys(names, pa.string())), invalid)
    except pa.ArrowException:
        return _with_invalid(None, [line for line in text.split("\n") if line.strip()])


def _read_csv(data: bytes, parse: csv.ParseOptions, types: Mapping[str, pa.DataType]) -> pa.Table:
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    # One block, so that types are taken from all values and not from the first ones.
    read = csv.ReadOptions(block_size=max(1 << 20, len(data) + 1))
    return csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)


def _with_codes(rows: pa.Table, data: bytes, parse: csv.ParseOptions) -> pa.Table:
    """The rows, with columns as texts whose digits are no number: it would not give back what the file says."""
    numbers = [field for field in rows.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
    if not numbers or not _SUSPECT.search(data):
        return rows
    texts = _read_csv(data, parse, {field.name: pa.string() for field in numbers})
    for place, field in enumerate(rows.schema):
        code = _NO_NUMBER if pa.types.is_integer(field.type) else _NO_DOUBLE
        if field in numbers and pc.any(pc.match_substring_regex(texts.column(place), code)).as_py():
            rows = rows.set_column(place, field.name, texts.column(place))
    return rows


def _delimiter(text: str) -> str:
    """The one that the first line has most of; a comma where it has none."""
    head = text.partition("\n")[0]
    return max(",;\t|", key=head.count)


def _with_invalid(rows: pa.Table | None, lines: Sequence[str]) -> pa.Table:
    kept = pa.table({INVALID: pa.array(lines, pa.string())})
    if rows is None or not rows.num_columns:
        return kept
    return pa.concat_tables([rows, kept], promote_options="default") if lines else rows
