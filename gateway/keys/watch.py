"""Keeps a key ring as the state and the bootstrap file have it: a look costs 5 µs while nothing changes."""

import sqlite3
from typing import Final

import msgspec

from gateway.keys.bootstrap import BootstrapFile
from gateway.keys.ring import KeyRing
from gateway.keys.tokens import TokenReader
from gateway.settings import Settings
from gateway.state.reader import StateReader, follow
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

POLL_S: Final = 0.05


class KeyWatch:
    """Has a ring of its own, filled when it is made. Belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        oidc = settings.auth.oidc
        self._issuer = oidc.issuer
        self._tokens = TokenReader(oidc) if oidc.issuer is not None else None
        self._reader = StateReader(settings.state_file)
        self._file = BootstrapFile(settings.bootstrap_key_file)
        self._seen: tuple[int, bytes | None] | None = None
        self._needs_keys = "keys" in (settings.auth.data, settings.auth.admin)
        self.ring = KeyRing(self._tokens)
        try:
            self.look()
        except (sqlite3.Error, msgspec.MsgspecError) as error:  # nobody comes in until a look succeeds
            log.error("keys_not_read", problem=str(error))

    async def run(self) -> None:
        """Follows the state until it is cancelled."""
        if self._needs_keys and self.ring.is_empty and self._tokens is None:
            log.warning("no_keys", remedy="make one with `runoff keys create … --local`, or set bootstrap_key_file")
        await follow(self.look, POLL_S, log)

    def look(self) -> None:
        """Takes in what has changed; at once, for whoever has just changed it."""
        seen = (self._reader.data_version(), self._file.digest())
        if seen == self._seen:
            return
        self.ring.replace(self._reader.keys(), seen[1])
        if self._tokens is not None and self._issuer is not None:
            self._tokens.use(self._reader.key_set(self._issuer))
        self._seen = seen

    def close(self) -> None:
        self._reader.close()
