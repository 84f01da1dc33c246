"""The demo as it is told: train, serve, replay July, move the split, read the evidence, report, promote."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from gateway.demo import report, words
from gateway.demo.callers import UNIT_HEADER
from gateway.demo.flights import FlightsMissing, data_folder
from gateway.demo.lake import counts
from gateway.demo.models import CANDIDATE, MODEL, RECIPES
from gateway.demo.plots import Move
from gateway.demo.processes import DemoFailed, Gateway, World, train
from gateway.demo.view import View
from gateway.demo.watch import Sight, Watcher, certificates
from runoff import GatewayUnreachable, Runoff, RunoffError

_FIRST_SHARE: Final = 10
_EVEN_SHARE: Final = 50
_MOVE_AT: Final = 0.35
_LAKE_S: Final = 60.0
_ANSWER_S: Final = 120.0
_START_S: Final = 60.0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How much of July, in how much of our time, by models that learned from how many rows."""

    days: int = 31
    seconds: float = 75.0
    rows: int = 40_000


FULL: Final = Pace()
QUICK: Final = Pace(days=3, seconds=12.0)


def tell(state_dir: Path | None, *, keep: bool, quick: bool, as_json: bool) -> int:
    """The whole story; the exit status. What people read goes to standard output, or with `as_json` to standard error."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        _require()
        done = _told(_fresh(state_dir), QUICK if quick else FULL, console, keep=keep)
    except (DemoFailed, FlightsMissing, RunoffError) as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"runoff demo: {error}")
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    if as_json:
        print(json.dumps(done, indent=2))  # noqa: T201 - what was asked for
    return 0 if done["consistent"] else 1


def _told(state_dir: Path, pace: Pace, console: Console, *, keep: bool) -> dict[str, Any]:
    began = time.monotonic()
    with ExitStack() as running:
        _train(state_dir, pace, console)
        with _step(console, "starting the gateway"):
            gateway = running.enter_context(Gateway(state_dir, workers=max(1, min(4, _cores() - 1))))
            addresses = gateway.addresses()
            client = running.enter_context(Runoff(addresses.admin, data_url=addresses.rest, timeout_s=_ANSWER_S))
            world = running.enter_context(World(addresses, state_dir / "client", days=pace.days, seconds=pace.seconds))
            _await_admin(client, gateway)
        console.print(f"  REST {addresses.rest}   gRPC {addresses.grpc}   admin {addresses.admin}")
        with _step(console, "fetching, converting and proving the models"):
            moves = [_open(client)]
        _certificates(addresses.admin, console)
        watcher = Watcher(client, addresses.metrics)
        running.callback(watcher.close)
        sight = _run_july(world, watcher, client, gateway, moves, console)
        with _step(console, "waiting for the lake to hold what was recorded"):
            _await_lake(f"{state_dir}/lake", sight)
        file = state_dir / "report.html"
        with _step(console, "reading the lake, writing the report"):
            watcher.look()
            findings, verdict = report.write(
                f"{state_dir}/lake", state_dir / "client", moves, watcher.sight.evidence, file
            )
        consistent = all(check.holds for check in findings.checks)
        _say_verdict(console, findings.arms, verdict, consistent=consistent)
        promoted = _promote(client, verdict, console)
        console.print(f"\n[bold]The report:[/bold] {file.as_uri()}", soft_wrap=True)
        console.print(f"[grey58]{time.monotonic() - began:.0f} s in all; state in {state_dir}[/grey58]", soft_wrap=True)
        done = {
            "report": str(file),
            "state_dir": str(state_dir),
            "headline": verdict.headline,
            "best": verdict.best,
            "sentences": list(verdict.sentences),
            "arms": {name: _arm(arm) for name, arm in findings.arms.items()},
            "summary": {name: _plain(value) for name, value in findings.summary.items()},
            "checks": [{"claim": check.claim, "first": check.here, "second": check.there} for check in findings.checks],
            "consistent": consistent,
            "promoted": promoted,
            "moves": [msgspec.to_builtins(_move(move)) for move in moves],
        }
        if keep:
            _stay(console, addresses, gateway)
    return done


# ---------------------------------------------------------------- chapters


def _train(state_dir: Path, pace: Pace, console: Console) -> None:
    with _step(console, "training three models in an MLflow project"):
        found = {str(model["alias"]): model for model in train(state_dir, pace.rows)}
    for recipe in RECIPES:
        if recipe.alias not in found:
            raise DemoFailed(f"the training registered no {recipe.alias}")
        console.print(
            f"  {recipe.alias:<11} version {found[recipe.alias]['version']}  {recipe.family}, {recipe.months}: {recipe.story}"
        )


def _open(client: Runoff) -> Move:
    """The first route."""
    reason = "the challenger gets a tenth to begin with; the candidate looks on"
    reply = client.apply(
        {
            "endpoint": MODEL,
            "unit": {"header": UNIT_HEADER},
            "champion": "champion",
            "variants": [
                {"name": "champion", "model": f"models:/{MODEL}@champion", "weight": 100 - _FIRST_SHARE},
                {"name": "challenger", "model": f"models:/{MODEL}@challenger", "weight": _FIRST_SHARE},
            ],
            "mirrors": [{"name": CANDIDATE, "model": f"models:/{MODEL}@candidate"}],
            "label": {"exogenous": True},
        },
        reason=reason,
        wait_s=_ANSWER_S,
    )
    if reply["state"] != "live":
        raise DemoFailed(f"the route is {reply['state']} and not live: {reply.get('problems')}")
    return Move(revision=int(reply["revision"]), share=_FIRST_SHARE / 100, reason=reason)


def _certificates(admin_url: str, console: Console) -> None:
    for name, certificate in certificates(admin_url).items():
        console.print(
            f"  {name} runs as ONNX, equal to the original on {certificate['rows']:,} rows "
            f"(largest difference of a probability {certificate['score_difference_max']:.0e})"
        )


def _run_july(
    world: World, watcher: Watcher, client: Runoff, gateway: Gateway, moves: list[Move], console: Console
) -> Sight:
    """Lets July happen; moves the split once, while it does."""
    watcher.sight.reason = moves[0].reason
    with View(console) as view:
        world.go()
        for progress in world.progress():
            gateway.check()
            sight = watcher.see(progress)
            if len(moves) == 1 and progress.asked >= _MOVE_AT * progress.total and sight.agreement is not None:
                moves.append(_even(client, sight))
                sight.reason = moves[-1].reason
                view.note(f"{_EVEN_SHARE} to {_EVEN_SHARE} from now on: {moves[-1].reason}")
            view.show(sight)
    if watcher.sight.progress.answered == 0:
        raise DemoFailed(f"no request was answered: {watcher.sight.progress.problem}")
    return watcher.sight


def _even(client: Runoff, sight: Sight) -> Move:
    """Half and half, for a reason that can be read in the history."""
    progress = sight.progress
    reason = f"{progress.by_variant.get('challenger', 0):,} answers by the challenger, {progress.failed:,} failures: even shares, to decide within July"
    reply = client.split(MODEL, champion=100 - _EVEN_SHARE, challenger=_EVEN_SHARE, reason=reason)
    return Move(revision=int(reply["revision"]), share=_EVEN_SHARE / 100, reason=reason)


def _await_lake(uri: str, sight: Sight) -> None:
    """Until the lake holds every answer, every accepted label, and every row that the candidate has answered."""
    progress = sight.progress
    wanted = {
        "predictions": progress.answered,
        "labels": progress.labels,
        "shadows": progress.answered - sight.mirror_dropped,
    }
    deadline = time.monotonic() + _LAKE_S
    while True:
        found = counts(uri)
        if all(found[table] >= rows for table, rows in wanted.items()):
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"after {_LAKE_S:.0f} s the lake holds {found}, wanted {wanted}")
        time.sleep(0.25)


def _say_verdict(console: Console, arms: dict[str, Any], verdict: words.Verdict, *, consistent: bool) -> None:
    console.print(f"\n[bold]{verdict.headline}[/bold]")
    for sentence in verdict.sentences:
        console.print(f"  • {sentence}")
    for name, right, loss, rows in words.table(arms):
        console.print(f"    {name:<11} right {right:>6}   log loss {loss}   {rows:>7} flights")
    console.print(
        "  Every answer, record and label that the applications counted is in the lake, and nothing else."
        if consistent
        else "  [bold red]The applications' log and the lake differ; the report says where.[/bold red]"
    )


def _promote(client: Runoff, verdict: words.Verdict, console: Console) -> dict[str, Any] | None:
    """Makes the best model champion, for a reason that stands in the history. None when nothing is shown to be better."""
    if verdict.best is None:
        return None
    began = time.monotonic()
    is_mirror = verdict.best == CANDIDATE
    reply = client.promote(
        MODEL,
        reason=verdict.headline,
        variant=None if is_mirror else verdict.best,
        mirror=CANDIDATE if is_mirror else None,
    )
    took_ms = 1e3 * (time.monotonic() - began)
    console.print(
        f"\n[bold]Promoted:[/bold] the {verdict.best} is champion since revision {reply['revision']}, {took_ms:.0f} ms after the call; "
        f"`runoff rollback` takes it back.",
        soft_wrap=True,
    )
    return {"arm": verdict.best, "revision": reply["revision"], "state": reply["state"]}


def _stay(console: Console, addresses: Any, gateway: Gateway) -> None:
    """Until Ctrl-C."""
    row = '{"dataframe_records": [{"carrier": "B6", "origin": "JFK", "dest": "BOS", "departure_minute": 1080, "weekday": 4, "overdue": 12}]}'
    console.print(
        "\n[bold]The gateway stays up until Ctrl-C. Try, in another terminal:[/bold]\n"
        f"  export RUNOFF_URL={addresses.admin}\n"
        f"  runoff history {MODEL}\n"
        f"  runoff ledger {MODEL}\n"
        f"  runoff rollback {MODEL} --reason 'only to see it'\n"
        f"  curl -s {addresses.rest}/v2/models/{MODEL}\n"
        f"  curl -s {addresses.rest}/invocations -H 'content-type: application/json' -d '{row}'\n"
        f"  curl -s {addresses.metrics}",
        soft_wrap=True,
        markup=True,
    )
    try:
        while True:
            gateway.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("\nstopping the gateway")


# ---------------------------------------------------------------- helpers


def _require() -> None:
    """Before minutes have passed, not after. Raises FlightsMissing."""
    data_folder()
    if find_spec("matplotlib") is None:
        raise FlightsMissing("the demo's report needs matplotlib: pip install 'runoff[demo]'")


def _fresh(state_dir: Path | None) -> Path:
    """An empty directory: what lay in an older one would be counted as ours. Raises DemoFailed."""
    if state_dir is None:
        return Path(tempfile.mkdtemp(prefix="runoff-demo-"))
    state_dir = state_dir.absolute()
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(state_dir.iterdir()):
        raise DemoFailed(f"{state_dir} is not empty; the demo starts from nothing")
    return state_dir


def _await_admin(client: Runoff, gateway: Gateway) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        gateway.check()
        try:
            client.status()
        except GatewayUnreachable:
            if time.monotonic() > deadline:
                raise gateway.failed("the admin listener does not answer") from None
            time.sleep(0.2)
        else:
            return


@contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    """Says what is being done while it lasts, and how long it took."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status(f"{text} …"):
            yield
    else:
        console.print(f"{text} …")
        yield
    console.print(f"[green]✓[/green] {text} [grey58]{time.monotonic() - began:.1f} s[/grey58]")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _arm(arm: Any) -> dict[str, Any]:
    return {
        "rows": arm.rows,
        "labelled": arm.labelled,
        "accuracy": arm.accuracy.value,
        "log_loss": arm.log_loss.value,
        "auc": arm.auc,
    }


def _move(move: Move) -> dict[str, Any]:
    return {"revision": move.revision, "challenger_share": move.share, "reason": move.reason}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
