import datetime as dt
import random

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

from gateway.streams.fold import fold
from gateway.streams.schema import METRIC_PARTS, METRICS, PARTITIONS
from gateway.streams.table import CommitFailed, LakeTable
from routing.records import MetricBlock, MinuteRow, QualityBlock, QualityRow
from tests.kit.spooled import START_UNIX_US, Place, encode, shadows

MINUTE_S = START_UNIX_US // 60_000_000 * 60
OVER_US = (MINUTE_S + 60 + 10) * 1_000_000


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def minute(at=0, requests=10, **fields):
    plain = {"endpoint": "phishing", "variant": "champion", "model": "m", "version": "1"}
    counted = {
        "requests": requests,
        "errors": 1,
        "rows": requests,
        "latency_sum_s": 0.5,
        "latency_buckets": [requests, 2],
    }
    return MinuteRow(**{**plain, **counted, "minute_unix_s": MINUTE_S + 60 * at, **fields})


def look(at=0, labelled=7, **measures):
    return QualityRow("phishing", "live", "champion", "m", "1", MINUTE_S + 60 * at, labelled, measures, {"age": 0.2})


def spool(place, writer, *blocks):
    made = place.writer(writer)
    made.append(encode(*blocks))
    made.close()


class Clock:
    def __init__(self):
        self.us = OVER_US

    def __call__(self):
        return self.us


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def taken(place, clock):
    """Brings blocks of a writer to the lake and folds; the rows that are there then."""
    lake = place.lake()
    lake._clock_us = clock

    def take(writer, *blocks, everything=False):
        spool(place, writer, *blocks)
        while lake.read():
            assert lake.commit(), lake.failure
        assert lake.commit(), lake.failure
        lake.fold(everything=everything)
        return metrics(place)

    yield take
    lake.close()


def metrics(place):
    rows = DeltaTable(f"{place.uri}/metrics").to_pyarrow_dataset().to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["minute"], row["role"], row["variant"]))


def test_what_all_workers_and_control_tell_of_a_minute_is_one_row(place, taken):
    taken("worker-1", MetricBlock([minute(), minute(variant="b")]))
    other, champion = taken("worker-2", MetricBlock([minute(requests=5)]), QualityBlock([look(accuracy=0.9)]))
    assert (champion["requests"], champion["errors"], champion["rows"]) == (15, 2, 15)
    assert (champion["latency_sum_s"], champion["latency_buckets"]) == (1.0, [15, 4])
    assert (champion["labelled"], champion["accuracy"], champion["auc"]) == (7, 0.9, None)
    assert (champion["drift_psi_max"], champion["drift_input"], dict(champion["drift_psi"])) == (
        0.2,
        "age",
        {"age": 0.2},
    )
    assert (other["requests"], other["variant"], other["accuracy"]) == (10, "b", None)


def test_a_minute_that_is_not_over_waits_and_then_is_there_once(place, taken, clock):
    clock.us -= 1_000_000 * 11
    assert taken("worker-1", MetricBlock([minute()])) == []
    assert taken("worker-2", MetricBlock([minute(-1)]))[0]["requests"] == 10
    clock.us = OVER_US
    assert [row["requests"] for row in taken("worker-3", MetricBlock([minute(5)]))] == [10, 10]


def test_a_minute_far_ahead_waits_for_its_time_and_holds_up_no_other(place, taken, clock, monkeypatch):
    ahead = 60 * 24 * 365
    assert taken("worker-1", MetricBlock([minute(ahead)]), everything=True) == []
    monkeypatch.setattr(LakeTable, "replace", lambda *_: pytest.fail("every fold would rewrite the day from then on"))
    assert [row["requests"] for row in taken("worker-2", MetricBlock([minute()]))] == [10]
    clock.us += 60_000_000
    assert [row["requests"] for row in taken("worker-3", MetricBlock([minute(1)]))] == [10, 10]
    clock.us += ahead * 60_000_000
    assert [row["requests"] for row in taken("worker-4", MetricBlock([minute(ahead, requests=5)]))] == [10, 10, 15]


def test_what_comes_late_is_added_to_the_row_and_nothing_else_of_its_day_changes(place, taken):
    before = taken("worker-1", MetricBlock([minute(), minute(-1), minute(endpoint="other")]), QualityBlock([look()]))
    after = taken("worker-2", MetricBlock([minute(requests=3)]))
    assert [row["requests"] for row in after] == [10, 13, 10]
    added = next(row for row in after if row["requests"] == 13)
    assert (added["labelled"], added["latency_buckets"]) == (7, [13, 4])
    assert added["sequence"] > max(row["sequence"] for row in before), "sinks take it once more"
    untouched = [row for row in after if row["requests"] == 10]
    assert all(row in before for row in untouched)


def test_what_a_mirror_did_and_dropped_is_one_row_too(place, taken):
    told = msgspec.structs.replace(shadows([0, 1], ["1", "1"], ["1", "0"]), dropped={"late": 2, "full": 1})
    more = msgspec.structs.replace(shadows([2], ["1"], ["1"]), dropped={"late": 1})
    taken("shadow-1", told)
    (row,) = taken("shadow-2", more)
    assert (row["role"], row["requests"], row["compared"], row["agreed"]) == ("mirror", 3, 3, 2)
    assert (row["dropped"], dict(row["dropped_by"])) == (4, {"late": 3, "full": 1})


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_portions_parts_come_the_sums_are_the_same(place, taken, clock, seed):
    chance = random.Random(seed)
    told = [(f"worker-{n}", minute(chance.randint(0, 3), requests=n, variant=chance.choice("ab"))) for n in range(12)]
    for writer, one in told:
        clock.us = OVER_US + chance.randint(-1, 5) * 60_000_000
        taken(writer, MetricBlock([one]))
    clock.us = (MINUTE_S + 9 * 60 + 1) * 1_000_000
    found = taken("worker-last", MetricBlock([minute(9)]), everything=True)
    wanted = {}
    for _, one in [*told, ("worker-last", minute(9))]:
        key = one.variant, one.minute_unix_s
        wanted[key] = wanted.get(key, 0) + one.requests
    assert {(row["variant"], int(row["minute"].timestamp())): row["requests"] for row in found} == wanted
    assert len(found) == len(wanted)


@pytest.mark.parametrize("again", [False, True])
def test_a_fold_that_was_overtaken_or_whose_reply_was_lost_adds_nothing_twice(place, taken, again):
    taken("worker-1", MetricBlock([minute()]))
    spool(place, "worker-2", MetricBlock([minute(0 if again else 1)]))
    lake = place.lake()
    assert lake.read()
    assert lake.commit()
    lake.close()
    pair = ("metric_parts", METRIC_PARTS), ("metrics", METRICS)
    one, two = ([LakeTable(f"{place.uri}/{name}", schema, PARTITIONS) for name, schema in pair] for _ in range(2))
    late = OVER_US + 3_600_000_000
    assert fold(*one, late, lambda: 100) == (0 if again else 1)
    with pytest.raises(CommitFailed):
        fold(*two, late, lambda: 100)
    two[1].reload()
    assert fold(*two, late, lambda: 100) == 0
    assert sum(row["requests"] for row in metrics(place)) == 20


def test_polars_reads_the_rows_with_their_maps(place, taken):
    taken("worker-1", MetricBlock([minute()]), QualityBlock([look()]))
    taken("worker-2", MetricBlock([minute()]))
    found = pl.read_delta(f"{place.uri}/metrics")
    assert found["requests"].to_list() == [20]
    assert found["minute"].to_list() == [dt.datetime.fromtimestamp(MINUTE_S, dt.UTC)]
