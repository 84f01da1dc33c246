"""A model stands behind an endpoint when it needs no more and answers alike; each difference is one readable sentence."""

from typing import Any

import msgspec
import pytest

from models.compatibility import differences, ignored
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel


def column(name: str, datatype: str = "FP64", **more: Any) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, 1), **more)


LABEL = TensorSpec(name="label", datatype="INT64", shape=(-1,))
SCORES = TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2))
DECLARED = Signature(inputs=(column("age", "INT64"), column("income")), outputs=(LABEL, SCORES), columns=True)
ANSWER = Answer(kind="classification", label_output="label", score_output="probabilities", classes=(0, 1))


def model(signature: Signature = DECLARED, answer: Answer = ANSWER, **changes: Any) -> StagedModel:
    return StagedModel(
        key=ModelKey("m", "2"),
        digest="d",
        uri="u",
        flavor="sklearn",
        file="f",
        file_sha256="s",
        size_bytes=1,
        signature=msgspec.structs.replace(signature, **changes),
        answer=answer,
    )


def test_the_same_signature_has_no_difference() -> None:
    assert differences(DECLARED, ANSWER, model()) == []


def test_inputs_may_be_ignored_and_come_in_another_order() -> None:
    candidate = model(inputs=(column("income"),))

    assert differences(DECLARED, ANSWER, candidate) == []
    assert ignored(DECLARED, candidate) == ["age"]
    assert differences(DECLARED, ANSWER, model(inputs=DECLARED.inputs[::-1])) == []


@pytest.mark.parametrize(
    ("inputs", "difference"),
    [
        ((column("age", "FP32"),), "input 'age': endpoint declares INT64 [-1, 1], model wants FP32 [-1, 1]"),
        (
            (column("debt"),),
            "input 'debt': endpoint does not declare it, model wants FP64 [-1, 1]; callers do not send it: log the model with it as optional, or override and change the callers",
        ),
        (
            (TensorSpec(name="age", datatype="INT64", shape=(-1,)),),
            "input 'age': endpoint declares INT64 [-1, 1], model wants INT64 [-1]",
        ),
    ],
)
def test_an_input_that_the_endpoint_cannot_give_is_named(inputs: tuple[TensorSpec, ...], difference: str) -> None:
    assert differences(DECLARED, ANSWER, model(inputs=inputs)) == [difference]


def test_an_optional_input_may_be_wanted_undeclared_but_not_required_where_it_is_optional() -> None:
    declared = msgspec.structs.replace(DECLARED, inputs=(column("age", optional=True),))

    assert differences(declared, ANSWER, model(inputs=(column("debt", optional=True),))) == []
    assert differences(declared, ANSWER, model(inputs=(column("age"),))) == [
        "input 'age': endpoint declares it optional, model requires it"
    ]


def test_columns_and_tensors_are_told_apart() -> None:
    assert differences(DECLARED, ANSWER, model(columns=False)) == [
        "inputs: endpoint declares columns, model wants tensors"
    ]


@pytest.mark.parametrize(
    ("outputs", "difference"),
    [
        ((LABEL,), "output 'probabilities': endpoint declares FP32 [-1, 2], model has no such output"),
        (
            (LABEL, TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 3))),
            "output 'probabilities': endpoint declares FP32 [-1, 2], model gives FP32 [-1, 3]",
        ),
        (
            (TensorSpec(name="label", datatype="BYTES", shape=(-1,)), SCORES),
            "output 'label': endpoint declares INT64 [-1], model gives BYTES [-1]",
        ),
        (
            (LABEL, SCORES, TensorSpec(name="extra", datatype="FP32", shape=(-1,))),
            "output 'extra': endpoint does not declare it, model gives FP32 [-1]",
        ),
    ],
)
def test_an_output_of_another_name_or_type_is_named(outputs: tuple[TensorSpec, ...], difference: str) -> None:
    assert differences(DECLARED, ANSWER, model(outputs=outputs)) == [difference]


def test_a_free_size_fits_any() -> None:
    free = (LABEL, TensorSpec(name="probabilities", datatype="FP32", shape=(-1, -1)))

    assert differences(DECLARED, ANSWER, model(outputs=free)) == []


def test_labels_in_another_order_are_another_answer() -> None:
    swapped = msgspec.structs.replace(ANSWER, classes=(1, 0))

    assert differences(DECLARED, ANSWER, model(answer=swapped)) == [
        "labels: endpoint declares [0, 1], model gives [1, 0]"
    ]


def test_all_differences_are_told_at_once() -> None:
    other = model(
        inputs=(column("age", "FP32"), column("debt")),
        outputs=(LABEL,),
        answer=Answer(kind="regression", score_output="label"),
    )

    found = differences(DECLARED, ANSWER, other)

    assert len(found) == 7
    assert "answer: endpoint declares classification, model gives regression" in found
