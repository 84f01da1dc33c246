import datetime as dt

import msgspec

from gateway.streams.minutes import Told, rows
from gateway.streams.schema import METRIC_PARTS
from routing.records import MetricBlock, MinuteRow, QualityBlock, QualityRow
from tests.kit.spooled import START_UNIX_US, shadows

MINUTE_S = START_UNIX_US // 60_000_000 * 60
MINUTE = dt.datetime.fromtimestamp(MINUTE_S, dt.UTC)


def minute(minutes=0, **fields):
    plain = {
        "endpoint": "phishing",
        "variant": "champion",
        "model": "phishing",
        "version": "1",
        "minute_unix_s": MINUTE_S + 60 * minutes,
        "requests": 5,
        "errors": 1,
        "rows": 9,
        "latency_sum_s": 0.25,
        "latency_buckets": [4, 1],
    }
    return MinuteRow(**{**plain, **fields})


def dropped(reasons, numbers=(0,)):
    """What a mirror tells of its drops, beside these requests."""
    requests = shadows(numbers, [], []).requests if numbers else []
    return msgspec.structs.replace(shadows([0], [], []), dropped=reasons, requests=requests)


def test_each_minute_is_a_row_of_its_writer():
    found = rows(
        [Told("w1", MetricBlock([minute(), minute(1, variant="b")]), 0), Told("w2", MetricBlock([minute()]), 0)]
    )
    assert found.schema.equals(METRIC_PARTS)
    shown = found.select(["writer", "minute", "variant", "role"]).to_pylist()
    assert [tuple(row.values()) for row in shown] == [
        ("w1", MINUTE, "champion", "live"),
        ("w1", MINUTE + dt.timedelta(minutes=1), "b", "live"),
        ("w2", MINUTE, "champion", "live"),
    ]
    row = found.to_pylist()[0]
    assert (row["requests"], row["errors"], row["rows"]) == (5, 1, 9)
    assert (row["latency_sum_s"], row["latency_buckets"], row["dropped"]) == (0.25, [4, 1], None)


def test_a_minute_before_midnight_lies_in_its_own_day():
    midnight = dt.datetime(2026, 9, 22, tzinfo=dt.UTC)
    last = int(midnight.timestamp()) - 60
    days = rows([Told("w", MetricBlock([minute(minute_unix_s=last), minute(minute_unix_s=last + 60)]), 0)])["date"]
    assert days.to_pylist() == [dt.date(2026, 9, 21), dt.date(2026, 9, 22)]


def test_what_a_mirror_did_is_a_row_a_minute_over_all_blocks_that_came_together():
    early = shadows([0, 1], ["1", "0"], ["1.0", "1"])
    late = shadows([2, 61_000], ["1", "1"], [None, None], outcome="model_failed")
    found = rows([Told("shadow", block, 0) for block in (early, late)]).to_pylist()
    counted = ("requests", "errors", "rows", "compared", "agreed")
    assert [tuple(row[name] for name in counted) for row in found] == [(3, 1, 3, 2, 1), (1, 1, 1, 0, 0)]
    assert [row["minute"] for row in found] == [MINUTE, MINUTE + dt.timedelta(minutes=1)]
    assert {(row["role"], row["variant"], row["version"], row["writer"]) for row in found} == {
        ("mirror", "candidate", "2", "shadow")
    }
    computed = [request.compute_us for request in early.requests]
    assert found[0]["latency_sum_s"] == sum(computed) / 1e6
    assert (sum(found[0]["latency_buckets"]), sum(found[1]["latency_buckets"])) == (2, 0)


def test_rows_of_one_request_are_compared_each_with_its_own():
    block = shadows([0, 1], ["1", "0"], ["1", "1"])
    requests = [msgspec.structs.replace(block.requests[0], rows=2)]
    (row,) = rows([Told("shadow", msgspec.structs.replace(block, requests=requests), 0)]).to_pylist()
    assert (row["requests"], row["rows"], row["compared"], row["agreed"]) == (1, 2, 2, 1)


def test_what_a_mirror_dropped_is_a_row_for_each_reason_in_the_minute_of_its_first_request():
    found = rows([Told("shadow", dropped({"late": 3, "full": 1}, numbers=(61_000, 0)), 0)]).to_pylist()
    drops = [row for row in found if row["reason"]]
    assert [(row["reason"], row["dropped"], row["requests"]) for row in drops] == [("late", 3, None), ("full", 1, None)]
    wanted = (START_UNIX_US // 1_000_000 + 61) // 60 * 60
    assert {row["minute"].timestamp() for row in drops} == {wanted}


def test_drops_without_a_request_are_put_where_they_were_read():
    (row,) = rows([Told("shadow", dropped({"late": 1}, numbers=()), START_UNIX_US)]).to_pylist()
    assert (row["minute"], row["dropped"]) == (MINUTE, 1)


def test_no_blocks_are_no_rows():
    assert rows([]) is None
    assert rows([Told("shadow", dropped({}, numbers=()), 0)]) is None


def test_a_look_at_quality_is_a_row_in_its_minute_with_the_measures_that_there_are():
    row = QualityRow("phishing", "mirror", "candidate", "phishing", "2", 120, 7, {"accuracy": 0.5, "unheard_of": 1.0})
    (found,) = rows([Told("control", QualityBlock([row]), 0)]).to_pylist()
    assert (found["role"], found["variant"], found["version"], found["labelled"]) == ("mirror", "candidate", "2", 7)
    assert (found["accuracy"], found["auc"], found["requests"]) == (0.5, None, None)
    assert found["minute"].timestamp() == 120
    assert (found["drift_psi_max"], found["drift_psi"]) == (None, None)


def test_drift_is_told_by_input_and_by_the_worst_of_them():
    row = QualityRow("phishing", "live", "champion", "phishing", "2", 120, 0, {}, {"age": 0.01, "income": 0.4})
    (found,) = rows([Told("control", QualityBlock([row]), 0)]).to_pylist()
    assert (found["drift_psi_max"], found["drift_input"]) == (0.4, "income")
    assert dict(found["drift_psi"]) == {"age": 0.01, "income": 0.4}
