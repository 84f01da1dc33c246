"""A finished job as what is remembered of it: the candidate's answer beside production's, row by row, or why there is none."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from gateway.shadow.draw import RECORDED, Answered, Job, column_of
from models.tensors import datatype_of
from routing.records import Column, ShadowBlock, ShadowRow


def blocks(job: Job, now_unix_us: int) -> list[ShadowBlock]:
    """The blocks of a done job: those with answers, whose outputs cover all their rows, then one without, for what failed.

    Each request of the job stands in exactly one of them.
    """
    groups: dict[object, list[Answered]] = {}
    for answer in job.answers:
        groups.setdefault(_form(job, answer), []).append(answer)
    made = [_answered(job, answers) for answers in groups.values()]
    if job.reasons:
        made.append(_failed(job, now_unix_us))
    return made


def _form(job: Job, answer: Answered) -> object:
    """Answers with the same form share a block; one whose outputs have not one entry for each row stands alone."""
    if not _is_by_row(job, answer):
        return id(answer)
    return tuple((name, array.dtype, array.shape[1:]) for name, array in zip(answer.names, answer.outputs, strict=True))


def _is_by_row(job: Job, answer: Answered) -> bool:
    rows = sum(job.draw.block.requests[index].rows for index in answer.indexes)
    return all(array.ndim and len(array) == rows for array in answer.outputs)


def _answered(job: Job, answers: Sequence[Answered]) -> ShadowBlock:
    requests = [
        _row(job, index, RECORDED, answer.done_unix_us, answer.compute_us, answer.batch_rows)
        for answer in answers
        for index in answer.indexes
    ]
    outputs = []
    for place, name in enumerate(answers[0].names):
        parts = [answer.outputs[place] for answer in answers]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if _is_by_row(job, answers[0]):
            outputs.append(column_of(name, datatype_of(array), array))
        elif (
            requests[0].rows == 1
        ):  # all of it belongs to the one row; with more rows nobody could tell what belongs to which
            outputs.append(column_of(name, datatype_of(array), array[np.newaxis]))
    return _block(
        job,
        [index for answer in answers for index in answer.indexes],
        requests,
        list(chain.from_iterable(answer.labels for answer in answers)),
        list(chain.from_iterable(answer.scores for answer in answers)),
        outputs,
    )


def _failed(job: Job, now_unix_us: int) -> ShadowBlock:
    indexes = sorted(job.reasons)
    requests = [_row(job, index, job.reasons[index], now_unix_us, 0, 0) for index in indexes]
    rows = sum(request.rows for request in requests)
    return _block(job, indexes, requests, [None] * rows, [None] * rows, [])


def _row(job: Job, index: int, outcome: str, done_unix_us: int, compute_us: int, batch_rows: int) -> ShadowRow:
    request = job.draw.block.requests[index]
    return ShadowRow(
        request.prediction_id,
        request.rows,
        request.received_unix_us,
        request.answered,
        request.unit,
        request.experiment,
        outcome,
        compute_us,
        batch_rows,
        max(0, done_unix_us - request.received_unix_us),
    )


def _block(
    job: Job,
    indexes: Sequence[int],
    requests: list[ShadowRow],
    labels: list[str | None],
    scores: list[float | None],
    outputs: list[Column],
) -> ShadowBlock:
    draw, block = job.draw, job.draw.block
    rows = [slice(draw.starts[index], draw.starts[index + 1]) for index in indexes]
    return ShadowBlock(
        block.endpoint,
        block.revision,
        block.variants,
        job.mirror,
        job.model,
        job.version,
        block.model,
        block.version,
        requests,
        labels,
        scores,
        list(chain.from_iterable(draw.live_labels[part] for part in rows)),
        list(chain.from_iterable(draw.live_scores[part] for part in rows)),
        outputs,
        draw.writer,
        draw.sequence,
    )
