import datetime as dt

import duckdb
import msgspec
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from gateway.streams.letters import Letter
from gateway.streams.upkeep import cutoff, expire, forget
from routing.records import MetricBlock, MinuteRow, SensitiveLabelBlock
from routing.traffic import Retention
from tests.kit.spooled import (
    START_UNIX_US,
    Place,
    apart,
    encode,
    label,
    labels,
    pid_text,
    predictions,
    request,
    shadows,
)

HOUR, DAY = 3600, 86_400


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def held(place):
    """The tables and dead letters as the lake's own thread holds them, opened when they are asked for."""

    def opened():
        lake = place.lake()
        return lake._tables, lake._letters

    return opened


def at(number, seconds):
    """A request that came so many seconds after the start; its id says the same."""
    stamp = (START_UNIX_US // 1000 + seconds * 1000).to_bytes(6, "big")
    key = stamp + b"\x70\x00\x80\x00" + number.to_bytes(6, "big")
    return request(number, prediction_id=key, received_unix_us=START_UNIX_US + seconds * 1_000_000)


def ids(place, table):
    found = DeltaTable(f"{place.uri}/{table}").to_pyarrow_dataset().to_table(columns=["prediction_id"])
    return sorted(found["prediction_id"].to_pylist())


def now(seconds):
    return START_UNIX_US + seconds * 1_000_000


def test_rows_past_the_retention_of_their_route_go_and_no_others(place, held):
    old, new = at(1, 0), at(2, 90 * 60)
    other = predictions([at(3, 0)], [0.5], endpoint="other")
    ours = [label(None, 1, prediction_id=row.prediction_id) for row in (old, new)]
    place.store(predictions([old, new], [0.5, 0.5]), other, labels(*ours))
    deleted = expire(*held(), {"phishing": Retention(HOUR), "other": Retention(10 * DAY)}, now(2 * HOUR))
    assert (deleted["predictions"], deleted["labels"]) == (1, 1)
    assert len(ids(place, "predictions")) == 2
    assert len(ids(place, "labels")) == 1
    assert not any(expire(*held(), {"phishing": Retention(HOUR), "other": Retention(10 * DAY)}, now(2 * HOUR)).values())


def test_long_retention_drops_whole_days(place, held):
    place.store(predictions([at(n, n * DAY) for n in range(5)], [0.5] * 5), shadows([0], ["1"], ["1"]))
    start = dt.datetime.fromtimestamp(START_UNIX_US / 1e6, dt.UTC)
    midnight_s = DAY - (start - start.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    assert expire(*held(), {"phishing": Retention(2 * DAY)}, now(2 * DAY + midnight_s - 60))["predictions"] == 0
    deleted = expire(*held(), {"phishing": Retention(2 * DAY)}, now(2 * DAY + midnight_s + 60))
    assert (deleted["predictions"], deleted["shadows"]) == (1, 1)


def test_a_label_without_a_prediction_stays_as_long_as_the_longest_retention(place, held):
    place.store(labels(label(5, 1), label(None, 0, endpoint="phishing", request_id="r1")))
    kept = {"phishing": Retention(HOUR), "other": Retention(3 * DAY)}
    assert expire(*held(), kept, now(2 * HOUR))["labels"] == 1  # the one by request id, an hour after its receipt
    assert ids(place, "labels") == [pid_text(5)]
    assert expire(*held(), kept, now(5 * DAY))["labels"] == 1


def minute(endpoint="phishing"):
    return MinuteRow(endpoint, "champion", "m", "1", START_UNIX_US // 1_000_000, 1, 0, 1, 0.1, [1])


def test_minutes_stay_for_a_year_or_as_long_as_their_route_says_and_endpoints_without_a_route_for_ever(place, held):
    endpoints = ("phishing", "brief", "long", "unknown")
    place.store(MetricBlock([minute(name) for name in endpoints]), predictions([at(1, 0)], [0.5], endpoint="unknown"))
    kept = {name: Retention(HOUR, (("metrics", days * DAY),)) for name, days in (("brief", 5), ("long", 3650))}
    kept["phishing"] = Retention(HOUR)
    assert expire(*held(), kept, now(4 * DAY))["metrics"] == 0
    assert expire(*held(), kept, now(7 * DAY))["metrics"] == 1
    assert expire(*held(), kept, now(399 * DAY))["metrics"] == 0
    deleted = expire(*held(), kept, now(402 * DAY))
    assert (deleted["metrics"], deleted["predictions"]) == (1, 0)
    left = DeltaTable(f"{place.uri}/metrics").to_pyarrow_dataset().to_table(columns=["endpoint"])
    assert sorted(left["endpoint"].to_pylist()) == ["long", "unknown"]


def test_every_table_goes_by_its_own_retention(place, held):
    numbers, days = range(1, 6), (0, 3, 6, 9, 12)
    requests = [at(number, day * DAY) for number, day in zip(numbers, days, strict=True)]
    about = [label(None, 1, prediction_id=row.prediction_id, attributes={"origin": "a"}) for row in requests]
    mirrored = shadows(list(numbers), ["1"] * 5, ["1"] * 5)
    for row, of in zip(mirrored.requests, requests, strict=True):
        row_at = msgspec.structs.replace(row, received_unix_us=of.received_unix_us, prediction_id=of.prediction_id)
        mirrored.requests[mirrored.requests.index(row)] = row_at
    aside = apart(list(numbers), ["f"] * 5)
    aside.received_unix_us[:] = [row.received_unix_us for row in requests]
    place.store(predictions(requests, [0.5] * 5), mirrored, aside, labels(*about), SensitiveLabelBlock(about))
    by_table = {"shadows": 2, "labels": 8, "sensitive": 5, "sensitive_labels": 3}
    kept = {"phishing": Retention(11 * DAY, tuple((name, days * DAY) for name, days in by_table.items()))}
    deleted = expire(*held(), kept, now(14 * DAY))
    left = {name: len(DeltaTable(f"{place.uri}/{name}").to_pyarrow_table()) for name in ("predictions", *by_table)}
    assert left == {"predictions": 4, "shadows": 1, "labels": 3, "sensitive": 2, "sensitive_labels": 1}
    assert {name: deleted[name] for name in left} == {name: 5 - rows for name, rows in left.items()}
    assert not any(expire(*held(), kept, now(14 * DAY)).values())


def test_labels_that_go_before_their_predictions_take_no_labels_of_others(place, held):
    ours, theirs = [at(n, n * DAY) for n in (1, 2, 3)], [at(n, n * DAY) for n in (11, 12)]
    told = [label(None, 1, prediction_id=row.prediction_id) for row in (*ours, *theirs)]
    orphan = label(None, 1, prediction_id=at(20, 0).prediction_id)
    place.store(predictions(ours, [0.5] * 3), predictions(theirs, [0.5] * 2, endpoint="other"), labels(*told, orphan))
    kept = {"phishing": Retention(90 * DAY, (("labels", 30 * DAY),)), "other": Retention(60 * DAY)}
    assert expire(*held(), kept, now(45 * DAY))["labels"] == 3
    assert expire(*held(), kept, now(65 * DAY))["labels"] == 1  # the one that is of no prediction
    deleted = expire(*held(), kept, now(75 * DAY))
    assert (deleted["labels"], deleted["predictions"]) == (2, 2)
    assert len(ids(place, "predictions")) == 3


def test_labels_that_go_before_their_predictions_are_looked_for_once_a_cutoff(place, held):
    old = at(1, 0)
    late = labels(label(None, 1, prediction_id=old.prediction_id))
    place.store(predictions([old], [0.5]), late)
    others, looked = {"other": Retention(90 * DAY)}, {}
    kept = {"phishing": Retention(90 * DAY, (("labels", 5 * DAY),)), **others}
    assert expire(*held(), kept, now(9 * DAY), looked)["labels"] == 1
    place.store(late, writer="worker-2")
    assert expire(*held(), kept, now(9 * DAY) + 60, looked)["labels"] == 0
    assert expire(*held(), kept, now(10 * DAY), looked)["labels"] == 1
    place.store(late, writer="worker-3")
    with_their_predictions = {"phishing": Retention(5 * DAY), **others}
    assert expire(*held(), with_their_predictions, now(10 * DAY), looked)["labels"] == 1


def test_a_unit_is_found_wherever_its_rows_are_still_kept(place, held):
    """Its predictions are gone by then, what mirrors answered and their labels are not."""
    gone = msgspec.structs.replace(at(1, 0), unit="ann")
    place.store(predictions([gone], [0.5]), shadows([1], ["1"], ["1"], units=["ann"]))
    kept = {"phishing": Retention(2 * DAY, (("shadows", 90 * DAY),))}
    deleted = expire(*held(), kept, now(9 * DAY))
    assert (deleted["predictions"], deleted["shadows"]) == (1, 0)
    assert forget(*held(), ["ann"])["shadows"] == 1


def test_whole_days_begin_at_midnight():
    assert cutoff(now(0), HOUR).timestamp() == START_UNIX_US / 1e6 - HOUR
    assert cutoff(now(0), 2 * DAY).time() == dt.time(0)


def test_a_forgotten_unit_leaves_no_row_of_it_and_takes_no_other(place, held):
    rows = [request(n, unit="gone" if n % 2 else "kept", request_id=f"r{n}") for n in range(6)]
    place.store(
        predictions(rows, [0.5] * 6),
        shadows(list(range(6)), ["1"] * 6, ["1"] * 6, units=["gone" if n % 2 else "kept" for n in range(6)]),
        labels(*[label(n, 1) for n in range(4)], label(None, 1, endpoint="phishing", request_id="r5")),
    )
    deleted = forget(*held(), ["gone"])
    assert deleted == {
        "sensitive": 0,
        "predictions": 3,
        "shadows": 3,
        "labels": 3,
        "sensitive_labels": 0,
        "dead_letters": 0,
    }
    kept = [pid_text(n) for n in (0, 2, 4)]
    assert ids(place, "predictions") == ids(place, "shadows") == kept
    assert ids(place, "labels") == kept[:2]
    assert not any(forget(*held(), ["gone"]).values())


def test_one_handle_forgets_again_and_again_and_goes_on_expiring(place, held):
    """A merge leaves a handle whose statistics no filter on texts can be compared with."""
    rows = [request(n, unit=f"unit-{n}", request_id=f"r{n}") for n in range(6)]
    place.store(predictions(rows, [0.5] * 6), labels(*[label(n, 1) for n in range(6)]))
    same = held()
    assert [forget(*same, [f"unit-{n}"])["predictions"] for n in (1, 2, 1)] == [1, 1, 0]
    deleted = expire(*same, {"phishing": Retention(HOUR)}, now(3 * HOUR))
    assert (deleted["predictions"], deleted["labels"]) == (4, 4)
    assert not any(forget(*same, ["unit-3"]).values())


def test_what_was_rewritten_is_read_by_filters_on_texts_as_before(place, held):
    """Delta's own DELETE and MERGE leave files whose texts pyarrow cannot compare."""
    rows = [request(n, unit=f"unit-{n}") for n in range(4)]
    place.store(predictions(rows, [0.5] * 4), labels(*[label(n, 1) for n in range(4)]))
    forget(*held(), ["unit-1"])
    for table in ("predictions", "labels"):
        dataset = DeltaTable(f"{place.uri}/{table}").to_pyarrow_dataset()
        assert dataset.count_rows(filter=pc.field("prediction_id") == pid_text(2)) == 1
        with duckdb.connect() as connection:
            connection.register("t", dataset)
            asked = connection.execute("SELECT count(*) FROM t WHERE prediction_id = ?", [pid_text(1)])
            assert asked.fetchone() == (0,)


def test_the_log_of_the_table_does_not_name_who_was_forgotten(place, held):
    place.store(predictions([request(1, unit="jane@example.org")], [0.5]))
    forget(*held(), ["jane@example.org"])
    assert "jane" not in str(DeltaTable(f"{place.uri}/predictions").history(1))


def test_rows_are_written_once_also_after_others_were_deleted(place, held):
    place.store(predictions([request(1, unit="gone"), request(2)], [0.5, 0.5]))
    forget(*held(), ["gone"])
    place.store(predictions([request(3)], [0.5]), writer="worker-2")
    assert ids(place, "predictions") == [pid_text(2), pid_text(3)]


def test_what_is_kept_apart_of_labels_goes_with_them(place, held):
    theirs, old = at(1, 0), at(2, 0)
    theirs = msgspec.structs.replace(theirs, unit="ann", request_id="r-1")
    rows = [
        label(None, None, prediction_id=theirs.prediction_id, attributes={"origin": "a"}),
        label(None, None, endpoint="phishing", request_id="r-1", attributes={"origin": "b"}),
        label(None, None, prediction_id=old.prediction_id, attributes={"origin": "c"}),
    ]
    new = label(None, None, prediction_id=at(3, 90 * 60).prediction_id, attributes={"origin": "d"})
    place.store(predictions([theirs, old], [0.5, 0.5]), SensitiveLabelBlock([*rows, new]))
    assert forget(*held(), ["ann"])["sensitive_labels"] == 2
    assert expire(*held(), {"phishing": Retention(HOUR)}, now(2 * HOUR))["sensitive_labels"] == 1
    found = DeltaTable(f"{place.uri}/sensitive_labels").to_pyarrow_dataset().to_table(columns=["attributes"])
    assert found["attributes"].to_pylist() == ['{"origin":"d"}']


def test_a_forgotten_unit_is_in_no_dead_letter_either(place, held):
    """Also where its prediction is in no table, because that frame is the letter."""
    place.store(predictions([request(0, unit="ann-0123")], [0.5]), predictions([request(1, unit="bob")], [0.5]))
    frames = encode(
        predictions([request(7, unit="ann-0123")]), labels(label(0, 1)), predictions([request(8, unit="annabel")])
    )
    for sequence, frame in enumerate(frames):
        letter = Letter(writer="w", sequence=sequence, reason="why", table=None, at_unix_us=START_UNIX_US)
        place.letters.put(letter, frame)
    assert place.letters.deliver()
    assert forget(*held(), ["ann-0123"])["dead_letters"] == 2
    assert forget(*held(), ["ann"])["dead_letters"] == 0
