"""The int8 twin of a model: weights quantised, activations quantised in each run, and its certificate against the file it was made from.

The scale of a run's activations is taken over all its rows, so rows change each other's answers within the tolerance. That is why a
twin never shares a run between callers, and why it is compared both row by row and in batches.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from models.errors import ModelsError, StagingRefused
from models.runtime.onnx import OnnxSession
from models.signature import Answer, Signature
from models.staged import Ask, Certificate
from models.tensors import Array

ROWS_MIN: Final = 32
"""Fewer rows say too little about a form that is only nearly the same."""
_BATCH: Final = 64
_ALONE_MAX: Final = 256
_QUANTISED: Final = frozenset(
    {"MatMulInteger", "DynamicQuantizeMatMul", "ConvInteger", "QGemm", "DynamicQuantizeLSTM", "QAttention"}
)


def quantise(model: Path, into: Path, *, reduce_range: bool) -> None:
    """Writes the twin of `model` to `into`. Raises StagingRefused where nothing in it can be quantised.

    `reduce_range`: seven bits for weights, for processors whose byte products saturate.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(
        logging.ERROR
    )  # it advises pre-processing, which the session does when it opens the file
    try:
        quantize_dynamic(model, into, weight_type=QuantType.QInt8, reduce_range=reduce_range)
        made = {node.op_type for node in onnx.load(into, load_external_data=False).graph.node}
    except Exception as error:  # the tool raises whatever it likes about graphs that it does not know
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise StagingRefused("int8_refused", f"the model cannot be quantised: {text}") from error
    if not made & _QUANTISED:
        raise StagingRefused("int8_refused", "the model has no weights that can be quantised")


def certify(
    model: Path,
    twin: Path,
    signature: Signature,
    answer: Answer,
    samples: Sequence[Array],
    ask: Ask,
    *,
    rows: int,
    recorded: int,
) -> Certificate:
    """Compares the twin with the plain file on `rows` rows, of which `recorded` were recorded. Raises StagingRefused where they differ."""
    if rows < ROWS_MIN or not signature.is_batched:
        raise StagingRefused(
            "int8_refused",
            f"wanted at least {ROWS_MIN} rows to compare int8 on, got {rows if signature.is_batched else 1}",
        )
    names = [spec.name for spec in signature.outputs]
    plain, quantised = _opened(model, signature), _opened(twin, signature)
    largest = 0.0
    for size, rows_max in ((_BATCH, rows), (1, min(rows, _ALONE_MAX))):
        for start in range(0, rows_max, size):
            batch = [sample[start : start + size] for sample in samples]
            try:
                wanted = dict(zip(names, plain.run(batch, names), strict=True))
                got = dict(zip(names, quantised.run(batch, names), strict=True))
            except ModelsError as error:
                raise StagingRefused(
                    "int8_refused", f"rows {start} to {start + size} cannot be compared: {error}"
                ) from error
            largest = max(largest, _compared(wanted, got, answer, ask, start))
    return Certificate(
        rows=rows,
        generated_rows=rows - recorded,
        labels_equal=True,
        score_difference_max=largest,
        tolerance_absolute=ask.score_tolerance,
        tolerance_relative=ask.score_tolerance,
        kinds=(f"recorded {recorded}", f"samples {rows - recorded}"),
        original=f"{model.name}, not quantised",
    )


def _opened(path: Path, signature: Signature) -> OnnxSession:
    session = OnnxSession(path)
    session.input_names = tuple(spec.name for spec in signature.inputs)
    return session


def _compared(wanted: Mapping[str, Array], got: Mapping[str, Array], answer: Answer, ask: Ask, start: int) -> float:
    """The largest difference of a score. Raises StagingRefused for another label, or a score outside the tolerance."""
    largest = 0.0
    for name, plain in wanted.items():
        other = got[name]
        if plain.dtype.kind != "f":
            if not np.array_equal(plain, other):
                raise StagingRefused("int8_refused", f"output '{name}' differs from row {start} on")
            continue
        before, after = plain.astype(np.float64), other.astype(np.float64)
        if not np.array_equal(np.isnan(before), np.isnan(after)):
            raise StagingRefused(
                "int8_refused", f"output '{name}' is not a number in other places, from row {start} on"
            )
        off = np.nan_to_num(np.abs(before - after), nan=0.0)
        beyond = off > ask.score_tolerance + ask.score_tolerance * np.nan_to_num(np.abs(before))
        if beyond.any():
            text = f"output '{name}' is off by {off.max():.3g} from row {start} on; allowed is {ask.score_tolerance:g}, absolute and relative"
            raise StagingRefused("int8_refused", text)
        is_decided = answer.kind == "classification" and answer.label_output is None and name == answer.score_output
        if is_decided and before.ndim > 1 and not np.array_equal(before.argmax(-1), after.argmax(-1)):
            raise StagingRefused("int8_refused", f"output '{name}' decides otherwise from row {start} on")
        largest = max(largest, float(off.max(initial=0.0)))
    return largest
