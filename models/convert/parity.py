"""The certificate: an ONNX form and the original answer the same rows, label for label and score within the tolerance."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime

from models.convert.form import Answers
from models.convert.mlmodel import Rows
from models.convert.rows import Sample, feeds
from models.errors import StagingRefused
from models.runtime.onnx import words_of
from models.signature import Signature
from models.staged import Certificate
from models.tensors import Array, in_sizes

_CALLS_MAX: Final = 512
"""Calls of the original that may be spent on finding the rows on which it raises."""
_TOGETHER: Final = 8
"""So many rows are run together and one by one, to see whether they change each other's answers."""
_MIXED: Final = 1e-3
"""Relative to a row's largest value: what rounds otherwise in a batch stays a hundred times below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A score may be off by `absolute + relative * |wanted|`."""

    absolute: float = 1e-5
    relative: float = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the original answers to `rows` of the sample (their indexes); `left_out` rows are those on which it raises."""

    indexes: Array
    answers: Answers
    left_out: int


def expect(original: Callable[[Rows], Answers], sample: Sample) -> Expected:
    """Asks the original. Raises StagingRefused when it raises on every row, or on each row that was given.

    The empty string and null are one on the wire. Where the original tells them apart, null counts and the twin row is left out.
    """
    calls = _Calls(original, sample.rows)
    answered = calls.ask(np.arange(sample.count))
    if not answered:
        raise StagingRefused(
            "original_fails",
            f"the original raises on each of {sample.count} rows: {calls.problem}",
            "check the signature, and log an input example",
        )
    indexes = np.concatenate([part for part, _ in answered])
    answers = {name: np.concatenate([answer[name] for _, answer in answered]) for name in answered[0][1]}
    keep = ~_told_apart(sample, indexes, answers)
    return Expected(
        indexes=indexes[keep],
        answers={name: values[keep] for name, values in answers.items()},
        left_out=sample.count - int(keep.sum()),
    )


def session(model: bytes) -> Any:
    """One thread, the processor, nothing from the model's own settings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def certify(
    model: bytes, signature: Signature, sample: Sample, expected: Expected, *, tolerance: Tolerance, original: str
) -> Certificate:
    """Compares. Raises StagingRefused `parity_failed`, naming the worst row, or `conversion_failed` when the form does not run."""
    rows = {name: values[expected.indexes] for name, values in sample.rows.items()}
    names = [spec.name for spec in signature.outputs]
    try:
        got = dict(
            zip(names, session(model).run(names, feeds(signature.inputs, rows, columns=signature.columns)), strict=True)
        )
    except Exception as error:  # ONNX Runtime raises classes of its own that have no common parent below Exception
        raise StagingRefused("conversion_failed", f"the ONNX form does not run: {words_of(error)}") from error
    largest = 0.0
    for spec in signature.outputs:
        wanted, values = expected.answers[spec.name], np.asarray(got[spec.name])
        if wanted.shape != values.shape:
            raise StagingRefused(
                "conversion_failed", f"output '{spec.name}': wanted shape {wanted.shape}, got {values.shape}"
            )
        off = _differences(wanted, values)
        bound = (
            0.0
            if off.dtype == np.bool_
            else tolerance.absolute + tolerance.relative * np.abs(wanted.astype(np.float64))
        )
        beyond = off > bound
        if beyond.any():
            raise _refused(spec.name, rows, expected, sample, wanted, values, np.where(beyond, off, 0.0))
        if off.dtype != np.bool_:
            largest = max(largest, float(off.max(initial=0.0)))
    kinds = Counter(sample.kinds[expected.indexes].tolist())
    given = int(sample.is_given()[expected.indexes].sum())
    return Certificate(
        rows=len(expected.indexes),
        generated_rows=len(expected.indexes) - given,
        labels_equal=True,
        score_difference_max=largest,
        tolerance_absolute=tolerance.absolute,
        tolerance_relative=tolerance.relative,
        kinds=(*(f"{kind} {count}" for kind, count in sorted(kinds.items())), f"left out {expected.left_out}"),
        original=original,
    )


def runnable(model: bytes, signature: Signature, sample: Sample) -> Array:
    """Indexes of rows that the model answers, for models that need no comparison. Raises StagingRefused when it does not load."""
    try:
        run = session(model)
    except Exception as error:  # see `certify`
        raise StagingRefused("onnx_invalid", f"ONNX Runtime cannot load the model: {words_of(error)}") from error

    def answer(rows: Rows) -> Answers:
        _run(run, signature, rows)
        return {"outputs": np.zeros(0)}

    calls = _Calls(answer, sample.rows)
    calls.ask(np.arange(min(sample.count, 8)))
    answered = _Calls(answer, sample.rows).ask(np.arange(sample.count))
    return np.concatenate([indexes for indexes, _ in answered]) if answered else np.array([], np.int64)


def keeps_rows_apart(model: bytes, signature: Signature, sample: Sample, usable: Array) -> bool:
    """Whether some of the `usable` rows are answered alike together and one by one.

    They are not where the graph normalises, sorts or pads over its rows, or draws at random. Rows made to hurt are left out: what they
    lose in rounding would look the same.
    """
    plain = usable[np.isin(sample.kinds[usable], ["example", "recorded", "sampled"])]
    chosen = plain[:: max(1, len(plain) // _TOGETHER)][:_TOGETHER]
    if not signature.is_batched or not len(chosen):
        return True
    run = session(model)
    rows = {name: values[chosen] for name, values in sample.rows.items()}
    try:
        together = _run(run, signature, rows)
        for place in range(len(chosen)):
            alone = _run(run, signature, {name: values[place : place + 1] for name, values in rows.items()})
            if not all(_is_same_row(whole[place], one[0]) for whole, one in zip(together, alone, strict=True)):
                return False
    except Exception:  # noqa: BLE001 - each row was answered among others before: one that fails now hangs on them
        return False
    return True


def _is_same_row(together: Any, alone: Any) -> bool:
    one, other = np.asarray(together), np.asarray(alone)
    if one.shape != other.shape or one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    largest = np.abs(other, where=np.isfinite(other), out=np.zeros(other.shape)).max(initial=0.0)
    return bool(np.allclose(one, other, rtol=_MIXED, atol=_MIXED * largest, equal_nan=True))


def _run(run: Any, signature: Signature, rows: Rows) -> list[Array]:
    """The outputs, also of a file that fixes the number of rows where the signature does not."""
    fed = feeds(signature.inputs, rows, columns=signature.columns)
    size = run.get_inputs()[0].shape[:1]
    if signature.is_batched and size and isinstance(size[0], int):
        return in_sizes(lambda part: run.run(None, dict(zip(fed, part, strict=True))), list(fed.values()), size[0])
    outputs: list[Array] = run.run(None, fed)
    return outputs


class _Calls:
    """Asks the original for many rows at once, and halves them where it raises, within `_CALLS_MAX` calls."""

    def __init__(self, original: Callable[[Rows], Answers], rows: Rows) -> None:
        self._original = original
        self._rows = rows
        self._left = _CALLS_MAX
        self.problem = ""

    def ask(self, indexes: Array) -> list[tuple[Array, Answers]]:
        if not len(indexes) or self._left == 0:
            return []
        self._left -= 1
        try:
            return [(indexes, self._original({name: values[indexes] for name, values in self._rows.items()}))]
        except Exception as error:  # noqa: BLE001 - whatever a model raises on a row means that it has no answer to it
            self.problem = _first_line(error)
        if len(indexes) == 1:
            return []
        middle = len(indexes) // 2
        return [*self.ask(indexes[:middle]), *self.ask(indexes[middle:])]


def _told_apart(sample: Sample, indexes: Array, answers: Answers) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which answered rows hold the empty string and are answered differently from, or not like, their twins with null."""
    place_of = {int(index): place for place, index in enumerate(indexes)}
    apart = np.zeros(len(indexes), bool)
    for place in np.flatnonzero(sample.kinds[indexes] == "empty"):
        twin = place_of.get(int(indexes[place]) - sample.twins)
        apart[place] = twin is None or any(not _equal(values[place], values[twin]) for values in answers.values())
    return apart


def _equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right, equal_nan=np.asarray(left).dtype.kind == "f"))


def _differences(wanted: Array, got: Array) -> np.ndarray[Any, np.dtype[Any]]:
    """Labels: whether they differ. Scores: by how much; not a number equals itself, and so do the infinities."""
    if wanted.dtype.kind != "f":
        return np.asarray(wanted != got)
    left, right = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(left - right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def _refused(
    name: str, rows: Rows, expected: Expected, sample: Sample, wanted: Array, got: Array, off: Array
) -> StagingRefused:
    by_row = off.reshape(len(off), -1).astype(np.float64).max(axis=1)
    worst = int(by_row.argmax())
    shown = ", ".join(f"{column}={_short(values[worst])}" for column, values in list(rows.items())[:20])
    return StagingRefused(
        "parity_failed",
        f"output '{name}' differs on {int((by_row > 0).sum())} of {len(by_row)} rows; the worst, of kind "
        f"{sample.kinds[expected.indexes[worst]]}: {shown}: wanted {_short(wanted[worst])}, got {_short(got[worst])}",
        "log the model in the ONNX flavor yourself, or allow a wider tolerance",
    )


def _short(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
    return text if len(text) <= 120 else f"{text[:117]}…"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
