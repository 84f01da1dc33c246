import numpy as np
import pytest

from gateway.streams.arrow import BlockInvalid
from gateway.streams.predictions import tables
from gateway.streams.schema import PREDICTIONS, Naming
from models.signature import Answer
from routing.records import Column
from tests.kit.spooled import BINARY, pid_text, predictions, request


def converted(*blocks, answers=lambda _: BINARY):
    return tables(blocks, Naming(PREDICTIONS), answers)


def one(*blocks, **options):
    (found,) = converted(*blocks, **options)
    return found.to_pylist()


def test_every_input_row_is_a_row_with_its_place_and_its_request():
    rows = one(predictions([request(0, rows=2), request(1), request(2, rows=3)], [0.9, 0.2, 0.8, 0.1, 0.6, 0.4]))
    assert [(row["prediction_id"], row["row"], row["rows"]) for row in rows] == [
        *((pid_text(0), place, 2) for place in range(2)),
        (pid_text(1), 0, 1),
        *((pid_text(2), place, 3) for place in range(3)),
    ]
    assert [row["input_x"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["output_label"] for row in rows] == [1, 0, 1, 0, 1, 0]
    assert [row["answer_label"] for row in rows] == list("101010")
    assert [row["answer_score"] for row in rows] == pytest.approx([0.9, 0.2, 0.8, 0.1, 0.6, 0.4])


def test_the_base_columns_come_first_in_their_types_whatever_was_recorded():
    for block in (predictions([request(0)], [0.5]), predictions([request(0, answered=-1)], inputs=[])):
        (found,) = converted(block)
        assert found.schema.names[: len(PREDICTIONS)] == PREDICTIONS.names
        assert all(found.schema.field(field.name).type == field.type for field in PREDICTIONS)


def test_blocks_of_one_form_are_one_table_in_order_and_others_are_apart():
    wide = [Column("x", "FP32", (2,), np.zeros(2, "<f4").tobytes())]
    found = converted(
        predictions([request(0)], [0.5]),
        predictions([request(1)], [0.5], inputs=wide),
        predictions([request(2)], [0.5]),
        predictions([request(3)], [0.5], version="2"),
        predictions([request(4)]),
    )
    ids = [table["prediction_id"].to_pylist() for table in found]
    assert ids == [[pid_text(n) for n in numbers] for numbers in ((0, 2), (1,), (3,), (4,))]
    assert found[1]["input_x__FP32"].to_pylist() == [[0.0, 0.0]]


def test_a_failure_has_no_output_no_answer_and_nobody_who_gave_it():
    (row,) = one(predictions([request(0, answered=-1, status=500, code="model_failed")]))
    assert (row["status"], row["code"], row["assigned"], row["variant"]) == (500, "model_failed", "champion", None)
    assert (row["answer_label"], row["answer_score"], row["fallback"]) == (None, None, False)


@pytest.mark.parametrize(
    ("assigned", "answered", "block", "is_fallback"),
    [
        (0, 0, {}, False),
        (1, 0, {}, True),
        (1, -1, {}, False),
        (0, 0, {"fallback_of": "phishing/2"}, True),
    ],
)
def test_a_fallback_is_an_answer_of_another_than_was_assigned(assigned, answered, block, is_fallback):
    (row,) = one(predictions([request(0, assigned=assigned, answered=answered)], [0.5], **block))
    assert (row["fallback"], row["fallback_of"]) == (is_fallback, block.get("fallback_of"))


def test_numbers_of_the_record_are_words_in_the_lake():
    rows = one(
        predictions(
            [
                request(0, assigned_by=1, protocol=1, rule="staff", trace_id=bytes(15) + b"\xab", unit="u"),
                request(1, assigned_by=2, protocol=3, propensity=None, unit_missing=True, experiment=False),
            ],
            [0.5, 0.5],
        )
    )
    names = ("assigned_by", "protocol", "rule", "trace_id", "unit", "unit_missing", "experiment", "propensity")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("rule", "v2-grpc", "staff", "0" * 30 + "ab", "u", False, True, 0.5),
        ("pin", "tf", None, None, None, True, False, None),
    ]


def test_without_a_manifest_outputs_are_kept_and_not_read():
    (row,) = one(predictions([request(0)], [0.9]), answers=lambda _: None)
    assert (row["output_label"], row["answer_label"], row["answer_score"]) == (1, None, None)


def test_the_answer_is_read_as_the_manifest_of_the_blocks_own_model_says():
    asked = []
    (row,) = one(
        predictions([request(0)], [0.75]),
        answers=lambda digest: (asked.append(digest), Answer(kind="classification", label_output="label"))[1],
    )
    assert (asked, row["answer_label"], row["answer_score"]) == (["d1"], "1", None)


def test_inputs_that_were_not_recorded_are_told_by_their_digest():
    hashed = [Column("x", "FP32", (1,), None)]
    found = converted(
        predictions([request(0, rows=2), request(1)], [0.5] * 3, inputs=hashed, inputs_digest=["aa", "bb"])
    )
    assert "input_x" not in found[0].schema.names
    assert found[0]["inputs_digest"].to_pylist() == ["aa", "aa", "bb"]


@pytest.mark.parametrize(
    "block",
    [
        predictions([request(0), request(1)], [0.5, 0.5], inputs_digest=["aa"]),
        predictions([request(0, rows=2)], [0.5, 0.5], inputs=[Column("x", "FP32", (1,), b"\0" * 12)]),
        predictions([request(0), request(1, prediction_id=b"short")], [0.5, 0.5]),
    ],
    ids=["digests", "data", "id"],
)
def test_a_block_that_does_not_add_up_is_refused(block):
    with pytest.raises(BlockInvalid):
        converted(block)


def test_nothing_is_no_table():
    assert converted() == []
