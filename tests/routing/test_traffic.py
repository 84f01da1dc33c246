from hypothesis import given

from routing.traffic import duration, instant, to_document
from routing.validate import validate
from tests.routing.documents import smallest, valid


@given(valid())
def test_the_normal_form_reads_back_as_the_same_route(document):
    route = validate(document)

    normal = to_document(route)

    assert validate(normal) == route
    assert to_document(validate(normal)) == normal


def test_the_normal_form_shows_every_default():
    normal = to_document(validate(smallest()))

    assert normal["salt"] == "phishing"
    assert normal["limits"] == {"concurrency_max": 1024, "queue_wait_max_s": 0.05, "timeout_s": 2.0}
    assert normal["label"] == {"window": "30d", "exogenous": False}
    assert normal["record"]["retention"] == "90d"
    assert "mirrors" not in normal


def test_two_spellings_of_one_route_have_one_normal_form():
    short = validate(smallest(unit="header", label={"window": "2w"}))
    long = validate(smallest(unit={"header": "X-Runoff-Unit"}, label={"window": "336h"}, rules=[], mirrors=[]))

    assert to_document(short) == to_document(long)


def test_durations_and_instants_are_written_in_their_shortest_text():
    assert [duration(seconds) for seconds in (1, 90, 600, 7200, 86_400, 604_800)] == [
        "1s",
        "90s",
        "10m",
        "2h",
        "1d",
        "7d",
    ]
    assert instant(0) == "1970-01-01T00:00:00Z"
