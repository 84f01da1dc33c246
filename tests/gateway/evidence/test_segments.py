import pytest

from gateway.evidence.query import Queries
from gateway.evidence.segments import is_sensitive, segment
from routing.records import Column
from tests.kit.spooled import Place, apart, predictions, request


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def segments(place, column, numbers=range(1000)):
    """Rows by segment, in the order to show."""
    with Queries(place.uri).snapshot("predictions") as snapshot:
        snapshot.run(
            "CREATE TEMP TABLE mine AS SELECT prediction_id::UUID AS id, row FROM predictions WHERE endpoint = 'phishing'"
        )
        segment(snapshot, "phishing", column, "mine")
        found = snapshot.rows("SELECT segment, count(*) AS rows FROM segments GROUP BY segment, place ORDER BY place")
    return [(row["segment"], row["rows"]) for row in found]


def test_a_number_with_many_values_is_told_by_quarters(place):
    place.store(predictions([request(n) for n in range(40)], [0.5] * 40))
    assert segments(place, "input_x") == [
        ("0.0 to 9.0", 10),
        ("10.0 to 19.0", 10),
        ("20.0 to 29.0", 10),
        ("30.0 to 39.0", 10),
    ]


def test_few_values_are_told_one_by_one_the_most_frequent_first(place):
    place.store(predictions([request(n, rule="beta" if n < 3 else "late") for n in range(10)], [0.5] * 10))
    assert segments(place, "rule") == [("late", 7), ("beta", 3)]


def test_of_many_texts_the_most_frequent_are_told(place):
    names = [f"name {n % 40}" if n < 200 else "often" for n in range(220)]
    place.store(
        predictions([request(n) for n in range(220)], [0.5] * 220, inputs=[Column("who", "BYTES", (1,), names)])
    )
    found = segments(place, "input_who")
    assert (len(found), found[0]) == (20, ("often", 20))


def test_a_column_that_is_none_is_refused(place):
    place.store(predictions([request(0)], [0.5]))
    with pytest.raises(ValueError, match="no column 'x\"; DROP'"):
        segments(place, 'x"; DROP')


def test_rows_are_parted_by_attributes_that_are_kept_apart_too(place):
    place.store(predictions([request(n) for n in range(6)], [0.5] * 6), apart(range(6), "fmfmff"))
    with Queries(place.uri).snapshot("predictions", "sensitive") as snapshot:
        snapshot.run("CREATE TEMP TABLE mine AS SELECT prediction_id::UUID AS id, row FROM predictions")
        segment(snapshot, "phishing", "attribute_sex", "mine")
        found = snapshot.rows("SELECT segment, count(*) AS rows FROM segments GROUP BY segment ORDER BY 2 DESC")
        assert [(row["segment"], row["rows"]) for row in found] == [("f", 4), ("m", 2)]
        with pytest.raises(ValueError, match="attributes kept apart"):
            segment(snapshot, "phishing", "attribute_age", "mine")
    assert is_sensitive("attribute_sex")
    assert not is_sensitive("input_sex")
