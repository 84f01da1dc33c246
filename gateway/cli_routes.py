"""`runoff` and routes: reading, applying and changing them, and who did so. Names, options and help; what they do is in `gateway/commands/`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli_options import Endpoint, Json, KeyFile, Reason, Url, Wait

if TYPE_CHECKING:
    from runoff import Reply, Runoff

app = typer.Typer()
WAIT_S = 120.0


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="route documents, YAML or JSON, or folders of them")],
    as_json: Json = False,
) -> None:
    """Read route documents and say everything that is wrong with them; needs no gateway."""
    from gateway.commands.documents import problems_of, read_documents
    from gateway.commands.talk import show_json, show_lines

    found = [(str(path), doc.get("endpoint"), problems_of(doc)) for path, doc in read_documents(files)]
    if as_json:
        import msgspec

        show_json(
            [{"file": path, "endpoint": name, "problems": msgspec.to_builtins(all_)} for path, name, all_ in found]
        )
    else:
        for path, name, problems in found:
            show_lines(
                f"{path}: {name}: {'ok' if not problems else ''}".rstrip(": "), *(f"  {line}" for line in problems)
            )
    if any(problems for _, _, problems in found):
        raise typer.Exit(1)


@app.command()
def apply(
    files: Annotated[list[Path], typer.Argument(help="route documents, YAML or JSON, or folders of them")],
    reason: Annotated[
        str | None, typer.Option("--reason", "-m", help="why; everybody sees it in the history; not for a dry run")
    ] = None,
    wait: Wait = WAIT_S,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would change")] = False,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make route documents the routes; what has not changed is left alone. An alias that moved counts as a change."""
    from gateway.commands.apply import apply_all
    from gateway.commands.documents import read_documents
    from gateway.commands.talk import CommandFailed, gateway

    if reason is None and not dry_run:
        raise CommandFailed("wanted --reason, or -m: why; everybody sees it in the history")
    documents = read_documents(files)
    with gateway(url, key_file) as client:
        is_done = apply_all(client, documents, reason=reason or "", wait_s=wait, dry_run=dry_run, as_json=as_json)
    if not is_done:
        raise typer.Exit(1)


@app.command()
def routes(url: Url = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Every endpoint: its state, shares, versions and mirrors."""
    from gateway.commands.talk import gateway, percents, show_json, show_table

    with gateway(url, key_file) as client:
        table = client.routes()
    if as_json:
        show_json([row["document"] for row in table])
        return
    for row in table:
        row["shares"] = percents(row["shares"])
    show_table(table, empty="no routes yet: runoff apply route.yaml --reason …")


@app.command()
def split(
    endpoint: Endpoint,
    weights: Annotated[list[str], typer.Argument(help="champion=80 challenger=20; variants not named keep theirs")],
    reason: Reason,
    wait: Wait = WAIT_S,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Set how requests are shared out."""
    from gateway.commands.talk import CommandFailed

    wanted: dict[str, float] = {}
    for text in weights:
        name, _, weight = text.partition("=")
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CommandFailed(f"wanted <variant>=<weight>, such as challenger=20, got {text!r}")
        if name in wanted:
            raise CommandFailed(f"wanted each variant once, got {name!r} twice")
        wanted[name] = number
    _change(lambda client: client.set_weights(endpoint, wanted, reason=reason, wait_s=wait), url, key_file, as_json)


@app.command()
def mirror(
    endpoint: Endpoint,
    name: Annotated[str, typer.Argument(help="name of the mirror")],
    reason: Reason,
    model: Annotated[str | None, typer.Argument(help="models:/phishing/7; with --remote the name it has there")] = None,
    sample: Annotated[
        float | None, typer.Option(min=0, max=1, help="share of requests that it sees; a new mirror: 1")
    ] = None,
    remote: Annotated[str | None, typer.Option(help="address of another server that answers")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="what it speaks: v2, v2-grpc or mlflow; a new address: v2")
    ] = None,
    auth: Annotated[str | None, typer.Option(help="env:NAME of the gateway's variable with its token")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=1000, help="1 is shed last, and a new mirror's")] = None,
    until: Annotated[
        str | None, typer.Option(help="when it ends by itself, RFC 3339; `never` takes an end back")
    ] = None,
    body_bytes_max: Annotated[
        int | None, typer.Option(min=1, help="requests with larger inputs are not shown to it")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="take the mirror away")] = False,
    wait: Wait = WAIT_S,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show every request, or a share of them, to a candidate off to the side. A mirror that there is keeps what is not named."""
    from gateway.commands.talk import CommandFailed

    elsewhere = {"url": remote, "model": model, "protocol": protocol, "auth": auth}
    keys = {"sample": sample, "priority": priority, "until": until, "body_bytes_max": body_bytes_max}
    named: dict[str, Any] = {key: value for key, value in keys.items() if value is not None}
    if until == "never":
        named["until"] = None
    if remote is not None:
        named["remote"] = {key: value for key, value in elsewhere.items() if value is not None}
    elif protocol or auth:
        raise CommandFailed("--protocol and --auth are of another server: wanted --remote with its address too")
    elif model is not None:
        named["model"] = model
    if bool(named) == remove:
        raise CommandFailed("wanted a model, an option of the mirror to change, or --remove")
    _change(lambda client: client.mirror(endpoint, name, reason=reason, wait_s=wait, **named), url, key_file, as_json)


@app.command()
def promote(
    endpoint: Endpoint,
    arm: Annotated[str, typer.Argument(help="the variant, or with --mirror the mirror, that becomes champion")],
    reason: Reason,
    is_mirror: Annotated[bool, typer.Option("--mirror", help="the arm is a mirror")] = False,
    wait: Wait = WAIT_S,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make the version that an arm serves now the champion; the registry alias follows."""
    names = {"mirror": arm} if is_mirror else {"variant": arm}
    _change(lambda client: client.promote(endpoint, reason=reason, wait_s=wait, **names), url, key_file, as_json)


@app.command()
def rollback(
    endpoint: Endpoint,
    reason: Reason,
    to: Annotated[int | None, typer.Option("--to", help="revision; default: the one before the live one")] = None,
    move_alias: Annotated[bool, typer.Option("--move-alias", help="move the registry alias back as well")] = False,
    wait: Wait = WAIT_S,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Go back to the previous live revision, at once."""
    _change(
        lambda client: client.rollback(endpoint, to=to, move_alias=move_alias, reason=reason, wait_s=wait),
        url,
        key_file,
        as_json,
    )


@app.command()
def follow(
    endpoint: Endpoint,
    reason: Reason,
    override: Annotated[bool, typer.Option("--override", help="past the checks that the versions fail")] = False,
    wait: Wait = WAIT_S,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Take the versions that registry aliases have moved to: a proposal, or what was refused."""
    _change(
        lambda client: client.follow(endpoint, reason=reason, override=override, wait_s=wait), url, key_file, as_json
    )


@app.command()
def pause(endpoint: Endpoint, reason: Reason, url: Url = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Stay at the present step of the route's steps."""
    _change(lambda client: client.pause(endpoint, reason=reason), url, key_file, as_json)


@app.command()
def resume(
    endpoint: Endpoint,
    reason: Reason,
    only: Annotated[
        Literal["following", "steps"] | None, typer.Option("--only", help="one of the two; left out: both")
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Go on: follow registry aliases (after a rollback, after a refused version), and take paused steps further."""
    _change(lambda client: client.resume(endpoint, reason=reason, what=only), url, key_file, as_json)


@app.command()
def delete(
    endpoint: Endpoint, reason: Reason, url: Url = None, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Take an endpoint away; a rollback brings it back."""
    _change(lambda client: client.delete(endpoint, reason=reason), url, key_file, as_json)


@app.command()
def history(
    endpoint: Annotated[str | None, typer.Argument(help="name of the endpoint; left out: all of them")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    audit: Annotated[
        bool, typer.Option("--audit", help="every line of the audit, also of keys and of deletions")
    ] = False,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Who changed a route, when and why, and what came of it. Says so if the past was changed: the audit is a chain of hashes."""
    from gateway.commands.talk import about, few, gateway, show_json, show_table

    with gateway(url, key_file) as client:
        table = (client.audit if audit else client.history)(endpoint, limit=limit)
    if as_json:
        show_json(table)
        return
    for row in table:
        if audit:
            row["detail"] = about(row["detail"])
        else:
            row["changes"] = few(row["changes"])
    show_table(
        table, empty=f"endpoint '{endpoint}' has no revisions" if endpoint else "nobody has changed anything yet"
    )


def _change(act: Callable[["Runoff"], "Reply"], url: str | None, key_file: Path | None, as_json: bool) -> None:
    from gateway.commands.talk import change_lines, gateway, show_json, show_lines, waiting

    with gateway(url, key_file) as client, waiting("waiting until it is live …"):
        reply = act(client)
    if as_json:
        show_json(reply)
    else:
        show_lines(*change_lines(reply))
