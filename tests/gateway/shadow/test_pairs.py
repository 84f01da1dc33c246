import numpy as np

from gateway.shadow.draw import Answered, Job
from gateway.shadow.pairs import blocks
from tests.kit.shadowed import draw_of

X = np.arange(12, dtype=np.float32).reshape(6, 2)


def answered(indexes: list[int], *outputs: np.ndarray, rows: int) -> Answered:
    return Answered(
        indexes=indexes,
        names=[f"y{place}" for place in range(len(outputs))],
        outputs=list(outputs),
        labels=[str(index) for index in range(rows)],
        scores=[0.5] * rows,
        compute_us=7,
        batch_rows=rows,
        done_unix_us=2_000_000,
    )


def job_of(*rows: int) -> Job:
    job = Job(
        draw_of({"x": X[: sum(rows)]}, rows=rows, received_unix_s=1.0, sequence=9), "candidate-0", range(len(rows))
    )
    job.draw.live_labels = [f"live-{row}" for row in range(sum(rows))]
    return job


def test_answers_of_several_runs_share_a_block_and_failures_have_one_without_outputs() -> None:
    job = job_of(1, 2, 1, 2)
    job.answer(answered([0], X[:1], rows=1))
    job.answer(answered([3], X[4:6], rows=2))
    job.fail([1, 2], "model_failed")

    good, bad = blocks(job, 3_000_000)

    assert [row.outcome for row in good.requests] == ["recorded", "recorded"]
    assert good.live_labels == ["live-0", "live-4", "live-5"]
    assert good.labels == ["0", "0", "1"]
    assert np.frombuffer(good.outputs[0].data, np.float32).reshape(-1, 2).tolist() == X[[0, 4, 5]].tolist()
    assert [row.lag_us for row in good.requests] == [1_000_000, 1_000_000]
    assert (good.source_writer, good.source_sequence) == ("worker-a", 9)
    assert [row.outcome for row in bad.requests] == ["model_failed"] * 2
    assert bad.live_labels == ["live-1", "live-2", "live-3"]
    assert bad.labels == bad.scores == [None] * 3
    assert bad.outputs == []
    assert bad.requests[0].lag_us == 2_000_000


def test_answers_of_different_forms_do_not_share_a_block() -> None:
    job = job_of(1, 1, 1)
    job.answer(answered([0], X[:1], rows=1))
    job.answer(answered([1], X[:1, :1], rows=1))
    job.answer(answered([2], X[:1], rows=1))

    assert [[row.prediction_id for row in block.requests] for block in blocks(job, 0)] == [
        [job.draw.block.requests[0].prediction_id, job.draw.block.requests[2].prediction_id],
        [job.draw.block.requests[1].prediction_id],
    ]


def test_an_answer_without_a_row_a_row_stands_alone_and_is_kept_where_it_has_one_row() -> None:
    job = job_of(1, 1, 2)
    job.answer(answered([0], X, rows=1))
    job.answer(answered([1], X, rows=1))
    job.answer(answered([2], X, rows=2))

    first, second, third = blocks(job, 0)

    assert [len(block.requests) for block in (first, second, third)] == [1, 1, 1]
    assert first.outputs[0].tail == second.outputs[0].tail == (6, 2)
    assert third.outputs == []


def test_each_request_stands_in_exactly_one_block() -> None:
    job = job_of(1, 1, 1, 1)
    job.answer(answered([2], X[:1], rows=1))
    job.fail([0], "expired")
    job.fail([1, 3], "too_large")

    found = [row.prediction_id for block in blocks(job, 0) for row in block.requests]

    assert sorted(found) == sorted(request.prediction_id for request in job.draw.block.requests)
