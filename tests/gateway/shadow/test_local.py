from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.shadow.draw import Job
from gateway.shadow.local import Incompatible, bind, run
from models.catalog import Catalog, LoadedModel
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey
from tests.kit.shadowed import draw_of
from tests.kit.staged import stage_linear, write

Load = Callable[..., LoadedModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda **fields: Catalog(tmp_path).load(stage_linear(tmp_path, **fields).digest)


def spec(name: str, datatype: str, *shape: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, optional=optional)


def taking(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=())


def jobs_of(*rows: list[int]) -> list[Job]:
    jobs = []
    for sequence, counts in enumerate(rows):
        x = np.random.default_rng(sequence).normal(size=(sum(counts), 2)).astype(np.float32)
        draw = draw_of({"x": x}, rows=counts, sequence=sequence)
        jobs.append(Job(draw, "candidate-0", range(len(counts))))
    return jobs


def test_runs_share_rows_of_many_draws_up_to_the_bound_and_answer_as_one_run_would(load: Load) -> None:
    model = load()
    jobs = jobs_of([1] * 5, [2, 3, 1], [1] * 4)

    run(model, jobs, rows_max=8, budget_s=60)

    for job in jobs:
        assert job.is_done
        alone = model.run([job.draw.inputs["x"]])
        assert [index for answer in job.answers for index in answer.indexes] == job.indexes
        np.testing.assert_allclose(np.concatenate([answer.outputs[1] for answer in job.answers]), alone[1], rtol=1e-6)
        assert [label for answer in job.answers for label in answer.labels] == [str(n) for n in alone[0].tolist()]
    answers = [answer for job in jobs for answer in job.answers]
    assert max(answer.batch_rows for answer in answers) <= 8
    assert sum(answer.batch_rows for answer in answers if answer.leads_run) == 15


def test_a_request_larger_than_the_bound_stands_alone(load: Load) -> None:
    (job,) = jobs_of([1, 9, 1])

    run(load(), [job], rows_max=4, budget_s=60)

    assert sorted(answer.batch_rows for answer in job.answers) == [1, 1, 9]


def test_only_the_drawn_requests_are_run(load: Load) -> None:
    model = load()
    draw = draw_of({"x": np.eye(4, 2, dtype=np.float32)}, rows=[1] * 4)
    job = Job(draw, "candidate-0", [0, 2, 3])

    run(model, [job], rows_max=8, budget_s=60)

    (answer,) = job.answers
    assert answer.indexes == [0, 2, 3]
    np.testing.assert_array_equal(answer.outputs[1], model.run([draw.inputs["x"][[0, 2, 3]]])[1])


def test_a_poisoned_request_fails_alone_and_its_neighbours_do_not(load: Load) -> None:
    x = np.ones((6, 2), np.float32)
    x[3, 0] = 666
    job = Job(draw_of({"x": x}, rows=[1, 1, 2, 2]), "candidate-0", range(4))

    run(load(check_row=True), [job], rows_max=8, budget_s=60)

    assert job.reasons == {2: "model_failed"}
    assert job.is_done


def test_what_is_not_begun_within_the_budget_is_shed(load: Load) -> None:
    ticks = iter(range(100))
    jobs = jobs_of([1] * 10)

    run(load(), jobs, rows_max=2, budget_s=2.5, clock=lambda: next(ticks))

    (job,) = jobs
    assert job.is_done
    assert len(job.answers) == 2
    assert set(job.reasons.values()) == {"governor"}
    assert len(job.reasons) == 6


def test_draws_of_different_inner_shapes_do_not_share_a_run(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    signature = Signature(inputs=(spec("x", "FP32", -1, -1),), outputs=(spec("y", "FP32", -1, 1),))
    staged = write(tmp_path, graph, signature, Answer(kind="regression", score_output="y"), ModelKey("sum", "1"))
    model = Catalog(tmp_path).load(staged.digest)
    jobs = [Job(draw_of({"x": np.ones((2, n), np.float32)}, rows=[2]), "c", [0]) for n in (2, 3, 2)]

    run(model, jobs, rows_max=8, budget_s=60)

    assert [job.answers[0].scores for job in jobs] == [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0]]
    assert [job.answers[0].batch_rows for job in jobs] == [4, 2, 4]


def test_inputs_are_given_in_the_candidates_own_order_without_what_it_ignores() -> None:
    draw = draw_of({"a": np.array([1.0]), "b": np.array([2]), "c": np.array([3.0])}, rows=[1])

    bound = bind(taking(spec("c", "FP64", -1), spec("b", "INT64", -1)), draw)

    assert [array.tolist() for array in bound] == [[3.0], [2]]


def test_an_optional_input_that_is_missing_is_nan_or_empty() -> None:
    draw = draw_of({"a": np.array([1.0, 2.0])}, rows=[1, 1])

    number, text = bind(taking(spec("n", "FP32", -1, 1, optional=True), spec("t", "BYTES", -1, 1, optional=True)), draw)

    assert number.shape == text.shape == (2, 1)
    assert np.isnan(number).all()
    assert text.ravel().tolist() == ["", ""]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (spec("a", "FP32", -1, 1), np.array([1.5, 2.5])),
        (spec("a", "FP64", -1), np.array([[1.5], [2.5]], np.float32)),
        (spec("a", "INT64", -1), np.array([1, 2], np.int32)),
        (spec("a", "FP64", -1), np.array([1, 2], np.int32)),
        (spec("a", "FP32", -1, -1), np.ones((2, 7), np.float32)),
    ],
)
def test_what_loses_nothing_is_converted_and_a_column_may_come_flat(wanted: TensorSpec, given: np.ndarray) -> None:
    (bound,) = bind(taking(wanted), draw_of({"a": given}, rows=[1, 1]))

    assert bound.ravel().tolist() == given.ravel().tolist()
    assert bound.ndim == len(wanted.shape)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (spec("b", "FP32", -1), np.array([1.5, 2.5])),
        (spec("a", "INT64", -1), np.array([1.5, 2.5])),
        (spec("a", "INT8", -1), np.array([1, 2])),
        (spec("a", "BYTES", -1), np.array([1, 2])),
        (spec("a", "FP32", -1), np.array(["1", "2"], dtype=object)),
        (spec("a", "FP32", -1, 3), np.ones((2, 2), np.float32)),
    ],
)
def test_what_would_lose_something_is_incompatible(wanted: TensorSpec, given: np.ndarray) -> None:
    with pytest.raises(Incompatible):
        bind(taking(wanted), draw_of({"a": given}, rows=[1, 1]))
