from gateway.evidence.query import Queries
from gateway.evidence.units import units_assigned
from tests.kit.spooled import START_UNIX_US, Place, predictions, request

START_S = START_UNIX_US / 1e6


def test_units_count_once_by_what_the_split_gave_them_within_the_window(tmp_path):
    place = Place(tmp_path)
    busy = [request(n, unit="a") for n in range(5)]
    others = [request(5, unit="b"), request(6, unit="c", assigned=1), request(7, unit="c", assigned=1, rows=3)]
    elsewhere = [
        request(8, unit=None, unit_missing=True),
        request(9, unit="pinned", assigned=1, assigned_by=2),
        request(10, unit="ruled", assigned=1, assigned_by=1),
        request(11, unit="late", received_unix_us=START_UNIX_US + 60_000_000),
        request(12, unit="early", received_unix_us=START_UNIX_US - 1),
    ]
    requests = [*busy, *others, *elsewhere]
    place.store(
        predictions(requests, [0.5] * sum(one.rows for one in requests)),
        predictions([request(13, unit="d")], [0.5], endpoint="other"),
    )
    queries = Queries(place.uri)
    counted = units_assigned(queries, "phishing", 7, START_S, START_S + 60)
    assert counted == {"champion": 2, "challenger": 1}
    assert units_assigned(queries, "phishing", 8, START_S, START_S + 60) == {}


def test_of_a_lake_that_is_not_there_nothing_is_counted(tmp_path):
    assert units_assigned(Queries(str(tmp_path)), "phishing", 7, 0.0, START_S) == {}
