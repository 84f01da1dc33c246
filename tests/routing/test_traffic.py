from hypothesis import given

from routing.traffic import DAY_S, Retention, duration, instant, to_document
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


def test_a_retention_is_written_by_table_only_where_a_table_has_its_own():
    whole, by_table = (
        {"retention": {"predictions": "30d", **more}} for more in ({}, {"shadows": "168h", "labels": None})
    )

    assert to_document(validate(smallest(record=whole)))["record"]["retention"] == "30d"
    assert to_document(validate(smallest(record=by_table)))["record"]["retention"] == {
        "predictions": "30d",
        "shadows": "7d",
    }


def test_a_table_that_is_not_named_is_kept_as_long_as_its_predictions():
    kept = validate(smallest(record={"retention": {"predictions": "20d", "sensitive": "1d"}})).record.retention
    tables = ("predictions", "shadows", "labels", "sensitive", "sensitive_labels", "dead_letters", "metrics")

    assert [kept.kept_s(table) // DAY_S for table in tables] == [20, 20, 20, 1, 20, 20, 400]
    assert Retention(90 * DAY_S).kept_s("dead_letters") == 30 * DAY_S


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
