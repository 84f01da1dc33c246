import msgspec
import numpy as np
import pytest

from gateway.streams.arrow import BlockInvalid
from gateway.streams.schema import SHADOWS, Naming
from gateway.streams.shadows import tables
from routing.records import Column
from tests.kit.spooled import pid_text, shadows


def converted(*blocks):
    return tables(blocks, Naming(SHADOWS))


def changed(block, **fields):
    return msgspec.structs.replace(block, **fields)


def grown(block, rows):
    """The same block with so many rows in each of its requests."""
    requests = [changed(request, rows=count) for request, count in zip(block.requests, rows, strict=True)]
    return changed(block, requests=requests)


def test_production_and_mirror_stand_side_by_side():
    (found,) = converted(
        shadows([0, 1], ["1", "0"], ["1", None], live_scores=[0.9, 0.2], scores=[0.7, None], units=["u", None])
    )
    names = (
        "prediction_id",
        "mirror",
        "live_variant",
        "unit",
        "live_label",
        "live_score",
        "answer_label",
        "answer_score",
    )
    assert [tuple(row[name] for name in names) for row in found.to_pylist()] == [
        (pid_text(0), "candidate", "champion", "u", "1", 0.9, "1", 0.7),
        (pid_text(1), "candidate", "champion", None, "0", 0.2, None, None),
    ]
    assert found.schema.names[: len(SHADOWS)] == SHADOWS.names


def test_every_input_row_has_an_answer_of_its_own():
    block = grown(shadows([0, 1], ["1", "0"], ["1", "0"]), (2, 1))
    block = changed(
        block, labels=["a", "b", "c"], live_labels=["x", "y", "z"], scores=[0.1, 0.2, 0.3], live_scores=[None] * 3
    )
    (found,) = converted(block)
    names = ("prediction_id", "row", "rows", "answer_label", "live_label", "answer_score")
    assert [tuple(row[name] for name in names) for row in found.to_pylist()] == [
        (pid_text(0), 0, 2, "a", "x", 0.1),
        (pid_text(0), 1, 2, "b", "y", 0.2),
        (pid_text(1), 0, 1, "c", "z", 0.3),
    ]


def test_answers_that_a_block_leaves_out_are_null_and_do_not_shift_those_of_the_next():
    silent = changed(shadows([0, 1], [], [], outcome="timeout"), labels=[], scores=[], live_labels=[], live_scores=[])
    (found,) = converted(silent, shadows([2], ["1"], ["0"]))
    assert found["answer_label"].to_pylist() == [None, None, "0"]
    assert found["live_label"].to_pylist() == [None, None, "1"]
    assert found["outcome"].to_pylist() == ["timeout", "timeout", "recorded"]


def test_each_row_names_the_mirror_frame_that_it_came_from():
    first, second = shadows([0, 1], ["1"] * 2, ["1"] * 2), shadows([2], ["1"], ["1"])
    second = changed(second, source_writer="worker-2", source_sequence=40)
    (found,) = converted(first, second)
    assert list(zip(found["source_writer"].to_pylist(), found["source_sequence"].to_pylist(), strict=True)) == [
        ("worker-1", 1),
        ("worker-1", 1),
        ("worker-2", 40),
    ]


def test_each_pair_of_versions_and_each_form_is_a_table():
    outputs = [Column("p", "FP32", (), np.array([0.5], "<f4").tobytes())]
    first = shadows([0], ["1"], ["1"])
    found = converted(
        first,
        shadows([1], ["1"], ["1"], name="other"),
        changed(first, live_version="9"),
        changed(first, outputs=outputs),
        shadows([4], ["1"], ["1"]),
    )
    assert [(table.num_rows, "output_p" in table.schema.names) for table in found] == [
        (2, False),
        (1, False),
        (1, False),
        (1, True),
    ]


@pytest.mark.parametrize("field", ["labels", "scores", "live_labels", "live_scores"])
def test_answers_that_are_not_one_a_row_are_refused_by_name(field):
    value = [0.5] if "scores" in field else ["1"]
    block = changed(shadows([0, 1], ["1", "0"], ["1", "0"]), **{field: value})
    with pytest.raises(BlockInvalid, match=f"^{field}: wanted 2, one a row, got 1"):
        converted(block)


def test_a_block_that_only_tells_of_drops_is_no_row():
    assert converted(changed(shadows([0], [], []), requests=[], dropped={"late": 3})) == []
