"""Model versions and their tuning in a terminal: a line for each version, and what was measured of one of them."""

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from gateway.commands.talk import CommandFailed, grid, screen, show_lines, waiting
from runoff import Reply, Runoff, Table

Answer = Mapping[str, Any]

_PREFIX: Final = "models:/"
_INLINE_S: Final = 0.001
"""What a worker runs on its event loop (`gateway.dataplane.INLINE_S`); longer runs go to a thread."""


def version_of(text: str) -> tuple[str, str]:
    """Name and version of `models:/phishing/3` or `phishing/3`. Raises CommandFailed."""
    name, _, version = text.removeprefix(_PREFIX).rpartition("/")
    if not name or not version or "@" in text:
        raise CommandFailed(f"wanted models:/<name>/<version>, got '{text}'; `runoff models` lists what was staged")
    return name, version


def tune(
    client: Runoff,
    target: str,
    *,
    from_traffic: bool,
    reason: str,
    target_ms: float | None,
    int8: bool | None,
    score_tolerance: float | None,
    share_weights: bool | None,
) -> list[Reply]:
    """Tunes one version, or every version of an endpoint, each once. Raises CommandFailed or what the client raises."""
    replies = []
    for name, version, endpoint in _targets(client, target):
        if from_traffic and endpoint is None:
            raise CommandFailed(f"no endpoint serves {name}/{version}, so nothing of it is recorded")
        with waiting(f"measuring {name}/{version} …"):
            reply = client.tune(
                name,
                version,
                reason=reason,
                target_ms=target_ms,
                from_traffic=endpoint if from_traffic else None,
                int8=int8,
                score_tolerance=score_tolerance,
                share_weights=share_weights,
            )
        replies.append(reply)
    return replies


def show_models(found: Table) -> None:
    if not found:
        show_lines("no model was staged yet: runoff apply route.yaml --reason …")
        return
    rows = [
        {
            "model": f"{model['name']}/{model['version']}",
            "state": model["state"],
            "flavor": model.get("flavor"),
            "file": _size(model.get("size_bytes")),
            "memory": _size(model.get("memory_bytes")),
            **_tuned(model.get("tuned")),
            "used by": model["used_by"],
        }
        for model in found
    ]
    screen().print(grid(rows, tuple(rows[0])))


def show_model(model: Answer) -> None:
    name = f"{model['name']}/{model['version']}"
    console = screen()
    console.print(Text(name, "bold"))
    for field in ("state", "flavor", "uri", "digest", "used_by"):
        if model.get(field):
            value = model[field]
            console.print(
                Text(f"  {field.replace('_', ' ')}  {', '.join(value) if isinstance(value, list) else value}")
            )
    if model.get("state") == "missing":
        console.print("  its artifact is not here any more; it is staged again when a route needs it")
        return
    certificate = model.get("certificate")
    if certificate:
        console.print(Text(f"  certificate  {_certificate(certificate)}"))
    if model.get("profile"):
        show_profile(name, model["profile"])
    else:
        console.print(Text(f"  not tuned on this machine: runoff tune {_PREFIX}{name}"))


def show_profile(name: str, profile: Answer) -> None:
    """What was chosen, what it was compared with, and the curve."""
    console = screen()
    console.print(Text(f"{name}: {_said(profile['setting'])}, {profile['rows_max']} rows a run", "bold"))
    ask = profile["ask"]
    met = "" if profile["target_met"] else ", not met even with one row"
    console.print(
        Text(
            f"  {profile['processor']}, ONNX Runtime {profile['onnxruntime']}, {profile['threads_max']} threads at most;"
            f" target {ask['target_s'] * 1e3:g} ms a run{met}; {_size(profile['memory_bytes'])} a session; measured in {profile['took_s']:.1f} s"
        )
    )
    if traffic := profile.get("traffic"):
        console.print(
            Text(
                f"  traffic of {traffic['endpoint']}: {traffic['requests']} requests of {traffic['rows_p50']} rows (p50),"
                f" {traffic['rows_p95']} (p95), {traffic['rows_max']} (most); measured on {traffic['inputs'] or 'sample'} rows"
            )
        )
    if certificate := profile.get("certificate"):
        console.print(Text(f"  int8  {_certificate(certificate)}"))
    plain = profile["trials"][0]["rows_per_s"] if profile["trials"] else None
    trials = [
        {
            "setting": _said(trial["setting"]),
            "rows": trial["rows"],
            "run": _span(trial["seconds"]),
            "rows/s": f"{trial['rows_per_s']:,.0f}",
            "against plain": f"{trial['rows_per_s'] / plain:.2f} ×",
            "": "chosen" if trial["setting"] == profile["setting"] else None,
        }
        for trial in profile["trials"]
    ]
    if trials:
        console.print(grid(trials, tuple(trials[0])))
    curve = [
        {
            "rows": int(rows),
            "run": _span(seconds),
            "a row": _span(seconds / int(rows)),
            "runs": "on the loop" if seconds <= _INLINE_S else "on a thread",
            "": "batch" if int(rows) == profile["rows_max"] else None,
        }
        for rows, seconds in sorted(profile["seconds_by_rows"].items(), key=lambda point: int(point[0]))
    ]
    console.print(grid(curve, tuple(curve[0])))
    for reason in profile["skipped"]:
        console.print(Text(f"  not measured: {reason}", "dim"))


def _targets(client: Runoff, target: str) -> list[tuple[str, str, str | None]]:
    """(name, version, an endpoint that has it) of each version meant. Raises CommandFailed."""
    staged = client.models()
    if target.startswith(_PREFIX):
        name, version = version_of(target)
        users = [
            used
            for model in staged
            if (model["name"], model["version"]) == (name, version)
            for used in model["used_by"]
        ]
        return [(name, version, users[0].partition("/")[0] if users else None)]
    found = [
        (model["name"], model["version"], target)
        for model in staged
        if any(used.partition("/")[0] == target for used in model["used_by"])
    ]
    if not found:
        raise CommandFailed(f"endpoint '{target}' serves no model; `runoff routes` lists the endpoints")
    return list(dict.fromkeys(found))


def _tuned(tuned: Answer | None) -> dict[str, Any]:
    if tuned is None:
        return {"batch": "not tuned", "run": None, "rows/s": None, "threads": None}
    form = "" if tuned["form"] == "plain" else f" {tuned['form']}"
    return {
        "batch": f"{tuned['rows_max']}{form}",
        "run": _span(tuned["run_s"]),
        "rows/s": f"{tuned['rows_per_s']:,.0f}",
        "threads": tuned["threads"],
    }


def _said(setting: Answer) -> str:
    """A setting in words: `1 thread`, `2 threads, arena off, optimisation basic, int8`."""
    words = [f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"]
    if setting["runs"] > 1:
        words.append(f"{setting['runs']} runs at once")
    if not setting["arena"]:
        words.append("arena off")
    if setting["optimisation"] != "all":
        words.append(f"optimisation {setting['optimisation']}")
    if setting["form"] != "plain":
        words.append(setting["form"])
    if setting.get("shares_weights"):
        words.append("weights shared by the workers")
    return ", ".join(words)


def _certificate(certificate: Answer) -> str:
    return f"{certificate['rows']} rows, labels equal, scores within {certificate['score_difference_max']:.2g} of {certificate['original']}"


def _span(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size), ("µs", 1e-6))
    return f"{seconds / size:.3g} {unit}"


def _size(size_bytes: int | None) -> str | None:
    """Bytes in the largest unit that they fill; None where that is not known."""
    if not size_bytes:
        return None
    unit, size = next(
        ((unit, size) for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if size_bytes >= size), ("B", 1.0)
    )
    return f"{size_bytes / size:.3g} {unit}"
