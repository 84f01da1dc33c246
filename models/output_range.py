"""Whether a version answers in the range of the one whose place it would take, on the same rows: minutes for seconds, logits for chances."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from models.batching import fill_samples
from models.errors import InputInvalid, ModelFailed
from models.runtime.onnx import OnnxSession
from models.signature import TensorSpec
from models.signature_check import check
from models.staged import StagedModel
from models.tensors import FLOATING, INTEGRAL, Array

_CENTRAL: Final = (0.01, 0.99)
"""Quantiles of the new answers that must lie in range: single rows far out are no fault of a whole version."""

Outputs = Mapping[str, Array]


def differences(
    serving: StagedModel, candidate: StagedModel, artifacts: Path, recorded: Mapping[str, Array] | None = None
) -> list[str]:
    """What stands against `candidate` in the place of `serving`; each a readable sentence, none where nothing does.

    `recorded` are rows that production has seen, by input name; without any the samples of `serving` are taken. Both artifacts lie below
    `artifacts`. Blocks while both models run once. Raises ArtifactInvalid.

    A numeric output is in range when the central 98% of its values lie within those of `serving`, widened on either side by their own
    magnitude (the larger of their width and their distance from zero); a classifier's scores between 0 and 1 need only stay there.
    """
    kind = "recorded" if recorded else "sample"
    rows = recorded or dict(
        zip((spec.name for spec in serving.signature.inputs), _samples(serving, artifacts), strict=True)
    )
    try:
        before = _run(serving, artifacts, rows)
    except (InputInvalid, ModelFailed):
        return []  # where the version that serves has no answer there is nothing to compare with
    try:
        after = _run(candidate, artifacts, rows)
    except (InputInvalid, ModelFailed) as error:
        return [f"{candidate.key} fails on {kind} rows that {serving.key} answers: {error}"]
    found = []
    for spec in serving.signature.outputs:
        if spec.datatype in FLOATING | INTEGRAL and spec.name in after and spec.name != serving.answer.label_output:
            problem = _compare(spec, before[spec.name], after[spec.name], is_score=_is_score(serving, spec))
            if problem:
                found.append(f"output '{spec.name}' on {len(before[spec.name])} {kind} rows: {problem}")
    return found


def _samples(staged: StagedModel, artifacts: Path) -> list[Array]:
    return fill_samples(staged, artifacts / staged.digest)


def _run(staged: StagedModel, artifacts: Path, rows: Mapping[str, Array]) -> Outputs:
    names = [spec.name for spec in staged.signature.inputs]
    inputs, _ = check(staged.signature, {name: rows[name] for name in names if name in rows})
    session = OnnxSession(artifacts / staged.digest / staged.file)
    session.input_names = tuple(names)
    outputs = [spec.name for spec in staged.signature.outputs]
    return dict(zip(outputs, session.run(inputs, outputs), strict=True))


def _is_score(staged: StagedModel, spec: TensorSpec) -> bool:
    return staged.answer.kind == "classification" and spec.name == staged.answer.score_output


def _compare(spec: TensorSpec, before: Array, after: Array, *, is_score: bool) -> str | None:
    """The sentence of one output, None where it is in range."""
    old, new = before.astype(np.float64).ravel(), after.astype(np.float64).ravel()
    if spec.datatype in FLOATING:
        broken = int((~np.isfinite(new)).sum())
        if broken and np.isfinite(old).all():
            return f"{broken} of {len(new)} values are not finite, and all of the serving version's are"
    old, new = old[np.isfinite(old)], new[np.isfinite(new)]
    if not len(old) or not len(new):
        return None
    least, most = float(old.min()), float(old.max())
    reach = max(most - least, abs(least), abs(most))
    low, high = (float(value) for value in np.quantile(new, _CENTRAL))
    if is_score and 0 <= least <= most <= 1:
        wanted = (0.0, 1.0)
    elif reach == 0:  # nothing but zeros: it says nothing of what is usual
        return None
    else:
        wanted = (least - reach, most + reach)
    if wanted[0] <= low and high <= wanted[1]:
        return None
    return (
        f"values lie between {low:.4g} and {high:.4g}, those of the serving version between {least:.4g} and {most:.4g}"
    )
