"""`runoff apply`: each document against its route; shows what differs, changes only that, goes on after a failure, and says so at the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.commands.documents import problems_of
from gateway.commands.talk import change_lines, percents, show_json, show_lines, waiting
from runoff import NotSendable, RequestRefused, Runoff
from runoff.errors import problem_line

Document = dict[str, Any]


def apply_all(
    client: Runoff,
    documents: Sequence[tuple[Path, Document]],
    *,
    reason: str,
    wait_s: float,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Whether every document could be applied. Raises GatewayUnreachable at once: then nothing else would work either."""
    results = []
    for path, document in documents:
        try:
            with waiting(f"{document.get('endpoint')}: preparing and warming …"):
                plan = client.plan(document)
                if dry_run:
                    result = _planned(plan)
                else:
                    done = client.apply(document, reason=reason, wait_s=wait_s, plan=plan)
                    result = {**done, "warnings": plan["warnings"]}
        except RequestRefused as error:
            result = _refused(document, str(error), error.code, error.problems)
        except NotSendable as error:
            problems = problems_of(document)
            text = "\n".join([str(error), *(f"  {problem}" for problem in problems)])
            result = _refused(document, text, "not_sendable", [msgspec.to_builtins(one) for one in problems])
        results.append({"file": str(path), **result})
        if not as_json:
            _show(results[-1])
    if as_json:
        show_json(results)
    return all(result["state"] not in {"refused", "failed"} for result in results)


def _refused(document: Document, text: str, code: str, problems: Sequence[Document]) -> Document:
    name = document.get("endpoint")
    return {"endpoint": name, "state": "refused", "error": text, "changes": [], "problems": problems, "code": code}


def _planned(plan: Document) -> Document:
    state = "refused" if plan["problems"] else "planned" if plan["changes"] else "unchanged"
    kept = (
        "endpoint",
        "revision",
        "problems",
        "changes",
        "models",
        "memory_bytes",
        "moves",
        "moved",
        "shares",
        "shares_now",
        "warnings",
    )
    return {name: plan[name] for name in kept if name in plan} | {"state": state}


def _show(result: Document) -> None:
    if result["state"] in {"unchanged", "planned"}:
        show_lines(f"{result['endpoint']}: {result['state']}")
    elif result["state"] == "refused":
        show_lines(f"{result['endpoint']}: refused: {result.get('error', '')}".removesuffix(": "))
    else:
        show_lines(*change_lines(result))
    if result["state"] in {"planned", "refused"}:
        show_lines(*(f"  {change}" for change in result["changes"]))
    if result["state"] == "planned":
        show_lines(f"  shares: {_shares(result)}; {result['moved']:.1%} of units move")
        show_lines(*(f"    {move['share']:.1%} {move['source']} → {move['target']}" for move in result["moves"]))
        show_lines(*(line for model in result["models"] if (line := _to_load(model))))
    show_lines(*(f"  note: {problem_line(note)}" for note in result.get("warnings", ())))
    if "error" not in result:
        show_lines(*(f"  {problem_line(problem)}" for problem in result.get("problems", ())))


def _shares(result: Document) -> str:
    """`champion 90.0% → 80.0%  challenger 10.0% → 20.0%`; of an endpoint that is not live yet those to come."""
    now, then = result["shares_now"], result["shares"]
    if not now:
        return percents(then)
    moved = ((name, now.get(name, 0.0), then.get(name, 0.0)) for name in dict.fromkeys([*then, *now]))
    return "  ".join(
        f"{name} {before:.1%}" + ("" if before == after else f" → {after:.1%}") for name, before, after in moved
    )


_STATES: Final = {
    "staged": "to be loaded",
    "to_stage": "to be fetched, converted and loaded",
    "unknown": "the registry does not say which version that is",
}


def _to_load(model: Document) -> str | None:
    """What a change has to do for one arm's model; None: it is loaded."""
    if model["state"] == "loaded":
        return None
    memory = f", {model['memory_bytes'] / 1e6:.1f} MB a worker" if model["memory_bytes"] else ""
    return f"  model of {model['arm']}: {model['model'] or model['reference']}: {_STATES[model['state']]}{memory}"
