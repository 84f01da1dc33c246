import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.streams.digest import digest_of

VALUES = {
    "whole": pa.array([1, None, 3], pa.int64()),
    "real": pa.array([0.5, float("nan"), None]),
    "flag": pa.array([True, None, False]),
    "text": pa.array(["a", "", None]),
    "list": pa.array([[1.0, 2.0], None, []], pa.list_(pa.float32())),
    "day": pa.array([dt.date(2026, 1, 1), None, dt.date(2026, 1, 2)]),
    "time": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
    "wide": pa.array([Decimal(2**64 - 1), None, Decimal(1)], pa.decimal128(20, 0)),
}


def test_the_digest_is_of_the_values_not_of_how_they_are_held(tmp_path):
    table = pa.table(VALUES)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2, compression="zstd")
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert digest_of(table) == digest_of(chunked) == digest_of(pq.read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize("name", VALUES)
def test_another_value_or_a_null_in_its_place_is_another_digest(name):
    table = pa.table(VALUES)
    other = table[name].to_pylist()[::-1]
    moved = table.set_column(table.column_names.index(name), name, pa.array(other, table[name].type))
    assert digest_of(moved) != digest_of(table)


def test_texts_do_not_run_into_each_other():
    assert digest_of(pa.table({"t": ["ab", "c"]})) != digest_of(pa.table({"t": ["a", "bc"]}))
    assert digest_of(pa.table({"t": [0]})) != digest_of(pa.table({"t": pa.array([None], pa.int64())}))
