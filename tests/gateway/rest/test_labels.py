import json

import pytest

from gateway.errors import RequestMalformed
from gateway.rest.labels import LABELS_MAX, decode

ID = "018f0000-0000-7000-8000-00000000002a"
NOW_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000


def one(**fields):
    return decode(json.dumps({"prediction_id": ID, "label": 1, **fields}).encode(), NOW_US, keyed=True)


@pytest.mark.parametrize("label", [1, 0.5, "spam", True, None, [1, "a", False]])
def test_every_kind_of_label_is_taken_as_it_is(label):
    (row,), rejected = one(label=label)
    assert not rejected
    assert row.label == label
    assert type(row.label) is type(label)
    assert (row.received_unix_us, row.keyed, row.prediction_id[-1]) == (NOW_US, True, 42)


def test_the_time_of_the_truth_is_kept_to_the_microsecond_in_any_zone():
    (row,), _ = one(at="2026-01-01T01:00:00.000001+01:00", row=3, attributes={"source": "audit", "n": None})
    assert row.at_unix_us == 1_767_225_600_000_001
    assert row.row == 3
    assert row.attributes == {"source": "audit", "n": None}


def test_a_label_may_name_endpoint_and_request_instead():
    (row,), _ = decode(b'[{"endpoint": "e", "request_id": "r-1", "label": 1}]', 0, keyed=False)
    assert (row.prediction_id, row.endpoint, row.request_id) == (None, "e", "r-1")


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"prediction_id": ID}, "label_missing"),
        ({"label": 1}, "reference_missing"),
        ({"label": 1, "endpoint": "e"}, "reference_missing"),
        ({"label": 1, "prediction_id": ID, "endpoint": "e", "request_id": "r"}, "reference_ambiguous"),
        ({"label": 1, "prediction_id": "nope"}, "prediction_id_invalid"),
        ({"label": 1, "prediction_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427"}, "prediction_id_invalid"),
        ({"label": 1, "prediction_id": "f18f0000-0000-7000-8000-00000000002a"}, "prediction_id_in_future"),
        ({"label": 1, "endpoint": "e", "request_id": "a b"}, "request_id_invalid"),
        ({"label": 1, "endpoint": "../e", "request_id": "r"}, "label_invalid"),
        ({"label": {"a": 1}, "prediction_id": ID}, "label_invalid"),
        ({"label": "x" * 1025, "prediction_id": ID}, "label_invalid"),
        ({"label": [1] * 1001, "prediction_id": ID}, "label_invalid"),
        ({"label": 1, "prediction_id": ID, "at": "2026-01-01T00:00:00"}, "label_invalid"),
        ({"label": 1, "prediction_id": ID, "row": -1}, "label_invalid"),
        ({"label": 1, "prediction_id": ID, "rows": 0}, "label_invalid"),
        (5, "label_invalid"),
    ],
)
def test_one_bad_label_is_rejected_alone(item, code):
    good = {"prediction_id": ID, "label": 1}
    rows, rejected = decode(json.dumps([good, item, good]).encode(), NOW_US, keyed=False)
    assert len(rows) == 2
    assert [(one.index, one.code) for one in rejected] == [(1, code)]


@pytest.mark.parametrize(("ahead_us", "accepted"), [(-DAY_US, 1), (DAY_US, 1), (DAY_US + 1000, 0)])
def test_an_id_of_the_future_is_refused_and_a_clock_that_is_a_day_off_costs_no_label(ahead_us, accepted):
    digits = f"{(NOW_US + ahead_us) // 1000:012x}"
    body = {"prediction_id": f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000", "label": 1}
    rows, rejected = decode(json.dumps(body).encode(), NOW_US, keyed=False)
    assert (len(rows), len(rejected)) == (accepted, 1 - accepted)
    if rejected:
        assert rejected[0].message.endswith("at most a day after now, got one of 1.0 days after now")


@pytest.mark.parametrize("body", [b"", b"5", b"[", b'[{"label": NaN}]', b"[" + b"1," * LABELS_MAX + b"1]"])
def test_a_body_that_is_not_labels_is_refused_as_a_whole(body):
    with pytest.raises(RequestMalformed):
        decode(body, 0, keyed=False)


async def test_the_reply_follows_the_spool(client, sink):
    sent = await client.post("/v1/labels", json=[{"prediction_id": ID, "label": 1}, {"label": 1}])
    assert sent.status_code == 202
    assert sent.json()["accepted"] == len(sink.rows) == 1
    assert sent.json()["rejected"][0]["index"] == 1
    all_rejected = await client.post("/v1/labels", json={"label": 1})
    assert (all_rejected.status_code, all_rejected.json()["accepted"]) == (202, 0)


async def test_a_closed_spool_is_503(client, sink):
    sink.is_closed = True
    sent = await client.post("/v1/labels", json={"prediction_id": ID, "label": 1})
    assert sent.status_code == 503
    assert sent.headers["retry-after"] == "1"
    assert sent.headers["x-runoff-reason"] == "spool_closed"


async def test_labels_are_json_and_come_from_this_machine_unless_keyed(client, stranger, sink):
    sent = await client.post("/v1/labels", content=b"a,b", headers={"content-type": "text/csv"})
    assert (sent.status_code, sent.json()["code"]) == (415, "media_type_unsupported")
    assert (await stranger.post("/v1/labels", json={"prediction_id": ID, "label": 1})).status_code == 403
    assert not sink.rows
