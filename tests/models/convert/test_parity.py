"""A certificate is given for equal answers only, and a refusal says where they differ."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.convert.form import Answers
from models.convert.graph import Graph
from models.convert.mlmodel import Rows
from models.convert.parity import Tolerance, certify, expect, keeps_rows_apart, runnable
from models.convert.rows import Sample
from models.errors import StagingRefused
from models.signature import Signature, TensorSpec
from models.staged import Certificate

X = TensorSpec(name="x", datatype="FP64", shape=(-1, 1))
T = TensorSpec(name="t", datatype="BYTES", shape=(-1, 1))
VALUE = TensorSpec(name="value", datatype="FP64", shape=(-1,))
LABEL = TensorSpec(name="label", datatype="BOOL", shape=(-1,))
SIGNATURE = Signature(inputs=(X,), outputs=(VALUE, LABEL), columns=True)


def form(factor: float = 2.0, bound: float = 0.5) -> bytes:
    """`value = factor * x`, `label = x > bound`."""
    graph = Graph()
    graph.reshape(graph.op("Mul", "x", graph.constant(np.array(factor))), [-1], into="value")
    graph.reshape(graph.op("Greater", "x", graph.constant(np.array(bound))), [-1], into="label")
    return bytes(graph.model((X,), (VALUE, LABEL)).SerializeToString())


def original(rows: Rows) -> Answers:
    return {"value": rows["x"] * 2.0, "label": rows["x"] > 0.5}


def sample(values: Any = None) -> Sample:
    numbers = np.linspace(-1.0, 1.0, 1001) if values is None else np.array(values)
    kinds = np.array(["example"] + ["sampled"] * (len(numbers) - 1), object)
    return Sample(rows={"x": numbers}, kinds=kinds, twins=0)


def certified(content: bytes, rows: Sample, asked: Callable[[Rows], Answers] = original) -> Certificate:
    return certify(content, SIGNATURE, rows, expect(asked, rows), tolerance=Tolerance(), original="two")


def test_equal_answers_get_a_certificate_that_counts_them() -> None:
    certificate = certified(form(), sample())

    assert (certificate.rows, certificate.generated_rows) == (1001, 1000)
    assert certificate.labels_equal
    assert certificate.score_difference_max == 0.0
    assert certificate.kinds == ("example 1", "sampled 1000", "left out 0")


def test_a_score_within_the_tolerance_passes_and_is_told() -> None:
    certificate = certified(form(factor=2.0 + 1e-6), sample())

    assert certificate.score_difference_max == pytest.approx(1e-6, rel=1e-3)


def test_a_score_beyond_the_tolerance_is_refused_with_the_worst_row() -> None:
    with pytest.raises(StagingRefused) as refused:
        certified(form(factor=2.1), sample())

    assert refused.value.code == "parity_failed"
    assert "output 'value' differs on" in refused.value.message
    assert "of kind example: x=-1.0: wanted -2.0, got -2.1" in refused.value.message


def test_one_other_label_is_enough_to_refuse() -> None:
    with pytest.raises(StagingRefused, match=r"output 'label' differs on 1 of 1001 rows.*wanted True, got False"):
        certified(form(bound=0.5025), sample([*np.linspace(-1, 0.5, 1000), 0.501]))


def test_what_is_not_a_number_equals_itself_and_nothing_else() -> None:
    values = [0.0, np.nan, np.inf, -np.inf]

    assert certified(form(), sample(values)).rows == 4
    with pytest.raises(StagingRefused, match=r"wanted 0\.0, got nan"):
        certified(
            form(),
            sample(values),
            lambda rows: original(rows) | {"value": np.nan_to_num(rows["x"] * 2, posinf=np.inf, neginf=-np.inf)},
        )


def test_rows_on_which_the_original_raises_are_left_out_and_counted() -> None:
    def picky(rows: Rows) -> Answers:
        if (np.abs(rows["x"]) > 0.99).any():
            raise ValueError("too far")
        return original(rows)

    certificate = certified(form(), sample(), picky)

    assert certificate.rows == 991
    assert certificate.kinds[-1] == "left out 10"


def test_an_original_that_answers_nothing_is_refused() -> None:
    def broken(rows: Rows) -> Answers:
        raise RuntimeError("no weights")

    with pytest.raises(StagingRefused, match="raises on each of 1001 rows: RuntimeError: no weights"):
        expect(broken, sample())


def test_where_the_original_tells_null_from_the_empty_text_null_counts() -> None:
    texts = Sample(
        rows={"t": np.array(["a", None, None, "", ""], object)},
        kinds=np.array(["example", "nulls", "nulls", "empty", "empty"], object),
        twins=2,
    )

    apart = expect(lambda rows: {"y": np.array([value is None for value in rows["t"]])}, texts)
    alike = expect(lambda rows: {"y": np.array([not value for value in rows["t"]])}, texts)

    assert apart.indexes.tolist() == [0, 1, 2]
    assert apart.left_out == 2
    assert alike.indexes.tolist() == [0, 1, 2, 3, 4]


def test_a_form_of_another_shape_or_that_does_not_run_is_no_conversion() -> None:
    graph = Graph()
    graph.op("Identity", "x", into="value")
    graph.reshape(graph.op("Greater", "x", graph.constant(np.array(0.5))), [-1], into="label")
    wide = graph.model((X,), (TensorSpec(name="value", datatype="FP64", shape=(-1, 1)), LABEL)).SerializeToString()

    with pytest.raises(StagingRefused, match=r"wanted shape \(1001,\), got \(1001, 1\)"):
        certified(wide, sample())
    with pytest.raises(StagingRefused, match="does not run"):
        certified(b"no model", sample())


def test_rows_that_a_model_can_run_are_found() -> None:
    rows = sample()

    assert len(runnable(form(), SIGNATURE, rows)) == rows.count
    with pytest.raises(StagingRefused, match="cannot load"):
        runnable(b"no model", SIGNATURE, rows)


WIDE = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, -1))


def graph_of(operator: str, **attributes: int) -> bytes:
    """`y` is one operator over `x`, with a random layer behind it, which rounds otherwise in a batch."""
    graph = Graph()
    weights = graph.constant(np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32))
    axes = [graph.constant(np.array([0], np.int64))] if operator == "ReduceMean" else []
    made = graph.op(operator, "x", *axes, **attributes)
    graph.op("MatMul", graph.op("Sub", "x", made) if axes else made, weights, into="y")
    return bytes(graph.model((WIDE,), (Y,)).SerializeToString())


@pytest.mark.parametrize(
    ("content", "is_apart"),
    [
        (graph_of("Softmax", axis=1), True),
        (graph_of("Softmax", axis=0), False),
        (graph_of("ReduceMean"), False),
        (graph_of("RandomNormalLike"), False),
    ],
    ids=["each row", "over rows", "centred", "random"],
)
def test_rows_that_change_each_others_answers_are_found(content: bytes, is_apart: bool) -> None:
    signature = Signature(inputs=(WIDE,), outputs=(Y,))
    numbers = np.random.default_rng(1).normal(size=(40, 4))
    rows = Sample(rows={"x": numbers}, kinds=np.array(["sampled"] * 40, object), twins=0)
    usable = runnable(content, signature, rows)

    assert len(usable) == 40
    assert keeps_rows_apart(content, signature, rows, usable) is is_apart
