"""Whether a feature service fits an endpoint: its keys have a form on the wire, and what it has are inputs in their own types. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gateway.features.frames import Described, Feature
from gateway.state.compiled import CompiledFeatures, FeatureAttribute, FeatureInput
from models.signature import Signature, TensorSpec
from models.signature_check import is_widened
from models.tensors import FLOATING, INTEGRAL, NUMPY_OF
from routing.errors import Problem
from routing.traffic import Features

_SERVICE: Final = "features.service"
_NAMED_MAX: Final = 8


def fit(
    described: Described, route: Features, signature: Signature, sensitive: Sequence[str] = ()
) -> tuple[CompiledFeatures, list[Problem]]:
    """What workers look up by, and everything that stands against it.

    An input is filled by the feature of its name, or by the one whose full name (`view__feature`) it has. Features that are no inputs are
    left alone, but for those that `sensitive` names; inputs that are no features are sent by callers, as ever.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    matched, problems = _matched(described.features, specs)
    problems += _keys(described, specs)
    if described.requested:
        text = f"on-demand views want {_listed(described.requested)} of the request"
        problems.append(Problem(_SERVICE, "request_data_wanted", text, "leave those views out of the service"))
    if not matched and not problems:
        has = f"inputs are {_listed(list(specs))}; features are {_listed([one.name for one in described.features])}"
        remedy = "name the model's inputs as the features, or as view__feature"
        problems.append(Problem(_SERVICE, "features_unused", f"no feature is an input: {has}", remedy))
    for name, feature in matched.items():
        problems += _misfits(specs[name], feature)
    problems += _defaults(route, matched, specs)
    attributes, unkept = _attributes(described.features, sensitive, specs)
    problems += unkept
    keys = tuple(
        TensorSpec(name=key.name, datatype=key.datatype or "BYTES", shape=(-1, 1), optional=True)
        for key in described.keys
    )
    inputs = tuple(FeatureInput(name, feature.full, feature.is_list) for name, feature in matched.items())
    return CompiledFeatures(service=route.service, keys=keys, inputs=inputs, attributes=attributes), problems


def _matched(features: Sequence[Feature], specs: Mapping[str, TensorSpec]) -> tuple[dict[str, Feature], list[Problem]]:
    """By input, the feature that fills it."""
    matched = {feature.full: feature for feature in features if feature.full in specs}
    problems = []
    for name in specs:
        found = [feature for feature in features if feature.name == name and feature.full not in specs]
        if name in matched or not found:
            continue
        if len(found) > 1:
            views = _listed([feature.view for feature in found])
            remedy = f"name the input {found[0].full}, or leave one out of the service"
            problems.append(Problem(_SERVICE, "feature_ambiguous", f"'{name}' is in the views {views}", remedy))
        matched[name] = found[0]
    return {name: matched[name] for name in specs if name in matched}, problems


def _attributes(
    features: Sequence[Feature], sensitive: Sequence[str], specs: Mapping[str, TensorSpec]
) -> tuple[tuple[FeatureAttribute, ...], list[Problem]]:
    """The features that are kept apart and that no model sees; names that are neither inputs nor features are told elsewhere."""
    attributes, problems = [], []
    for index, name in enumerate(sensitive):
        found = [feature for feature in features if name in (feature.name, feature.full)]
        if name in specs or not found:
            continue
        path, feature = f"record.sensitive[{index}]", found[0]
        if len(found) > 1:
            views = _listed([one.view for one in found])
            problems.append(
                Problem(path, "feature_ambiguous", f"'{name}' is in the views {views}", f"write {feature.full}")
            )
        elif feature.datatype is None or feature.is_list:
            text = f"feature '{feature.full}' is {feature.kind}: wanted one text, number or truth a row"
            problems.append(Problem(path, "feature_type_differs", text))
        else:
            attributes.append(FeatureAttribute(name, feature.full, feature.datatype))
    return tuple(attributes), problems


def _keys(described: Described, specs: Mapping[str, TensorSpec]) -> Iterator[Problem]:
    if not described.keys:
        remedy = "use a service whose views have entities"
        yield Problem(_SERVICE, "keys_missing", "the service has no join key to look up by", remedy)
    for key in described.keys:
        spec = specs.get(key.name)
        if key.datatype is None:
            remedy = "give its entity the type STRING, INT64 or INT32"
            yield Problem(_SERVICE, "key_type_unsupported", f"join key '{key.name}' is {key.kind}", remedy)
        elif spec is not None and (spec.datatype != key.datatype or spec.shape not in ((-1, 1), (-1,))):
            text = f"join key '{key.name}' is {key.datatype}, and the input of this name {spec.datatype} {list(spec.shape)}"
            yield Problem(_SERVICE, "key_type_differs", text, "rename the key with with_join_key_map")


def _misfits(spec: TensorSpec, feature: Feature) -> Iterator[Problem]:
    """Types are widened where every value survives, as those of callers are; never narrowed."""
    if feature.datatype is None or not (
        feature.datatype == spec.datatype or is_widened(feature.datatype, spec.datatype)
    ):
        text = f"feature '{feature.full}' is {feature.kind}, and input '{spec.name}' wants {spec.datatype}"
        remedy = f"give the field a type that fits {spec.datatype}"
        yield Problem(_SERVICE, "feature_type_differs", text, remedy)
    tail = spec.shape[1:]
    fits = len(tail) == 1 and tail[0] > 0 if feature.is_list else tail in ((), (1,))
    if not fits or spec.shape[:1] != (-1,):
        wanted = "one vector" if feature.is_list else "one value"
        text = f"feature '{feature.full}' has {wanted} a row, and input '{spec.name}' is {list(spec.shape)}"
        yield Problem(_SERVICE, "feature_shape_differs", text, "use a model with one input a column")
    if not feature.is_online:
        text = f"view '{feature.view}' has online=False: no lookup would find it"
        yield Problem(_SERVICE, "view_offline", text, "set online=True and materialize it")


def _defaults(route: Features, matched: Mapping[str, Feature], specs: Mapping[str, TensorSpec]) -> Iterator[Problem]:
    for name, value in route.defaults:
        path = f"features.defaults.{name}"
        if name not in matched:
            known = _listed(list(matched)) or "none"
            yield Problem(path, "default_unknown", f"'{name}' is not looked up", f"looked up are {known}")
        elif not _is_possible(value, specs[name].datatype):
            text = f"wanted a value of {specs[name].datatype}, got {value!r}"[:160]
            yield Problem(path, "default_impossible", text)


def _is_possible(value: str | float | bool, datatype: str) -> bool:
    if isinstance(value, str) or datatype == "BYTES":
        return isinstance(value, str) and datatype == "BYTES"
    if isinstance(value, bool) or datatype == "BOOL":
        return isinstance(value, bool) and datatype == "BOOL"
    if datatype in FLOATING:
        return True
    if datatype not in INTEGRAL or value != int(value):
        return False
    size = 8 * NUMPY_OF[datatype].itemsize
    low, high = (0, 1 << size) if datatype.startswith("U") else (-1 << size - 1, 1 << size - 1)
    return low <= value < high


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
