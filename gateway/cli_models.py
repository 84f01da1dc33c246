"""The commands about model versions, `runoff models` and `runoff tune`: names, options and help; what they show is in `gateway/commands/models.py`."""

from typing import Annotated

import typer

from gateway.cli_options import Json, KeyFile, Url

app = typer.Typer()


@app.command()
def models(
    version: Annotated[str | None, typer.Argument(help="models:/phishing/3 for all of one version")] = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Every model version that was made ready to serve, and how it runs here."""
    from gateway.commands import models as commands
    from gateway.commands.talk import gateway, show_json

    with gateway(url, key_file) as client:
        if version is None:
            table = client.models()
            show_json(table) if as_json else commands.show_models(table)
        else:
            model = client.model(*commands.version_of(version))
            show_json(model) if as_json else commands.show_model(model)


@app.command()
def tune(
    target: Annotated[
        str, typer.Argument(help="an endpoint (all versions that it serves or mirrors), or models:/phishing/3")
    ],
    target_ms: Annotated[
        float | None, typer.Option(min=0.001, help="longest run that a batch may make; default: as before, at first 50")
    ] = None,
    from_traffic: Annotated[
        bool,
        typer.Option(
            "--from-traffic", help="on the rows that the endpoint was asked, by their recorded number a request"
        ),
    ] = False,
    int8: Annotated[
        bool | None,
        typer.Option(
            "--int8/--no-int8", help="whether the quantised form may be taken; default: as before, at first no"
        ),
    ] = None,
    score_tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="how far int8 scores may be off, absolute and relative; at first 0.01"),
    ] = None,
    share_weights: Annotated[
        bool | None,
        typer.Option(
            "--share-weights/--no-share-weights",
            help="one copy of a large model's weights for all workers; runs are slower; default: as before, at first no",
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="why; kept in the audit")] = "runoff tune",
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Measure models on this machine and choose how to run them: batch, threads, memory arena, optimisation."""
    from gateway.commands import models as commands
    from gateway.commands.talk import gateway, show_json

    with gateway(url, key_file) as client:
        replies = commands.tune(
            client,
            target,
            target_ms=target_ms,
            from_traffic=from_traffic,
            int8=int8,
            score_tolerance=score_tolerance,
            share_weights=share_weights,
            reason=reason,
        )
    if as_json:
        show_json(replies)
    else:
        for reply in replies:
            commands.show_profile(f"{reply['name']}/{reply['version']}", reply["profile"])
