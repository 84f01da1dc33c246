"""Whether a model can stand behind an endpoint: it may ignore inputs, never need more, and its answers must look the same. Pure."""

from models.signature import Answer, Signature, TensorSpec
from models.staged import StagedModel


def differences(declared: Signature, declared_answer: Answer, candidate: StagedModel) -> list[str]:
    """What stands against serving `candidate` under the endpoint's declared signature; empty when nothing does.

    Each is one readable sentence: `input 'age': endpoint declares INT64 [-1, 1], model wants FP32 [-1, 1]`.
    """
    signature = candidate.signature
    return [
        *_form(declared, signature),
        *_inputs(declared.inputs, signature.inputs),
        *_outputs(declared.outputs, signature.outputs),
        *_answers(declared_answer, candidate.answer),
    ]


def ignored(declared: Signature, candidate: StagedModel) -> list[str]:
    """Declared inputs that the candidate does not read; allowed, but worth showing."""
    read = {spec.name for spec in candidate.signature.inputs}
    return [spec.name for spec in declared.inputs if spec.name not in read]


def _form(declared: Signature, signature: Signature) -> list[str]:
    if declared.columns == signature.columns:
        return []
    names = {True: "columns", False: "tensors"}
    return [f"inputs: endpoint declares {names[declared.columns]}, model wants {names[signature.columns]}"]


def _inputs(declared: tuple[TensorSpec, ...], wanted: tuple[TensorSpec, ...]) -> list[str]:
    by_name = {spec.name: spec for spec in declared}
    found: list[str] = []
    for spec in wanted:
        other = by_name.get(spec.name)
        if other is None:
            if not spec.optional:
                found.append(
                    f"input '{spec.name}': endpoint does not declare it, model wants {_type(spec)}; callers do not send it: log the model with it as optional, or override and change the callers"
                )
        elif other.datatype != spec.datatype or not _fits(other.shape, spec.shape):
            found.append(f"input '{spec.name}': endpoint declares {_type(other)}, model wants {_type(spec)}")
        elif other.optional and not spec.optional:
            found.append(f"input '{spec.name}': endpoint declares it optional, model requires it")
    return found


def _outputs(declared: tuple[TensorSpec, ...], given: tuple[TensorSpec, ...]) -> list[str]:
    by_name = {spec.name: spec for spec in given}
    found: list[str] = []
    for spec in declared:
        other = by_name.pop(spec.name, None)
        if other is None:
            found.append(f"output '{spec.name}': endpoint declares {_type(spec)}, model has no such output")
        elif other.datatype != spec.datatype or not _fits(other.shape, spec.shape):
            found.append(f"output '{spec.name}': endpoint declares {_type(spec)}, model gives {_type(other)}")
    found += [
        f"output '{name}': endpoint does not declare it, model gives {_type(spec)}" for name, spec in by_name.items()
    ]
    return found


def _answers(declared: Answer, given: Answer) -> list[str]:
    """Labels in another order would be scored, shown and compared as each other."""
    found: list[str] = []
    if declared.kind != given.kind:
        found.append(f"answer: endpoint declares {declared.kind}, model gives {given.kind}")
    if declared.classes != given.classes:
        found.append(f"labels: endpoint declares {_labels(declared)}, model gives {_labels(given)}")
    for part in ("label_output", "score_output"):
        wanted, got = getattr(declared, part), getattr(given, part)
        if wanted != got:
            found.append(f"{part.replace('_', ' ')}: endpoint declares {wanted or 'none'}, model gives {got or 'none'}")
    return found


def _fits(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Shapes of the same rank whose sizes agree wherever both are fixed; rows must be free in both or in neither."""
    if len(one) != len(other):
        return False
    free_rows = [bool(shape) and shape[0] == -1 for shape in (one, other)]
    return free_rows[0] == free_rows[1] and all(a == b or -1 in {a, b} for a, b in zip(one, other, strict=True))


def _type(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"


def _labels(answer: Answer) -> str:
    return "none" if answer.classes is None else str(list(answer.classes))
