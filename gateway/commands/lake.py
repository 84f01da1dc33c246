"""What commands share that read the lake themselves, with or without a running gateway: where it is, what a route says, which window."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from gateway.state.documents import documents
from routing.errors import RouteInvalid
from routing.traffic import Label, Route
from routing.validate import validate

_NO_LABEL_WINDOW_S: Final = float(Label().window_s)


def local_lake(settings: Settings) -> str:
    """The lake's address. Raises CommandFailed where there is none yet."""
    if "://" not in settings.lake_uri and not Path(settings.lake_uri, "predictions").is_dir():
        raise CommandFailed(
            f"no lake at {settings.lake_uri}: name the gateway's settings with --config, or its directory with --state-dir"
        )
    return settings.lake_uri


def route_of(settings: Settings, endpoint: str) -> Route | None:
    """The route as it is, or as it last was; None where this machine has no state of the gateway."""
    try:
        document = documents(settings.state_file).get(endpoint)
    except sqlite3.Error as error:
        raise CommandFailed(f"{settings.state_file} cannot be read: {error}") from error
    try:
        return None if document is None else validate(document)
    except RouteInvalid:
        return None


def label_window_s(route: Route | None) -> float:
    """How long after a prediction its label counts."""
    return _NO_LABEL_WINDOW_S if route is None else float(route.label.window_s)


def window(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """What --from and --to say, as Unix seconds. Raises CommandFailed, also where nothing lies between them."""
    first, end = moment("--from", since), moment("--to", until)
    if first is not None and end is not None and first >= end:
        raise CommandFailed(f"wanted --from before --to, got {since} and {until}")
    return first, end


def moment(option: str, text: str | None) -> float | None:
    """A date or RFC 3339 instant (UTC where it says no zone) as Unix seconds; None stays None. Raises CommandFailed."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(
            f"{option}: wanted a date or an RFC 3339 instant such as 2026-11-01T00:00:00Z, got {text!r}"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
