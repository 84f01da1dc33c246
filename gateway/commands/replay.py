"""`runoff replay`: stages a version, shows it a recorded window in this process, at the lowest priority, and prints the ledger of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress

from gateway.commands.evidence import show_ledger
from gateway.commands.lake import label_window_s, local_lake, route_of, window
from gateway.commands.talk import CommandFailed, show_json, show_lines, waiting
from gateway.control.registry import Registries
from gateway.control.replay import NotRecorded, Question, Replayed, replay
from gateway.evidence import ledger
from gateway.evidence.paired import PairedTests
from gateway.evidence.query import Queries
from gateway.settings import Settings
from gateway.streams.table import CommitFailed
from models.artifacts import Artifacts
from models.catalog import Catalog, LoadedModel
from models.errors import ModelsError
from models.niceness import step_back
from models.ref import parse_ref
from routing.traffic import Route

_NICE = 10


def run_replay(
    settings: Settings,
    endpoint: str,
    *,
    against: str,
    variant: str | None,
    segment_by: str | None,
    since: str | None,
    until: str | None,
    rows_max: int,
    with_sensitive: bool = False,
    as_json: bool,
) -> None:
    """Raises CommandFailed."""
    since_unix_s, until_unix_s = window(since, until)
    step_back(_NICE)  # whoever serves on this machine comes first
    lake = local_lake(settings)
    route = route_of(settings, endpoint)
    queries = Queries(lake)
    model = _loaded(settings, against)
    question = Question(
        endpoint=endpoint,
        variant=variant or (None if route is None else route.champion),
        since_unix_s=since_unix_s,
        until_unix_s=until_unix_s,
        rows_max=rows_max,
        with_sensitive=with_sensitive,
    )
    try:
        with _progress() as on_progress:
            replayed = replay(queries, question, model, on_progress)
        told = _ledger(lake, question, replayed, route, segment_by, keys_in_use=settings.auth.data == "keys")
    except (NotRecorded, ValueError, CommitFailed) as error:
        raise CommandFailed(f"{endpoint}: {error}") from error
    if not replayed.pairs.num_rows:
        raise CommandFailed(
            f"{endpoint}: {replayed.predictions} predictions in this window"
            + (f", none with its inputs ({_lacking(replayed)})" if replayed.predictions else "")
        )
    if as_json:
        counts = {name: getattr(replayed, name) for name in ("predictions", "without_inputs", "kept_apart")}
        show_json({**told, **counts})
        return
    show_ledger(told)
    show_lines(f"  {replayed.pairs.num_rows} of {replayed.predictions} predictions replayed; nothing of it was stored")
    if replayed.without_inputs:
        show_lines(f"  {_lacking(replayed)}")


def _lacking(replayed: Replayed) -> str:
    apart = ", ".join(replayed.kept_apart)
    hint = f": {apart} of some is sensitive and kept apart, --with-sensitive takes it along" if apart else ""
    return f"{replayed.without_inputs} were recorded without their inputs{hint}"


def _ledger(
    lake: str, question: Question, replayed: Replayed, route: Route | None, segment_by: str | None, *, keys_in_use: bool
) -> dict[str, Any]:
    asked = ledger.Question(
        endpoint=question.endpoint,
        champion=question.variant,
        segment_by=segment_by,
        exogenous=route is not None and route.label.exogenous,
        keys_in_use=keys_in_use,
        label_window_s=label_window_s(route),
    )
    return ledger.ledger(Queries(lake, instead={"shadows": replayed.pairs}), asked, PairedTests())


def _loaded(settings: Settings, against: str) -> LoadedModel:
    """The version, staged as the gateway would (a version that it has staged before is not fetched again), and warm."""
    artifacts = Artifacts(settings.artifacts_path)
    try:
        with waiting(f"staging {against} …"):
            staged = Registries(settings, artifacts).stage(parse_ref(against), dict)
            return Catalog(settings.artifacts_path).load(staged.digest).as_version(staged.key)
    except ModelsError as error:
        raise CommandFailed(f"{against}: {error}") from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Rows done of rows to do, on standard error, to people only."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("replaying", total=None)
        yield lambda done, due: bar.update(task, completed=done, total=due)
