import json

import pyarrow as pa

from gateway.streams.messages import messages


def test_rows_are_messages_in_their_order_with_what_they_are_about_and_without_nulls():
    rows = pa.table(
        {
            "sequence": [4, 5, 6],
            "prediction_id": ["p", None, None],
            "request_id": ["r", "r", None],
            "endpoint": ["phishing", "phishing", "phishing"],
            "label_number": [1.0, None, 0.5],
        }
    )
    (found,) = messages("labels", rows)
    assert [one.id for one in found] == ["labels:4", "labels:5", "labels:6"]
    assert [one.key for one in found] == ["p", "r", "phishing"]
    assert json.loads(found[1].value) == {"sequence": 5, "request_id": "r", "endpoint": "phishing"}


def test_few_rows_are_python_objects_at_once():
    sizes = [len(some) for some in messages("labels", pa.table({"sequence": list(range(600))}))]
    assert (sum(sizes), max(sizes)) == (600, 256)
