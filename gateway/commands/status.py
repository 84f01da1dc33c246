"""`runoff status`: one screen of what is served, by whom, and what is on its way; drawn anew each second for people who watch."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from gateway.commands.talk import escaped, grid, percents
from gateway.commands.talk import screen as terminal
from runoff import Runoff, RunoffError


def watch(client: Runoff, *, every_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Until interrupted. A gateway that goes away is shown as that, and looked for again."""
    with Live(screen(client), screen=True, auto_refresh=False) as live:
        while True:
            sleep(every_s)
            try:
                live.update(screen(client), refresh=True)
            except RunoffError as error:
                live.update(Text(str(error), "red"), refresh=True)


def once(client: Runoff) -> None:
    terminal().print(screen(client))


def screen(client: Runoff) -> Group:
    runtime, routes = client.status(), client.routes()
    workers = len(runtime["workers"])
    rows = [
        {
            "endpoint": route["endpoint"],
            "revision": _revision(route),
            "shares": percents(route["shares"]),
            "versions": route["versions"],
            "mirrors": route["mirrors"],
            "active": f"{route['workers']['active']}/{route['workers']['live']}",
            "in flight max": route["document"]["limits"]["concurrency_max"] * max(workers, 1),
            "following": route["following"],
            "steps": route["steps"],
            "problem": route["problem"],
        }
        for route in routes
    ]
    columns = (
        "endpoint",
        "revision",
        "shares",
        "versions",
        "mirrors",
        "active",
        "in flight max",
        "following",
        "steps",
        "problem",
    )
    parts: list[Any] = [_headline(runtime, workers), Text()]
    parts.append(grid(rows, columns) if rows else Text("no routes yet: runoff apply route.yaml --reason …"))
    parts += [Text(_alarm(route), "bold red") for route in routes if route["alarm"]]
    parts += [_move(move) for move in runtime["alias_moves"]]
    if runtime["registry"]["problem"]:
        parts.append(Text(f"aliases are not followed now: {runtime['registry']['problem']}", "yellow"))
    if not runtime["audit"]["intact"]:
        parts.append(Text(f"the audit was changed at row {runtime['audit']['broken_at']}", "bold red"))
    return Group(*parts)


def _revision(route: Mapping[str, Any]) -> str:
    """The live revision, and the one on its way."""
    live = str(route["live"] or "none")
    return live if route["revision"] == route["live"] else f"{live} → {route['revision']} {route['state']}"


def _alarm(route: Mapping[str, Any]) -> str:
    name = route["endpoint"]
    return f"{name}: steps paused: {route['alarm']}; runoff resume {name} goes on, runoff rollback {name} goes back"


def _move(move: Mapping[str, Any]) -> Text:
    what, tries = f"alias {move['name']}@{move['alias']}", move["attempts"]
    if move["state"] == "failed":
        text = f"{what} was not moved to version {move['version']}: {move['problem']}; move it by hand if it should be"
        return Text(text, "bold red")
    tried = f" ({tries} {'try' if tries == 1 else 'tries'})" if tries else ""
    return Text(f"{what} waits to move to version {move['version']}: {move['problem'] or 'soon'}{tried}", "yellow")


def _headline(runtime: Mapping[str, Any], workers: int) -> Text:
    listeners = "  ".join(f"{name} {address}" for name, address in runtime["listeners"].items())
    return Text.from_markup(f"[bold]{workers} worker{'' if workers == 1 else 's'}[/bold]  {escaped(listeners)}")
