import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.evidence.query import _MACROS, Queries
from models.answer import text_of
from routing.experiments.pairing import is_right, plain
from tests.kit.spooled import Place, labels
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
