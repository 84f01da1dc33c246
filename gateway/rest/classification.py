"""Triton's classification extension: the best classes of an output, each as the text `value:index[:label]`."""

import numpy as np

from models.answer import text_of
from models.errors import InputInvalid
from models.signature import TensorSpec
from models.staged import StagedModel
from models.tensors import FLOATING, INTEGRAL, Array


def classify(spec: TensorSpec, scores: Array, count: int, model: StagedModel) -> Array:
    """At most `count` classes of each row, the largest value first, as BYTES of shape (rows, classes).

    All values of a row are its classes, in row-major order. Labels are the model's classes where `spec` is its score output and
    has one value a class. Floats are written as C's `%f`, as Triton writes them. Raises InputInvalid for outputs without an order.
    """
    if spec.datatype not in FLOATING | INTEGRAL:
        raise InputInvalid(f"output '{spec.name}': no classification of {spec.datatype}")
    rows = scores.reshape(scores.shape[0], -1) if model.signature.is_batched else scores.reshape(1, -1)
    count = min(count, rows.shape[1])
    # NaN compares as neither more nor less: it sorts last, where it cannot pass for a best class
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    labels = _labels(spec, rows.shape[1], model)
    write = "{:f}".format if spec.datatype in FLOATING else str
    texts = [
        ":".join((write(value), str(index), *labels[index : index + 1]))
        for row, places in zip(rows.tolist(), order.tolist(), strict=True)
        for index, value in ((place, row[place]) for place in places)
    ]
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(order.shape if model.signature.is_batched else order.shape[1:])


def _labels(spec: TensorSpec, width: int, model: StagedModel) -> list[str]:
    classes = model.answer.classes
    if classes is None or spec.name != model.answer.score_output or len(classes) != width:
        return []
    return [text_of(label) for label in classes]
