import pytest

from gateway.streams.labels import apart, number, rows, text
from gateway.streams.schema import SENSITIVE_LABELS
from routing.records import SensitiveLabelBlock
from tests.kit.spooled import label, labels, pid_text


@pytest.mark.parametrize(
    ("value", "as_text", "as_number"),
    [
        (1, "1", 1.0),
        (1.0, "1", 1.0),
        (0.5, "0.5", 0.5),
        (True, "true", 1.0),
        ("2.5", "2.5", 2.5),
        ("spam", "spam", None),
        ("nan", "nan", None),
        ([1, "a"], '[1,"a"]', None),
        (10**400, str(10**400), None),
    ],
)
def test_a_label_is_text_and_where_it_can_be_a_number(value, as_text, as_number):
    assert (text(value), number(value)) == (as_text, as_number)


def test_ids_and_request_ids_stand_in_their_own_columns():
    found = rows(
        [labels(label(1, "a"), label(None, "b", endpoint="e", request_id="r")), labels(label(2, None, keyed=True))],
    ).to_pylist()
    assert [row["prediction_id"] for row in found] == [pid_text(1), None, pid_text(2)]
    assert [row["request_id"] for row in found] == [None, "r", None]
    assert [row["retracted"] for row in found] == [False, False, True]
    assert [row["keyed"] for row in found] == [False, False, True]


def test_attributes_are_json():
    (found,) = rows([labels(label(1, 1, attributes={"by": "ann", "n": 2}))]).to_pylist()
    assert found["attributes"] == '{"by":"ann","n":2}'


def test_no_labels_are_no_rows():
    assert rows([labels()]) is None


def test_sensitive_attributes_are_rows_of_a_table_of_their_own():
    kept = [
        label(3, None, attributes={"origin": "east"}),
        label(None, None, endpoint="e", request_id="r", attributes={"n": 1}),
    ]
    found = apart([SensitiveLabelBlock(kept)])
    assert found.schema.equals(SENSITIVE_LABELS)
    assert found.select(["prediction_id", "endpoint", "request_id", "attributes"]).to_pylist() == [
        {"prediction_id": pid_text(3), "endpoint": None, "request_id": None, "attributes": '{"origin":"east"}'},
        {"prediction_id": None, "endpoint": "e", "request_id": "r", "attributes": '{"n":1}'},
    ]
    assert apart([]) is None
