"""ONNX as it was logged: checked, never trusted; its inputs as declared, and how its outputs are read.

The metadata property `runoff.classes` (a JSON list of labels in the order of the scores) says what the graph cannot;
`runoff.label_output` and `runoff.score_output` name the outputs where names and types leave a doubt.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import onnx

from models.convert.form import Converted, Form
from models.convert.graph import FILE_BYTES_MAX, Graph, spec_of
from models.convert.mlmodel import Mlmodel
from models.convert.parity import session
from models.errors import StagingRefused
from models.signature import Answer, Signature, TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators of ONNX and of ONNX Runtime itself; any other would need a native library from the model's author."""

_LABELS: Final = frozenset({"BYTES", "BOOL", "INT64", "INT32"})
_CLASSIFIERS: Final = frozenset({"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier", "ZipMap"})


def convert(path: Path, model: Mlmodel | None) -> Converted:
    """`model` is None for a bare file. Raises StagingRefused for files that are broken, reach outside, or need foreign operators."""
    proto = load(path)
    labels = _classes(proto)
    _strip_zip_maps(proto)
    core = [
        spec_of(info)
        for info in proto.graph.input
        if info.name not in {tensor.name for tensor in proto.graph.initializer}
    ]
    _check_sides(proto, core)
    outputs = _freed(proto, tuple(map(spec_of, proto.graph.output)), core)
    if model is not None and model.columns:
        inputs, columns = model.declared(), True
        if not _same_columns(inputs, core):
            proto = _behind_columns(proto, inputs, core, outputs)
    else:
        inputs = tuple(core)
        if _has_sizes_that_rows_may_miss(inputs, outputs, model):
            inputs, outputs = tuple(map(_of_any_rows, inputs)), tuple(map(_of_any_rows, outputs))
        columns = all(spec.shape == (-1, 1) for spec in inputs)
    signature = Signature(inputs=inputs, outputs=outputs, columns=columns)
    return Converted(
        flavor="onnx",
        signature=signature,
        answer=answer_of(signature, proto, labels, records=model is not None and model.columns),
        forms=(Form(name="as logged", build=lambda: proto),),
        original=None,
        description="onnx",
    )


def load(path: Path) -> onnx.ModelProto:
    """Reads and checks a file, with external data from beside it drawn in. The file is not to be trusted."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise StagingRefused("model_too_large", f"the ONNX file has {path.stat().st_size} bytes, one file holds 2 GiB")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf and onnx raise many classes for broken files
        raise StagingRefused("onnx_invalid", "the file is no ONNX model") from error
    graphs = list(_graphs(proto.graph))
    _check_domains(proto, graphs)
    _check_external_data(path, graphs)
    try:
        onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
    except Exception as error:  # see above
        raise StagingRefused(
            "onnx_invalid", f"the ONNX model fails its check: {str(error).splitlines()[0][:300]}"
        ) from error
    return proto


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside its nodes."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else [])
                waiting.extend(attribute.graphs)


def _check_domains(proto: onnx.ModelProto, graphs: list[onnx.GraphProto]) -> None:
    own = {(function.domain, function.name) for function in proto.functions}
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in nodes
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if foreign:
        raise StagingRefused(
            "operators_foreign",
            f"the ONNX model needs custom operators: {', '.join(foreign[:5])}",
            "export it with standard operators",
        )


def _check_external_data(path: Path, graphs: list[onnx.GraphProto]) -> None:
    folder = path.parent.resolve()
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [
        attribute.t
        for graph in graphs
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    total = path.stat().st_size
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = PurePosixPath(entries.get("location", ""))
        file = folder / name
        if name.is_absolute() or ".." in name.parts or not name.parts or file.is_symlink() or not file.is_file():
            raise StagingRefused(
                "external_data_outside", f"tensor '{tensor.name}' wants data from outside of the model's folder"
            )
        if file.resolve().parent != folder / name.parent or file.stat().st_nlink != 1:
            raise StagingRefused("external_data_outside", f"tensor '{tensor.name}' wants data through a link")
        total += int(entries.get("length") or file.stat().st_size)
    if total > FILE_BYTES_MAX:
        raise StagingRefused("model_too_large", f"the ONNX model has {total} bytes with its data, one file holds 2 GiB")


def _check_sides(proto: onnx.ModelProto, inputs: list[TensorSpec]) -> None:
    names = [info.name for info in proto.graph.output]
    if not inputs or not names:
        side = "input" if not inputs else "output"
        raise StagingRefused("signature_unsupported", f"the ONNX model has no {side}")
    if len(set(names)) != len(names):
        raise StagingRefused("names_clash", f"the ONNX model has several outputs of one name: {', '.join(names)[:200]}")


def _classes(proto: onnx.ModelProto) -> tuple[str | int | float | bool, ...] | None:
    """Labels in the order of the scores: the model's own word, else those of its classifier node."""
    stated = next((entry.value for entry in proto.metadata_props if entry.key == "runoff.classes"), None)
    if stated is not None:
        try:
            classes = json.loads(stated)
        except ValueError:
            classes = None
        if not isinstance(classes, list) or not all(isinstance(label, str | int | float) for label in classes):
            raise StagingRefused("classes_invalid", "metadata runoff.classes: wanted a JSON list of labels")
        return tuple(classes)
    for node in proto.graph.node:
        if node.op_type in _CLASSIFIERS and node.domain == "ai.onnx.ml":
            for attribute in node.attribute:
                if attribute.name in {"classlabels_ints", "classlabels_int64s"} and attribute.ints:
                    return tuple(attribute.ints)
                if attribute.name == "classlabels_strings" and attribute.strings:
                    return tuple(label.decode("utf-8", "replace") for label in attribute.strings)
    return None


def _strip_zip_maps(proto: onnx.ModelProto) -> None:
    """A ZipMap turns a score matrix into one dictionary a row, which no tensor protocol can carry: the matrix goes out instead."""
    classes = _classes(proto) or ()
    for node in [node for node in proto.graph.node if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml"]:
        for info in proto.graph.output:
            if info.name == node.output[0]:
                width = len(classes) or None
                info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, onnx.TensorProto.FLOAT, ["rows", width]))
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))


def _same_columns(inputs: tuple[TensorSpec, ...], core: list[TensorSpec]) -> bool:
    return {(spec.name, spec.datatype, spec.shape) for spec in inputs} == {
        (spec.name, spec.datatype, spec.shape) for spec in core
    }


def _behind_columns(
    proto: onnx.ModelProto, inputs: tuple[TensorSpec, ...], core: list[TensorSpec], outputs: tuple[TensorSpec, ...]
) -> onnx.ModelProto:
    """The model behind one input a column, fed as MLflow's wrapper does: one input takes all columns, several take one each by name."""
    graph = Graph()
    feeds: dict[str, str] = {}
    by_name = {spec.name: spec for spec in inputs}
    if len(core) == 1:
        values = [
            spec.name if spec.datatype == core[0].datatype else graph.cast(spec.name, core[0].datatype)
            for spec in inputs
        ]
        joined = values[0] if len(values) == 1 else graph.op("Concat", *values, axis=1)
        feeds[core[0].name] = joined if len(core[0].shape) == 2 else graph.reshape(joined, [-1])
    else:
        for spec in core:
            column = by_name.get(spec.name)
            if column is None:
                raise StagingRefused(
                    "signature_unsupported", f"the ONNX input '{spec.name}' is no column of the signature"
                )
            value = column.name if column.datatype == spec.datatype else graph.cast(column.name, spec.datatype)
            feeds[spec.name] = value if len(spec.shape) == 2 else graph.reshape(value, [-1])
    made = graph.absorb(proto, feeds)
    for spec in outputs:
        graph.op("Identity", made[spec.name], into=spec.name)
    wrapped = graph.model(inputs, outputs)
    wrapped.metadata_props.extend(proto.metadata_props)
    return wrapped


def answer_of(
    signature: Signature, proto: onnx.ModelProto, classes: tuple[str | int | float | bool, ...] | None, *, records: bool
) -> Answer:
    """Reads label and scores from names, types and shapes. `records`: MLflow's wrapper answers a data frame with a data frame."""
    stated = {entry.key: entry.value for entry in proto.metadata_props}
    outputs = {spec.name: spec for spec in signature.outputs}
    label = stated.get("runoff.label_output") or next((name for name, spec in outputs.items() if _is_label(spec)), None)
    score = stated.get("runoff.score_output") or next(
        (
            name
            for name, spec in outputs.items()
            if spec.datatype in FLOATING and len(spec.shape) in {1, 2} and spec.shape[0] == -1
        ),
        None,
    )
    for name in (label, score):
        if name is not None and name not in outputs:
            raise StagingRefused(
                "classes_invalid", f"metadata of the ONNX model names an output '{name}' that it has not"
            )
    width = outputs[score].shape[1] if score and len(outputs[score].shape) == 2 else 1
    if classes is not None and width > 1 and len(classes) != width:
        raise StagingRefused(
            "classes_invalid", f"output '{score}': {width} scores, but {len(classes)} classes: {list(classes)}"
        )
    is_scored = score is not None and (label is not None or classes is not None or _ends_in_softmax(proto, score))
    if classes is None and is_scored and width > 1:
        classes = tuple(range(width))
    kind: Any = (
        "classification"
        if is_scored or classes
        else "regression"
        if score and width == 1 and len(outputs) == 1
        else "other"
    )
    return Answer(
        kind=kind,
        label_output=label,
        score_output=score,
        classes=classes if kind == "classification" else None,
        scoring_outputs=tuple(outputs),
        scoring_form="records" if records else "columns",
    )


def _is_label(spec: TensorSpec) -> bool:
    return spec.datatype in _LABELS and (spec.shape in {(-1,), (-1, 1), (1,)})


def _ends_in_softmax(proto: onnx.ModelProto, output: str) -> bool:
    makers: Mapping[str, onnx.NodeProto] = {name: node for node in proto.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in {"Identity", "Cast", "Reshape"}:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _freed(proto: onnx.ModelProto, outputs: tuple[TensorSpec, ...], core: list[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Outputs declared with a fixed first size although it follows the rows (LightGBM's converter writes [1]): declared free instead.

    Trying tells: the model is run on one and on three rows of zeros. A model that cannot be tried keeps what it declares.
    """
    fixed = [spec for spec in outputs if spec.shape and spec.shape[0] != -1]
    if not fixed or not all(spec.shape and spec.shape[0] == -1 for spec in core):
        return outputs
    try:
        run = session(proto.SerializeToString())
        made = [run.run(None, {spec.name: _zeros(spec, rows) for spec in core}) for rows in (1, 3)]
    except Exception:  # noqa: BLE001 - zeros need not be an input that the model can take
        return outputs
    freed = list(outputs)
    for place, spec in enumerate(outputs):
        if spec in fixed and [np.shape(answer[place])[:1] for answer in made] == [(1,), (3,)]:
            freed[place] = TensorSpec(name=spec.name, datatype=spec.datatype, shape=(-1, *spec.shape[1:]))
            proto.graph.output[place].type.tensor_type.shape.dim[0].dim_param = "rows"
    return tuple(freed)


def _has_sizes_that_rows_may_miss(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], model: Mlmodel | None
) -> bool:
    """Whether the file fixes the rows (many exports do, to 1) and the signature with which it was logged leaves them free.

    Runs are then cut and filled up to that size (`models.tensors.in_sizes`). Without such a signature the first dimension may be anything.
    """
    if model is None or model.inputs is None or len(model.inputs) != len(inputs):
        return False
    sizes = {spec.shape[:1] for spec in (*inputs, *outputs)}
    return (
        len(sizes) == 1 and () not in sizes and (-1,) not in sizes and all(s.shape[:1] == (-1,) for s in model.inputs)
    )


def _of_any_rows(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name=spec.name, datatype=spec.datatype, shape=(-1, *spec.shape[1:]))


def _zeros(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(max(size, 1) for size in spec.shape[1:]))
    return np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, NUMPY_OF[spec.datatype])
