"""`runoff`: the command line. Here stand names, options and help; what a command does is in `gateway/commands/`, loaded when it is used."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gateway import cli_keys, cli_lake, cli_models, cli_routes
from gateway.cli_options import Config, Endpoint, Json, KeyFile, Since, Until, Url, settings_file

if TYPE_CHECKING:
    from runoff import Reply, Runoff

app = typer.Typer(
    name="runoff",
    help="Model serving with champion, challenger and shadows behind one endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cli_routes.app)
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_lake.app)
app.add_typer(cli_models.app)


def main() -> NoReturn:
    """Runs a command; whatever the user can mend ends as one clear line and status 1."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `runoff … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from gateway.commands.talk import CommandFailed
        from gateway.settings import SettingsInvalid
        from runoff.errors import RunoffError

        if not isinstance(error, CommandFailed | RunoffError | SettingsInvalid):
            raise
        print(f"runoff: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        print(f"runoff {version('runoff')}")
        raise typer.Exit


@app.callback()
def runoff(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Model serving with champion, challenger and shadows behind one endpoint."""


# ---------------------------------------------------------------- a gateway of one's own


@app.command()
def serve(
    config: Config = None,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes")] = None,
    host: Annotated[str | None, typer.Option(help="address of the data listeners")] = None,
    rest_port: Annotated[int | None, typer.Option(help="REST port; 0: a free one")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0: a free one")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="metrics and probes; 0: a free one")] = None,
    admin_port: Annotated[int | None, typer.Option(help="admin port; 0: a free one")] = None,
    state_dir: Annotated[str | None, typer.Option(help="directory of all state")] = None,
    registry_uri: Annotated[str | None, typer.Option(help="MLflow registry, or a folder")] = None,
    open_data: Annotated[bool | None, typer.Option("--open-data", help="serve beyond loopback without keys")] = None,
) -> None:
    """Run the gateway."""
    from gateway.settings_sources import load

    options = {
        "workers": workers,
        "host": host,
        "rest_port": rest_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "admin_port": admin_port,
        "state_dir": state_dir,
        "registry_uri": registry_uri,
        "open_data": open_data,
    }
    settings = load(options, os.environ, settings_file(config))
    from gateway.supervisor import serve as run

    raise typer.Exit(run(settings))


@app.command()
def settings(config: Config = None, as_json: Json = False) -> None:
    """Every setting: its value, where that came from, its default and its meaning."""
    import msgspec

    from gateway.commands.talk import grid, screen, show_json
    from gateway.settings_sources import explain

    rows = [msgspec.structs.asdict(row) for row in explain({}, os.environ, settings_file(config))]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        row["default"] = "" if row["origin"] == "default" else row["default"]
    screen().print(grid(rows, ("key", "value", "origin", "default", "meaning")))


@app.command()
def demo(
    state_dir: Annotated[
        Path | None, typer.Option(help="an empty directory for all of it; default: a temporary one")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave the gateway up until Ctrl-C, with calls to try")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="three days of flights in place of a month")] = False,
    as_json: Json = False,
) -> None:
    """The whole life cycle on real data."""
    from gateway.demo import main as run

    raise typer.Exit(run(state_dir, keep=keep, quick=quick, as_json=as_json))


# ---------------------------------------------------------------- looking


@app.command()
def status(
    once: Annotated[bool, typer.Option("--once", help="print and end, also on a terminal")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 1.0,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """What is served, by whom, and what is on its way; live on a terminal."""
    from gateway.commands import status as screen
    from gateway.commands.talk import gateway, show_json

    with gateway(url, key_file) as client:
        if as_json:
            show_json({"runtime": client.status(), "routes": client.routes()})
        elif once or not sys.stdout.isatty():
            screen.once(client)
        else:
            screen.watch(client, every_s=every)


@app.command()
def ledger(
    endpoint: Endpoint,
    mirror: Annotated[str | None, typer.Option(help="only this mirror")] = None,
    variant: Annotated[str | None, typer.Option(help="whom to compare with; default: the champion")] = None,
    segment_by: Annotated[str | None, typer.Option(help="a column of the predictions, such as input_age")] = None,
    since: Since = None,
    until: Until = None,
    details: Annotated[
        bool, typer.Option("--details", help="all flips and rows furthest off, and agreement span by span")
    ] = False,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Champion and mirrors on the same rows: agreement, flips, score differences, evidence."""
    from gateway.commands.evidence import show_ledger

    query = {"mirror": mirror, "variant": variant, "segment_by": segment_by, "since": since, "until": until}
    _look(
        lambda client: client.ledger(endpoint, **query), partial(show_ledger, details=details), url, key_file, as_json
    )


@app.command()
def quality(
    endpoint: Endpoint,
    by: Annotated[
        str | None,
        typer.Option(
            help="assigned (the default): whom the split drew, also where another answered; answered: all that each answered"
        ),
    ] = None,
    segment_by: Annotated[str | None, typer.Option(help="a column of the predictions, such as input_age")] = None,
    since: Since = None,
    until: Until = None,
    details: Annotated[
        bool,
        typer.Option("--details", help="all rows that were most wrong, measures span by span, intervals of segments"),
    ] = False,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """How right each variant and mirror was, how sure that is, and the coverage of labels."""
    from gateway.commands.evidence import show_quality

    query = {"by": by, "segment_by": segment_by, "since": since, "until": until}
    _look(
        lambda client: client.quality(endpoint, **query), partial(show_quality, details=details), url, key_file, as_json
    )


@app.command()
def predictions(
    prediction_id: Annotated[str, typer.Argument(help="as in X-Prediction-Id")],
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """One prediction: its record, its shadows, its labels."""
    from gateway.commands.evidence import show_prediction

    _look(lambda client: client.prediction(prediction_id), show_prediction, url, key_file, as_json)


@app.command()
def label(
    file: Annotated[
        Path,
        typer.Argument(help="JSON, JSON lines, CSV or Parquet with prediction_id and label, or a TOML file of tables"),
    ],
    data_url: Annotated[
        str | None, typer.Option("--data-url", help="REST address; default: the gateway says it")
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Report the truth about predictions."""
    from gateway.commands.labels import read_labels
    from gateway.commands.talk import gateway, show_json, show_lines, waiting

    accepted, sent, rejected = 0, 0, []
    with gateway(url, key_file, data_url) as client, waiting("sending labels …"):
        for portion in read_labels(file):
            answer = client.label(portion)
            accepted += answer["accepted"]
            rejected += [{**row, "index": row["index"] + sent} for row in answer["rejected"]]
            sent += len(portion)
    if as_json:
        show_json({"accepted": accepted, "rejected": rejected})
    else:
        show_lines(f"{accepted} of {sent} labels accepted")
        show_lines(*(f"  label {row['index']}: {row['message']} ({row['code']})" for row in rejected[:20]))
        if len(rejected) > 20:
            show_lines(f"  … and {len(rejected) - 20} more; --json shows all")
    if rejected:
        raise typer.Exit(1)


# ---------------------------------------------------------------- helpers


def _look(
    ask: Callable[["Runoff"], "Reply"],
    show: Callable[["Reply"], None],
    url: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    from gateway.commands.talk import gateway, show_json, waiting

    with gateway(url, key_file) as client, waiting("reading the lake …"):
        reply = ask(client)
    if as_json:
        show_json(reply)
    else:
        show(reply)


if __name__ == "__main__":
    main()
