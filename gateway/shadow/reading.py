"""How a remote candidate's answer is read beside production's: as production's outputs where they have the same names."""

from typing import Final

from msgspec.structs import replace

from models.answer import Labels, Scores, read
from models.runtime.target import RemoteAnswer
from models.signature import Answer
from models.tensors import Array

_BARE: Final = "predictions"
"""The name of an output that came without one."""


def read_remote(how: Answer, answer: RemoteAnswer, rows: int) -> tuple[list[str], list[Array], Labels, Scores] | None:
    """Names, outputs, labels and scores of a remote's answer for so many rows; `how` says how production's outputs are read.

    Model outputs must hold what production decides by. A prediction (`predict` of MLflow) may lack the probabilities, and a bare one
    is taken for the label, for the probabilities where it is a matrix, for the value of a regression. None: it cannot stand beside
    production's.
    """
    names = [name for name, _ in answer.outputs]
    outputs = [array for _, array in answer.outputs]
    if names == [""]:
        how, names = _named(how, outputs[0])
    wanted = {name for name in (how.label_output, how.score_output) if name is not None}
    has_enough = not wanted.isdisjoint(names) if answer.is_prediction and wanted else wanted <= set(names)
    if not outputs or not has_enough or any(array.ndim == 0 or len(array) != rows for array in outputs):
        return None
    labels, scores = read(how, names, outputs)
    return names, outputs, labels, scores


def _named(how: Answer, output: Array) -> tuple[Answer, list[str]]:
    """A bare output by the name of what it is most likely to be."""
    is_matrix = output.ndim > 1 and output[0].size > 1 if len(output) else False
    if how.score_output is not None and (how.kind == "regression" or (is_matrix and output.dtype.kind == "f")):
        return how, [how.score_output]
    if how.kind == "classification":
        return replace(how, label_output=how.label_output or _BARE), [how.label_output or _BARE]
    return how, [how.label_output or _BARE]
