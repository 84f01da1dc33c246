"""What `runoff keys` does: through the gateway's admin API, or with `--local` in the state database of this machine."""

import getpass
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.commands.talk import CommandFailed, gateway, show_json, show_lines, show_table
from gateway.keys.issue import KeyDesk, KeyEnded, KeyRefused, KeyUnknown, Made, Order
from gateway.keys.scopes import SCOPES
from gateway.state.store import StateStore
from runoff import Runoff, Table

_COLUMNS: Final = (
    "id",
    "name",
    "state",
    "scopes",
    "rate_per_s",
    "created_by",
    "created_at",
    "expires_at",
    "last_used_at",
)
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Desk(Protocol):
    """Where keys are made, from a command's point of view. Every call answers with what the admin API answers."""

    def create(self, order: Order, reason: str) -> dict[str, Any]: ...

    def list(self) -> Table: ...

    def rotate(self, key_id: str, reason: str, overlap_s: float) -> dict[str, Any]: ...

    def revoke(self, key_id: str, reason: str) -> dict[str, Any]: ...


@contextmanager
def desk(url: str | None, key_file: Path | None, state_file: Path | None) -> Iterator[Desk]:
    """`state_file` None: the gateway's; else that of the database, whoever may write to it."""
    if state_file is None:
        with gateway(url, key_file) as client:
            yield RemoteDesk(client)
        return
    os.umask(0o077)
    try:
        store = StateStore(state_file)
    except OSError as error:
        raise CommandFailed(f"{state_file}: cannot be opened: {error}") from error
    try:
        yield LocalDesk(store)
    except (KeyRefused, KeyUnknown, KeyEnded) as error:
        raise CommandFailed(str(error)) from error
    finally:
        store.close()


class RemoteDesk:
    """The gateway's admin API."""

    def __init__(self, client: Runoff) -> None:
        self._client = client

    def create(self, order: Order, reason: str) -> dict[str, Any]:
        return self._client.create_key(
            order.name,
            order.scopes,
            reason=reason,
            expires_s=order.expires_s,
            rate_per_s=order.rate_per_s,
            burst=order.burst,
        )

    def list(self) -> Table:
        return self._client.keys()

    def rotate(self, key_id: str, reason: str, overlap_s: float) -> dict[str, Any]:
        return self._client.rotate_key(key_id, reason=reason, overlap_s=overlap_s)

    def revoke(self, key_id: str, reason: str) -> dict[str, Any]:
        return self._client.revoke_key(key_id, reason=reason)


class LocalDesk:
    """The state database itself. A gateway that runs on it takes in the change within a tenth of a second."""

    def __init__(self, store: StateStore) -> None:
        self._desk = KeyDesk(store.keys)
        self._author = f"local:{user()}"

    def create(self, order: Order, reason: str) -> dict[str, Any]:
        return _made(self._desk.make(order, author=self._author, reason=reason))

    def list(self) -> Table:
        from gateway.admin.keys import view

        return Table((view(key) for key in self._desk.all()), _COLUMNS)

    def rotate(self, key_id: str, reason: str, overlap_s: float) -> dict[str, Any]:
        return _made(self._desk.rotate(key_id, overlap_s=overlap_s, author=self._author, reason=reason))

    def revoke(self, key_id: str, reason: str) -> dict[str, Any]:
        from gateway.admin.keys import view

        return view(self._desk.revoke(key_id, author=self._author, reason=reason))


def _made(made: Made) -> dict[str, Any]:
    from gateway.admin.keys import view

    replaced = {} if made.replaced is None else {"replaced": view(made.replaced)}
    return view(made.record) | {"key": made.key} | replaced


def ordered(
    name: str | None,
    scopes: Sequence[str],
    expires_s: float | None,
    rate_per_s: float | None,
    burst: int | None,
    *,
    is_local: bool,
) -> Order:
    """The order of a command. Who can write to the state directory may do everything, so that is what a local key may by default."""
    if not scopes and not is_local:
        raise CommandFailed(f"wanted --scope, one or more of {', '.join(SCOPES)}, each with an optional :endpoint")
    return Order(
        name=name or user(),
        scopes=tuple(scopes) or SCOPES,
        expires_s=expires_s,
        rate_per_s=rate_per_s,
        burst=burst,
    )


def seconds_of(text: str | None) -> float | None:
    """`90d`, `12h`, `30m` or `45s` in seconds; None stays None. Raises CommandFailed."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise CommandFailed(f"wanted a duration such as 90d, 12h, 30m or 45s, got {text!r}")
    return float(int(found[1]) * _UNITS_S[found[2]])


def show_made(made: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    """The key alone on standard output (or in the file), so that it can be piped; the rest, for people, on standard error."""
    if out is not None:
        _write(out, made["key"])
        made = {name: value for name, value in made.items() if name != "key"}
    if as_json:
        show_json(made)
        return
    _note(f"key {made['id']} for {made['name']}: {', '.join(made['scopes'])}")
    if made["expires_at"]:
        _note(f"  it ends {made['expires_at']}")
    if made.get("replaced"):
        _note(f"  the key before it, {made['replaced']['id']}, goes on until {made['replaced']['expires_at']}")
    if out is not None:
        _note(f"  it stands in {out}; nowhere else")
    else:
        _note("  keep it now: it is shown this once")
        show_lines(made["key"])


def show_list(table: Table, *, as_json: bool) -> None:
    if as_json:
        show_json(table)
    else:
        show_table(table, empty="no keys yet: runoff keys create --local")


def show_revoked(key: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(key)
    else:
        show_lines(f"key {key['id']} for {key['name']} is revoked since {key['revoked_at']}")


def user() -> str:
    """The name of who runs this command; the number, for a container's user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def check_free(out: Path | None) -> None:
    """Before a key is made that could not be kept. Raises CommandFailed."""
    if out is not None and (out.exists() or not out.absolute().parent.is_dir()):
        raise CommandFailed(f"{out}: wanted a new file in a folder that exists")


def _write(path: Path, key: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123  # mode
            file.write(key + "\n")
    except OSError as error:
        raise CommandFailed(
            f"{path}: the key cannot be written there and is lost: revoke it and make another ({error})"
        ) from error


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")
