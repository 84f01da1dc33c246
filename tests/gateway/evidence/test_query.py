import datetime as dt

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.evidence.query import _MACROS, Queries
from models.answer import text_of
from routing.experiments.pairing import is_right, plain
from routing.records import Column
from tests.kit.spooled import START_UNIX_US, Place, labels, pid_text, predictions, request
from tests.kit.spooled import label as label_row

TEXTS = st.text(alphabet="0123456789.-+eE_ truefalsTRUabcné٣", max_size=18)
LABELS = st.one_of(
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.floats(-1e15, 1e15),  # above 2**53 a float names no class
    TEXTS,
)


@pytest.fixture(scope="module")
def in_sql():
    with duckdb.connect() as connection:
        connection.execute(_MACROS)
        yield lambda sql, *values: connection.execute(sql, list(values)).fetchone()[0]


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example("1e400")
@example("TRUE")
@example("1_000")
@example("-0")
@example("+-0")
@example("infinity")
@example("-nan")
@example("1e-400")
@example(".5")
@example("5.")
@example("1e5\n")
def test_labels_have_the_same_plain_form_in_sql_and_in_python(in_sql, text):
    assert in_sql("SELECT plain(?)", text) == plain(text)


@settings(max_examples=300, deadline=None)
@given(truth=LABELS, answer=LABELS)
@example(truth=True, answer="1")
@example(truth=1.0, answer=True)
@example(truth="1", answer=1)
def test_an_answer_is_right_for_a_test_exactly_when_it_is_for_quality(in_sql, truth, answer):
    said, stored = text_of(answer), text_of(truth)
    matches = in_sql("SELECT $1 = $2 OR plain($1) = plain($2)", stored, said)
    assert is_right(truth, said) == matches


def test_a_table_in_place_of_the_lakes_own_is_asked(tmp_path):
    place = Place(tmp_path)
    place.store(labels(label_row(0, 1), label_row(1, 1)))
    queries = Queries(place.uri, instead={"labels": pa.table({"label_text": ["mine"]})})
    with queries.snapshot("labels") as snapshot:
        assert snapshot.columns("labels") == {"label_text"}
        assert snapshot.rows("SELECT * FROM labels") == [{"label_text": "mine"}]
    assert queries.versions(["labels"]) == (0,)


def test_files_of_other_endpoints_and_older_days_are_not_opened(tmp_path):
    place = Place(tmp_path)
    day = 86_400_000
    for at, (endpoint, number) in enumerate([("phishing", 0), ("phishing", 2 * day), ("spam", 2 * day)]):
        place.store(
            predictions([request(number)], [0.9], endpoint=endpoint), labels(label_row(number, 1)), writer=f"w{at}"
        )
    lake = tmp_path / "lake"
    since = START_UNIX_US / 1e6 + 86_400
    torn = [*lake.glob("predictions/endpoint=spam/*/*.parquet")]
    torn += lake.glob(
        f"predictions/endpoint=phishing/date={dt.datetime.fromtimestamp(START_UNIX_US / 1e6, dt.UTC):%F}/*"
    )
    assert len(torn) == 2
    for file in torn:
        file.write_bytes(b"no Parquet")
    queries = Queries(place.uri)
    with queries.snapshot("predictions", "labels", endpoint="phishing", since_unix_s=since) as snapshot:
        assert snapshot.rows("SELECT count(*) AS n FROM predictions") == [{"n": 1}]
        assert {row["prediction_id"] for row in snapshot.rows("FROM labels")} == {pid_text(2 * day)}
    with pytest.raises(duckdb.Error), queries.snapshot("predictions") as snapshot:
        snapshot.rows("SELECT count(*) AS n FROM predictions WHERE row = 0")


def test_a_column_that_no_file_of_the_window_has_is_null(tmp_path):
    place = Place(tmp_path)
    older = Column("older", "FP32", (1,), np.ones(1, "<f4").tobytes())
    place.store(predictions([request(0)], [0.9], inputs=[older], endpoint="spam"), writer="w0")
    place.store(predictions([request(1)], [0.9]), writer="w1")
    with Queries(place.uri).snapshot("predictions", endpoint="phishing") as snapshot:
        assert snapshot.rows("SELECT input_older, input_x FROM predictions") == [{"input_older": None, "input_x": 0.0}]


def test_what_does_not_fit_into_memory_goes_to_a_folder_for_its_owner_alone(tmp_path):
    spill = tmp_path / "spill"
    spill.mkdir()
    (spill / "left").write_text("by a process that was killed")
    queries = Queries(str(tmp_path), spill=spill)
    assert list(spill.iterdir()) == []
    assert spill.stat().st_mode & 0o777 == 0o700
    with queries.snapshot() as snapshot:
        snapshot.run(
            "CREATE TEMP TABLE wide AS SELECT range AS n, md5(range::VARCHAR) AS a, md5((range + 1)::VARCHAR) AS b FROM range(9_000_000)"
        )
        assert list(spill.iterdir())
        assert snapshot.rows("SELECT count(DISTINCT n) AS n FROM wide") == [{"n": 9_000_000}]
    queries.give_back()
    with queries.snapshot() as snapshot:
        assert snapshot.rows("SELECT 1 AS one") == [{"one": 1}]


def test_of_files_that_were_read_nothing_stays_in_memory(tmp_path):
    place = Place(tmp_path)
    queries = Queries(place.uri)
    for at in range(3):
        place.store(predictions([request(at)], [0.9]), writer=f"w{at}")
        with queries.snapshot("predictions") as snapshot:
            snapshot.run("CREATE TEMP TABLE held AS FROM predictions")
            assert snapshot.rows("SELECT count(*) AS n FROM held") == [{"n": at + 1}]
    with queries.snapshot() as snapshot:
        assert snapshot.rows("SELECT sum(memory_usage_bytes)::INT AS held FROM duckdb_memory()") == [{"held": 0}]
