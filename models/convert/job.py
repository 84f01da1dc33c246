"""One conversion, as the isolated process runs it: a folder of source files in, an ONNX file, samples and a result out."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from models.convert.mlmodel import MLMODEL, Mlmodel, Rows
from models.errors import StagingRefused
from models.signature import Answer, Signature
from models.staged import Certificate
from models.tensors import save_rows

MODEL_FILE: Final = "model.onnx"
DATA_FILE: Final = "model.onnx.data"
DATA_BYTES_MIN: Final = 64 << 20
"""A model from this size on has its weights in a file of their own, which ONNX Runtime maps into memory and workers may share."""
_TENSOR_BYTES_MIN: Final = 1024
SAMPLES_FILE: Final = "samples.npz"
RESULT_FILE: Final = "result.json"
_SAMPLES_MAX: Final = 64
_DRAWN_BYTES_MAX: Final = 64 << 20
"""Of rows that only have to show that a model runs: a thousand images of a megapixel would be 12 GB."""
_AGAIN: Final = 4


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is the model's folder, `into` where files are written; `name` is held against the patterns of `trust_pickle`.

    `recorded` is an npz of rows by input name that production has seen, compared too.
    """

    source: str
    into: str
    name: str
    trust_types: tuple[str, ...] = ()
    trust_pickle: tuple[str, ...] = ()
    recorded: str | None = None
    tolerance_absolute: float = 1e-5
    tolerance_relative: float = 1e-4
    memory_bytes_max: int = 8 << 30
    cpu_s_max: int = 900


class Result(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`form` says which ONNX form was taken. `certificate` is None where nothing was converted."""

    flavor: str
    form: str
    signature: Signature
    answer: Answer
    certificate: Certificate | None
    has_samples: bool
    keeps_rows_apart: bool = True


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A StagingRefused on its way out of the process."""

    code: str
    message: str
    remedy: str


def _unchanged(model: Any) -> Any:
    return model


def convert(request: Request, *, alter: Callable[[Any], Any] = _unchanged) -> Result:
    """Converts, certifies and writes `model.onnx`, for a large model `model.onnx.data`, and `samples.npz`. Raises StagingRefused.

    `alter` changes each ONNX form before it is compared: how a test shows that a wrong conversion is found.
    """
    from models.convert import parity
    from models.convert.rows import ROWS_MIN, generate

    model, converted = _open(Path(request.source), request)
    into = Path(request.into)
    signature = converted.signature
    clash = {spec.name for spec in signature.inputs} & {spec.name for spec in signature.outputs}
    if clash:
        names = ", ".join(f"'{name}'" for name in sorted(clash))
        raise StagingRefused("names_clash", f"inputs have the names of outputs: {names}", "rename these columns")
    draw = functools.partial(
        generate,
        signature.inputs,
        columns=signature.columns,
        example=_example(model),
        recorded=_recorded(request.recorded, signature),
        thresholds=converted.thresholds,
        categories=converted.categories,
        bytes_max=_DRAWN_BYTES_MAX if converted.original is None else None,
    )
    sample = draw()
    if converted.original is None:
        form = converted.forms[0]
        content = alter(form.build()).SerializeToString()
        write_model(into, content)
        usable = parity.runnable(content, signature, sample)
        return Result(
            flavor=converted.flavor,
            form=form.name,
            signature=signature,
            answer=converted.answer,
            certificate=None,
            has_samples=_write_samples(into, signature, sample.rows, usable),
            keeps_rows_apart=parity.keeps_rows_apart(content, signature, sample, usable),
        )
    expected = parity.expect(converted.original, sample)
    if len(expected.indexes) < ROWS_MIN:
        # The original raises on many of the made rows; so many more are made that enough are answered, if it answers any kind of them.
        sample = draw(rows_min=_AGAIN * ROWS_MIN)
        expected = parity.expect(converted.original, sample)
    tolerance = parity.Tolerance(absolute=request.tolerance_absolute, relative=request.tolerance_relative)
    refusals: list[StagingRefused] = []
    for form in converted.forms:
        try:
            content = alter(_built(form)).SerializeToString()
            certificate = parity.certify(
                content,
                signature,
                sample,
                expected,
                tolerance=tolerance,
                original=f"{converted.description}, as {form.name}",
            )
        except StagingRefused as refusal:
            refusals.append(refusal)
            continue
        write_model(into, content)
        return Result(
            flavor=converted.flavor,
            form=form.name,
            signature=signature,
            answer=converted.answer,
            certificate=certificate,
            has_samples=_write_samples(into, signature, sample.rows, expected.indexes),
        )
    raise _clearest(refusals)


def write_model(into: Path, content: bytes, *, data_bytes_min: int = DATA_BYTES_MIN) -> None:
    """The ONNX file; the weights of a large one in a second file."""
    if len(content) < data_bytes_min:
        (into / MODEL_FILE).write_bytes(content)
        return
    import onnx

    onnx.save_model(
        onnx.load_from_string(content),
        into / MODEL_FILE,
        save_as_external_data=True,
        location=DATA_FILE,
        size_threshold=_TENSOR_BYTES_MIN,
    )


def _open(source: Path, request: Request) -> tuple[Mlmodel | None, Any]:
    """Reads the model and hands it to its flavor's room."""
    from models.convert import estimators, mlmodel, onnx, opening, sklearn

    if not (source / MLMODEL).exists():
        files = sorted(source.glob("*.onnx"))
        if len(files) != 1:
            raise StagingRefused(
                "files_missing", f"wanted an MLmodel file or one .onnx file, got {len(files)} .onnx files"
            )
        return None, onnx.convert(files[0], None)
    model = mlmodel.read(source)
    match model.flavor:
        case "onnx":
            return model, onnx.convert(model.file("data"), model)
        case "sklearn":
            path = model.file("pickled_model")
        case _:
            path = model.file("data")
            native = opening.open_native(model, path)
            if native is not None:
                return model, estimators.convert(model, native)
    opened = opening.open_object(
        model, path, request.name, trust_types=request.trust_types, trust_pickle=request.trust_pickle
    )
    return model, sklearn.convert(model, opened)


def _built(form: Any) -> Any:
    try:
        return form.build()
    except StagingRefused:
        raise
    except Exception as error:  # converters raise whatever they like when they do not know something
        text = (str(error).strip().splitlines() or [""])[0][:300]
        raise StagingRefused(
            "conversion_failed",
            f"{form.name}: {type(error).__name__}: {text}",
            "log the model in the ONNX flavor, or replace the step that has no ONNX form",
        ) from error


def _clearest(refusals: list[StagingRefused]) -> StagingRefused:
    """Of several failed forms, a difference says more than a converter's complaint."""
    return next((refusal for refusal in refusals if refusal.code == "parity_failed"), refusals[0])


def _example(model: Mlmodel | None) -> Rows:
    from models.convert import mlmodel

    return mlmodel.example(model) if model is not None else {}


def _recorded(path: str | None, signature: Signature) -> Rows:
    """Recorded rows, where every input is among them."""
    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as stored:
        if not all(spec.name in stored for spec in signature.inputs):
            return {}
        rows = {spec.name: stored[spec.name] for spec in signature.inputs}
    return {
        spec.name: _recorded_values(rows[spec.name], columns=signature.columns, is_text=spec.datatype == "BYTES")
        for spec in signature.inputs
    }


def _recorded_values(values: Any, *, columns: bool, is_text: bool) -> Any:
    values = values.astype(object) if is_text else values
    return values.reshape(-1) if columns else values


def _write_samples(into: Path, signature: Signature, rows: Rows, usable: Any) -> bool:
    """Up to 64 rows that the model answers, for warm-up; strings as unicode, so that reading them needs no pickle."""
    from models.convert.rows import feeds

    row_bytes = sum(values[:1].nbytes for values in rows.values())
    count = max(1, min(_SAMPLES_MAX, _DRAWN_BYTES_MAX // max(1, row_bytes)))
    chosen = usable[:: max(1, len(usable) // count)][:count]
    if not len(chosen):
        return False
    fed = feeds(signature.inputs, {name: values[chosen] for name, values in rows.items()}, columns=signature.columns)
    save_rows(into / SAMPLES_FILE, fed)
    return True
