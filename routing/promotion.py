"""Edits of a route, each from one valid route to another; what they would break is refused with all its problems."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from routing.errors import Problem, RouteInvalid
from routing.traffic import Mirror, Route, Variant, to_document
from routing.validate import validate

Arm = TypeVar("Arm", Variant, Mirror)


def promote(route: Route, arm: str, ref: str) -> Route:
    """The champion takes `ref`, the version that the variant or mirror `arm` serves now, and all traffic.

    Its weight becomes 1 and every other variant's 0: a third arm that kept its weight would be dealt most units by comparison.
    Mirrors of the promoted version go, since they would mirror the champion's own model; a rollout (`steps`) has come to its end.
    Raises RouteInvalid when there is no such arm, when it is the champion, or when `ref` is no reference.
    """
    if arm == route.champion:
        raise RouteInvalid([Problem("variant", "already_champion", f"'{arm}' is the champion", "name another arm")])
    if arm not in route.models:
        names = ", ".join(name for name in route.models if name != route.champion)
        message = f"no variant or mirror with a model of its own is called '{arm}'"
        raise RouteInvalid([Problem("variant", "variant_unknown", message, f"arms here: {names or 'none'}")])
    variants = tuple(
        msgspec.structs.replace(variant, model=ref, weight=1.0)
        if variant.name == route.champion
        else msgspec.structs.replace(variant, weight=0.0)
        for variant in route.variants
    )
    mirrors = tuple(mirror for mirror in route.mirrors if mirror.name != arm and mirror.model != ref)
    return _checked(msgspec.structs.replace(route, variants=variants, mirrors=mirrors, steps=()))


def set_weights(route: Route, weights: Mapping[str, float]) -> Route:
    """New weights by name; arms not named keep theirs. Raises RouteInvalid for unknown names and for weights that cannot be."""
    names = [variant.name for variant in route.variants]
    unknown = [
        Problem(
            f"weights.{name}", "variant_unknown", f"no variant is called '{name}'", f"variants here: {', '.join(names)}"
        )
        for name in weights
        if name not in names
    ]
    document = to_document(route)
    document["variants"] = [
        {**msgspec.structs.asdict(variant), "weight": weights.get(variant.name, variant.weight)}
        for variant in route.variants
    ]
    try:
        edited = validate(document)
    except RouteInvalid as error:
        raise RouteInvalid([*unknown, *error.problems]) from None
    if unknown:
        raise RouteInvalid(unknown)
    return edited


def set_variant(route: Route, variant: Variant) -> Route:
    """Adds the variant, or puts it in the place of the one of its name. Raises RouteInvalid."""
    return _checked(msgspec.structs.replace(route, variants=_placed(route.variants, variant)))


def set_mirror(route: Route, mirror: Mirror) -> Route:
    """Adds the mirror, or puts it in the place of the one of its name. Raises RouteInvalid."""
    return _checked(msgspec.structs.replace(route, mirrors=_placed(route.mirrors, mirror)))


def drop_arm(route: Route, name: str) -> Route:
    """Takes out a variant or mirror. Raises RouteInvalid when it is not there, is the champion, or a rule still names it."""
    variants = tuple(variant for variant in route.variants if variant.name != name)
    mirrors = tuple(mirror for mirror in route.mirrors if mirror.name != name)
    if len(variants) + len(mirrors) == len(route.variants) + len(route.mirrors):
        raise RouteInvalid([Problem("", "variant_unknown", f"no variant or mirror is called '{name}'")])
    return _checked(msgspec.structs.replace(route, variants=variants, mirrors=mirrors))


def _placed(arms: tuple[Arm, ...], arm: Arm) -> tuple[Arm, ...]:
    return tuple(({other.name: other for other in arms} | {arm.name: arm}).values())


def _checked(route: Route) -> Route:
    """The edited route as `validate` reads it: an edit can make nothing that a document could not."""
    return validate(to_document(route))
