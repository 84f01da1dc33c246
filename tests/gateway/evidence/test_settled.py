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
