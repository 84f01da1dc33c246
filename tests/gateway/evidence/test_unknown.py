import pytest

from gateway.evidence.query import Queries
from gateway.evidence.unknown import unknown
from gateway.streams.labels import rows
from tests.kit.spooled import START_UNIX_US, Place, label, labels, predictions, request, shadows


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    made.store(predictions([request(n, request_id=f"r{n}") for n in range(3)], [0.5] * 3), writer="first")
    return made


def asked(place, *told, since_unix_us=0):
    return unknown(Queries(place.uri), rows([labels(*told)]), since_unix_us)


def test_labels_are_unknown_until_one_that_says_the_same_is_stored(place):
    told = [
        label(0, 1, at_unix_us=3),
        label(0, 0, at_unix_us=3),
        label(0, 1, row=1),
        label(1, 1, at_unix_us=5),
        label(None, 1, endpoint="phishing", request_id="r0"),
        label(None, 1, endpoint="phishing", request_id="r1"),
        label(2, None),
    ]
    assert asked(place, *told).new == list(range(7))
    place.store(labels(label(0, 1, received=9, at_unix_us=3), label(1, 1), told[4], told[6]))
    assert asked(place, *told) == ([1, 2, 3, 5], [])


def test_a_label_whose_prediction_is_not_in_the_lake_is_left_where_it_is(place):
    """It was forgotten, is past its retention, or comes in a moment: then a later look finds it."""
    told = [
        label(9, 1),
        label(None, 1, endpoint="phishing", request_id="r9"),
        label(None, 1, endpoint="spam", request_id="r1"),
        label(7, 1),
    ]
    place.store(shadows([7], ["1"], ["0"]), writer="second")
    assert asked(place, *told).new == [3], "a mirror saw it"
    place.store(predictions([request(9, request_id="r9")], [0.5]), writer="third")
    assert asked(place, *told).new == [0, 1, 3]


def test_a_label_of_a_prediction_from_before_is_left_where_it_is(place):
    """The prediction stays longer than its labels: what has gone must not come back from its table."""
    place.store(shadows([7, 8], ["1"] * 2, ["0"] * 2), writer="second")
    told = [label(n, 1) for n in (0, 1, 2, 7, 8)]
    told += [label(None, 1, endpoint="phishing", request_id=f"r{n}") for n in range(3)]
    assert asked(place, *told, since_unix_us=START_UNIX_US + 2000).new == [2, 3, 4, 7]
    assert asked(place, *told, since_unix_us=START_UNIX_US + 8000).new == [4]


def test_without_a_lake_nothing_is_taken(tmp_path):
    assert asked(Place(tmp_path), label(0, 1)) == ([], [])


def test_a_row_that_is_named_later_is_news_and_an_older_lakes_row_0_is_none(place):
    place.store(labels(label(0, 1), label(1, 1, row=0)))
    assert asked(place, label(0, 1, row=0), label(1, 1), label(0, 1)).new == [0]


def test_a_label_that_is_told_again_after_another_held_is_back(place):
    place.store(labels(label(0, "a", received=1), label(0, "b", received=2), label(1, "a", received=1)))
    assert asked(place, label(0, "a"), label(1, "a")) == ([], [0])
    assert asked(place, label(0, "b")) == ([], [])
    place.store(labels(label(0, "a", received=3, at_unix_us=1_790_000_003_000_000)), writer="second")
    assert asked(place, label(0, "a"), label(1, "a")) == ([], []), "and it is so once"
    assert asked(place, label(0, "b")) == ([], [0])


def test_where_a_table_says_since_when_its_newest_moment_holds_and_nothing_is_back(place):
    place.store(labels(label(0, "a", at_unix_us=1), label(0, "b", at_unix_us=2)))
    assert asked(place, label(0, "a", at_unix_us=1)) == ([], [])
