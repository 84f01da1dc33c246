"""The SQL of docs/split.sql deals as routing.split does: same buckets, same arms, same mirrors."""

from pathlib import Path

import duckdb
import pytest

from routing.split import canonical_unit, compile_split, mirror_draw

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden_split.jsonl.gz")
# The unit is read back from its own form, not from the canonical text beside it.
UNITS = """
    SELECT *, CASE form
        WHEN 'text' THEN split_unit(unit->>'$')
        WHEN 'int' THEN split_unit(CAST(unit->>'$' AS HUGEINT))
        WHEN 'float' THEN split_unit(CAST(unit->>'$' AS DOUBLE))
        WHEN 'bool' THEN split_unit(CAST(unit->>'$' AS BOOLEAN))
        WHEN 'bytes' THEN split_unit(decode(from_hex(unit->>'$')))
        ELSE from_hex(unit->>'$') END AS unit_bytes
    FROM golden
"""


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        connection.execute((ROOT / "docs" / "split.sql").read_text(encoding="utf-8"))
        connection.execute(
            f"""CREATE TABLE golden AS SELECT * FROM read_json('{GOLDEN}', format='newline_delimited', columns={{
                salt: 'VARCHAR', arms: 'STRUCT(name VARCHAR, weight DOUBLE)[]', form: 'VARCHAR', unit: 'JSON', text: 'VARCHAR',
                bucket: 'INTEGER', arm: 'VARCHAR'}})"""
        )
        yield connection


def test_sql_finds_the_bucket_and_arm_of_every_golden_vector(database):
    rows, buckets, arms = database.execute(
        f"""SELECT count(*), count(*) FILTER (split_bucket(salt, unit_bytes) = bucket),
            count(*) FILTER (split_arm(salt, bucket, arms) = arm) FROM ({UNITS})"""
    ).fetchone()

    assert (rows, buckets, arms) == (10_000, 10_000, 10_000)


def test_sql_deals_all_buckets_as_the_compiled_table(database):
    weights = [("champion", 80.0), ("challenger", 19.0), ("dark", 0.0), ("small", 1.0)]
    split = compile_split("sälz-1", weights)
    arms = [{"name": name, "weight": weight} for name, weight in weights]

    dealt = database.execute(
        "SELECT split_arm('sälz-1', range, $arms) FROM range(65536) ORDER BY range", {"arms": arms}
    ).fetchall()

    assert [name for (name,) in dealt] == [split.names[arm] for arm in split.arms]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'user'", "user"),
        ("'e' || chr(769)", "e\u0301"),
        ("17", 17),
        ("17.0", 17.0),
        ("0.1::FLOAT", 0.10000000149011612),
        ("-0.0::DOUBLE", -0.0),
        ("1e22::DOUBLE", 1e22),
        ("1e-7::DOUBLE", 1e-7),
        ("true", True),
        ("''", ""),
        ("'NaN'::DOUBLE", float("nan")),
        ("'inf'::DOUBLE", float("inf")),
    ],
)
def test_sql_writes_units_in_the_same_canonical_text(database, sql, value):
    (unit,) = database.execute(f"SELECT split_unit({sql})").fetchone()

    assert (unit or b"") == canonical_unit(value)


def test_sql_knows_which_predictions_a_mirror_saw(database):
    ids = [bytes([number, 7] * 8) for number in range(200)]

    seen = database.execute("SELECT split_mirrored('candidate', 0.3, unnest($ids::BLOB[]))", {"ids": ids}).fetchall()

    assert [row[0] for row in seen] == [mirror_draw(id_, "candidate", 0.3) for id_ in ids]
