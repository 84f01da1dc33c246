import uuid

import pytest

from gateway.evidence.query import Queries
from gateway.evidence.settled import Settled, settle
from tests.kit.spooled import START_UNIX_US, Place, label, labels, predictions, request, shadows

NOW = START_UNIX_US / 1e6


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_labels_are_joined_or_orphaned_and_each_counts_once(place):
    place.store(
        predictions([request(n, request_id=f"r{n}") for n in range(3)], [0.5] * 3),
        shadows([7], ["1"], ["0"]),
        labels(label(0, 1), label(1, 1), label(9, 1), label(7, 1)),
        labels(label(None, 1, endpoint="phishing", request_id="r2"), label(None, 1, endpoint="other", request_id="r2")),
        labels(label(None, 1, prediction_id=uuid.UUID(int=5, version=4).bytes)),
    )
    queries = Queries(place.uri)
    found = settle(queries, 0, NOW + 60)
    assert (found.joined, found.orphaned) == (4, 3)
    assert settle(queries, found.last, NOW + 60) == Settled(last=found.last)


def test_a_label_that_came_a_moment_ago_is_not_judged_and_holds_up_those_behind_it(place):
    place.store(labels(label(0, 1, received=0), label(1, 1, received=100), label(2, 1, received=0)))
    queries = Queries(place.uri)
    first = settle(queries, 0, NOW + 60)
    assert (first.joined, first.orphaned) == (0, 1)
    place.store(predictions([request(1)], [0.5]), writer="worker-2")
    assert settle(queries, first.last, NOW + 60) == Settled(last=first.last)
    second = settle(queries, first.last, NOW + 160)
    assert (second.joined, second.orphaned) == (1, 1)


def test_without_labels_nothing_is_settled(place):
    assert settle(Queries(place.uri), 0, NOW) == Settled(last=0)


def test_labels_that_are_about_no_single_row_are_counted_apart(place):
    place.store(
        predictions([request(0, rows=2, request_id="two"), request(1, request_id="one")], [0.5] * 3),
        shadows([7], ["1"], ["0"]),
        labels(
            label(0, 1), label(0, 1, row=1), label(0, 1, row=2), label(1, 1), label(1, 1, row=1), label(7, 1, row=1)
        ),
        labels(
            label(None, 1, endpoint="phishing", request_id="two"),
            label(None, 1, endpoint="phishing", request_id="two", row=2),
            label(None, 1, endpoint="phishing", request_id="two", row=0),
            label(None, 1, endpoint="phishing", request_id="one"),
        ),
    )
    found = settle(Queries(place.uri), 0, NOW + 60)
    assert (found.joined, found.orphaned, found.row_missing, found.row_unknown) == (4, 0, 2, 4)


def test_a_label_by_request_id_is_joined_where_it_is_about_any_of_the_requests(place):
    requests = [request(0, rows=3, request_id="retried"), request(1, request_id="retried")]
    place.store(
        predictions(requests, [0.5] * 4),
        labels(
            label(None, 1, endpoint="phishing", request_id="retried"),
            label(None, 1, endpoint="phishing", request_id="retried", row=2),
            label(None, 1, endpoint="phishing", request_id="retried", row=3),
        ),
    )
    found = settle(Queries(place.uri), 0, NOW + 60)
    assert (found.joined, found.orphaned, found.row_missing, found.row_unknown) == (2, 0, 0, 1)


def test_an_id_of_a_time_that_no_clock_has_holds_nothing_up(place):
    place.store(labels(label(None, 1, prediction_id=uuid.UUID("ffffffff-ffff-7fff-bfff-ffffffffffff").bytes)))
    found = settle(Queries(place.uri), 0, NOW + 60)
    assert (found.joined, found.orphaned) == (0, 1)
    assert found.last > 0


def test_of_many_labels_a_look_judges_so_many_and_the_next_one_goes_on(place):
    place.store(predictions([request(n) for n in range(5)], [0.5] * 5), labels(*[label(n, 1) for n in range(2, 7)]))
    queries, found, last = Queries(place.uri), [], 0
    for _ in range(4):
        settled = settle(queries, last, NOW + 60, labels_max=2)
        found.append((settled.joined, settled.orphaned))
        last = settled.last
    assert found == [(2, 0), (1, 1), (0, 1), (0, 0)]
