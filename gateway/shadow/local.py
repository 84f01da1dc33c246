"""Runs a loaded candidate on the rows of many jobs at once. Called on the compute thread; everything it touches is lent to it."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gateway.shadow.draw import Answered, Draw, Job
from models.answer import read
from models.catalog import LoadedModel
from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array

Item = tuple[Job, int]
"""A job and one of its requests."""
Bound = dict[int, list[Array]]
"""The candidate's inputs, in its own order, by the id of the draw that they come from."""


class Incompatible(Exception):
    """The draw's inputs cannot be given to this candidate; the message names the input."""


def run(
    model: LoadedModel,
    jobs: Sequence[Job],
    *,
    rows_max: int,
    budget_s: float,
    before_run: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Gives every waiting request of `jobs` an outcome. A run has at most `rows_max` rows, or one request that has more.

    Never raises: a run that fails is repeated request by request, so that a poisoned one fails alone. What is not begun within
    `budget_s` is shed, so that a slow candidate does not hold up the others.
    """
    signature = model.staged.signature
    deadline = clock() + budget_s
    bound: Bound = {}
    groups: dict[tuple[tuple[int, ...], ...], list[Item]] = {}
    for job in jobs:
        job.model, job.version = model.staged.key.name, model.staged.key.version
        waiting = job.waiting()
        try:
            inputs = bind(signature, job.draw)
        except Incompatible:
            job.fail(waiting, "incompatible")
            continue
        bound[id(job.draw)] = inputs
        groups.setdefault(tuple(array.shape[1:] for array in inputs), []).extend((job, index) for index in waiting)
    for items in groups.values():
        for chunk in chunks(items, rows_max if model.shares_runs else 1):
            if clock() < deadline:
                _run_chunk(model, chunk, bound, before_run)
            else:
                for job, indexes in spans(chunk):
                    job.fail(indexes, "governor")


def bind(signature: Signature, draw: Draw) -> list[Array]:
    """The inputs of a candidate in its own order, picked out of what the endpoint was given; raises Incompatible.

    What the candidate does not name is left out; an optional input that is missing is NaN or empty. Widths of numbers may differ
    where no value can be lost, and among floating types.
    """
    return [_bind_one(spec, draw) for spec in signature.inputs]


def chunks(items: Sequence[Item], rows_max: int) -> Iterator[list[Item]]:
    """Cuts items, whole requests each, into runs of at most `rows_max` rows; a larger request stands alone."""
    chunk: list[Item] = []
    rows = 0
    for item in items:
        job, index = item
        more = job.draw.block.requests[index].rows
        if chunk and rows + more > rows_max:
            yield chunk
            chunk, rows = [], 0
        chunk.append(item)
        rows += more
    if chunk:
        yield chunk


def spans(chunk: Sequence[Item]) -> Iterator[tuple[Job, list[int]]]:
    """Neighbours of the same job, together."""
    start = 0
    for stop in range(1, len(chunk) + 1):
        if stop == len(chunk) or chunk[stop][0] is not chunk[start][0]:
            yield chunk[start][0], [index for _, index in chunk[start:stop]]
            start = stop


def _run_chunk(model: LoadedModel, chunk: list[Item], bound: Bound, before_run: Callable[[], None]) -> None:
    signature = model.staged.signature
    try:
        inputs = [_gather(chunk, bound, place) for place in range(len(signature.inputs))]
        before_run()
        started = time.perf_counter_ns()
        outputs = model.run(inputs)
        compute_us = (time.perf_counter_ns() - started) // 1000
        labels, scores = read(model.staged.answer, model.output_names, outputs)
    except Exception:  # noqa: BLE001  # whatever a candidate raises is its own failure, no reason to stop the others
        if len(chunk) > 1:
            for item in chunk:
                _run_chunk(model, [item], bound, before_run)
        else:
            job, index = chunk[0]
            job.fail([index], "model_failed")
        return
    rows = sum(job.draw.block.requests[index].rows for job, index in chunk)
    now_us, at = time.time_ns() // 1000, 0
    for job, indexes in spans(chunk):
        stop = at + sum(job.draw.block.requests[index].rows for index in indexes)
        whole = at == 0 and stop == rows
        job.answer(
            Answered(
                indexes=indexes,
                names=model.output_names,
                outputs=outputs if whole else [output[at:stop] for output in outputs],
                labels=labels[at:stop] if len(labels) == rows else [None] * (stop - at),
                scores=scores[at:stop] if len(scores) == rows else [None] * (stop - at),
                compute_us=compute_us,
                batch_rows=rows,
                done_unix_us=now_us,
                leads_run=at == 0,
            )
        )
        at = stop


def _gather(chunk: list[Item], bound: Bound, place: int) -> Array:
    """One input of all items end to end."""
    parts = [job.draw.take(bound[id(job.draw)][place], indexes) for job, indexes in spans(chunk)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _bind_one(spec: TensorSpec, draw: Draw) -> Array:
    array = draw.inputs.get(spec.name)
    dtype = NUMPY_OF[spec.datatype]
    if array is None:
        if not spec.optional:
            raise Incompatible(f"input '{spec.name}' is not among the endpoint's inputs")
        shape = (draw.rows, *(max(1, dim) for dim in spec.shape[1:]))
        return np.full(
            shape, "" if spec.datatype == "BYTES" else np.nan if spec.datatype in FLOATING else 0, dtype=dtype
        )
    if array.dtype != dtype:
        is_text = "O" in {dtype.kind, array.dtype.kind}
        are_floating = array.dtype.kind == dtype.kind == "f"
        if is_text or not (are_floating or np.can_cast(array.dtype, dtype, "safe")):
            raise Incompatible(f"input '{spec.name}': wanted {spec.datatype}, got {array.dtype}")
        array = array.astype(dtype)
    if not spec.shape and array.size == 1:
        return array.reshape(())
    tail = spec.shape[1:]
    if len(tail) != array.ndim - 1 and tail in {(), (1,)} and array.shape[1:] in {(), (1,)}:
        array = array.reshape(-1, *tail)  # a column may come as [N] or as [N, 1]
    fits = len(tail) == array.ndim - 1 and all(dim in {-1, got} for dim, got in zip(tail, array.shape[1:], strict=True))
    if not fits:
        raise Incompatible(f"input '{spec.name}': wanted {list(spec.shape)}, got {list(array.shape)}")
    return array
