"""Parts of a route that are each well formed and do not go together: names twice, arms that are not there, a split without a weight."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from routing.errors import Problem
from routing.ramp import dead_ends
from routing.split import ARMS_MAX
from routing.traffic import FOUND_BY_PREDICTION, MIXED_RULE, Route, duration

MIRRORS_MAX: Final = 32
"""Drawn mirrors are the bits of one word."""

RULES_MAX: Final = 256
STEPS_MAX: Final = 64


def conflicts(route: Route, misread: Sequence[Problem] = ()) -> Iterator[Problem]:
    """Every contradiction, in the order of the document. `misread`: what was wrong already, whose parts are empty in `route`."""
    yield from _counts(route)
    yield from _duplicates(route)
    yield from _champion(route)
    yield from _weights(route, misread)
    yield from _mirrors(route)
    yield from _rules(route)
    yield from _steps(route, misread)
    yield from _sensitive(route)
    yield from _retention(route, misread)


def _counts(route: Route) -> Iterator[Problem]:
    for path, count, low, high in (
        ("variants", len(route.variants), 1, ARMS_MAX),
        ("mirrors", len(route.mirrors), 0, MIRRORS_MAX),
        ("rules", len(route.rules), 0, RULES_MAX),
        ("steps", len(route.steps), 0, STEPS_MAX),
    ):
        if not low <= count <= high:
            yield Problem(path, "out_of_range", f"wanted {low} to {high} {path}, got {count}")


def _duplicates(route: Route) -> Iterator[Problem]:
    """Variants and mirrors share one set of names: both are what evidence and promotions speak of."""
    variants = [(f"variants[{index}].name", variant.name) for index, variant in enumerate(route.variants)]
    mirrors = [(f"mirrors[{index}].name", mirror.name) for index, mirror in enumerate(route.mirrors)]
    yield from _repeated([*variants, *mirrors], "variants and mirrors need different names")
    yield from _repeated(
        [(f"rules[{index}].name", rule.name) for index, rule in enumerate(route.rules)], "rules need different names"
    )


def _repeated(names: Iterable[tuple[str, str]], remedy: str) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in names:
        if name and first.setdefault(name, path) != path:
            yield Problem(path, "duplicate_name", f"'{name}' is already {first[name].removesuffix('.name')}", remedy)


def _champion(route: Route) -> Iterator[Problem]:
    if (names := _names(route)) and route.champion not in names:
        remedy = f"set 'champion' to one of {', '.join(names)}"
        yield Problem("champion", "variant_unknown", f"no variant is called '{route.champion}'", remedy)


def _weights(route: Route, misread: Sequence[Problem]) -> Iterator[Problem]:
    is_misread = any(problem.path.startswith("variants[") and problem.path.endswith(".weight") for problem in misread)
    if route.variants and not is_misread and not any(variant.weight for variant in route.variants):
        yield Problem("variants", "weights_all_zero", "no variant has a weight above 0", "give the champion weight 1")


def _mirrors(route: Route) -> Iterator[Problem]:
    champion = {variant.model for variant in route.variants if variant.name == route.champion} - {""}
    for index, mirror in enumerate(route.mirrors):
        if mirror.model in champion:
            message = f"'{mirror.name}' would mirror the champion's own model {mirror.model}"
            yield Problem(
                f"mirrors[{index}].model", "mirror_of_itself", message, "name another version, or drop the mirror"
            )


def _rules(route: Route) -> Iterator[Problem]:
    for index, rule in enumerate(route.rules):
        yield from _known(route, f"rules[{index}].variant", rule.variant)
        if rule.name == MIXED_RULE:
            message = f"'{MIXED_RULE}' marks requests of mixed units in the records"
            yield Problem(f"rules[{index}].name", "reserved_name", message, "choose another name")
        pairs = [(condition.source, condition.name) for condition in rule.when]
        for source, name in sorted({pair for pair in pairs if pairs.count(pair) > 1}):
            yield Problem(
                f"rules[{index}].when.{source}", "duplicate_name", f"'{name}' stands there twice, in two spellings"
            )


def _steps(route: Route, misread: Sequence[Problem]) -> Iterator[Problem]:
    if not any(problem.path.startswith(("steps[", "variants[")) for problem in misread):
        for index in dead_ends(route.weights, route.steps):
            remedy = "let the step name an arm with a weight"
            yield Problem(
                f"steps[{index}].weights", "weights_all_zero", "no variant has a weight above 0 from here", remedy
            )
    for index, step in enumerate(route.steps):
        if not step.weights:
            yield Problem(
                f"steps[{index}].weights", "missing", "a step that sets no weight", "name an arm and its weight"
            )
        for name, _ in step.weights:
            yield from _known(route, f"steps[{index}].weights.{name}", name)


def _sensitive(route: Route) -> Iterator[Problem]:
    masked = dict(route.record.mask)
    for index, name in enumerate(route.record.sensitive):
        if name in masked:
            message = f"'{name}' is masked, so that nothing is left to keep apart"
            yield Problem(f"record.sensitive[{index}]", "duplicate_name", message, f"leave record.mask.{name} out")
        if name in route.record.sensitive[:index]:
            yield Problem(f"record.sensitive[{index}]", "duplicate_name", f"'{name}' stands there twice")


def _retention(route: Route, misread: Sequence[Problem]) -> Iterator[Problem]:
    """What outlived its predictions could neither be used nor be found by whoever forgets a unit."""
    if any(problem.path in ("record.retention", "record.retention.predictions") for problem in misread):
        return
    retention = route.record.retention
    for table in FOUND_BY_PREDICTION:
        if (kept_s := retention.kept_s(table)) > retention.predictions_s:
            wanted = f"wanted at most {duration(retention.predictions_s)}, the retention of the predictions by which its rows are found"
            remedy = f"keep 'predictions' as long, or '{table}' no longer than these"
            yield Problem(
                f"record.retention.{table}", "outlives_predictions", f"{wanted}, got {duration(kept_s)}", remedy
            )


def _known(route: Route, path: str, name: str) -> Iterator[Problem]:
    names = _names(route)
    if name and names and name not in names:
        yield Problem(path, "variant_unknown", f"no variant is called '{name}'", f"variants here: {', '.join(names)}")


def _names(route: Route) -> list[str]:
    return list(dict.fromkeys(variant.name for variant in route.variants if variant.name))
