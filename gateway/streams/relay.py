"""Carries new rows of the lake to one further sink: at least once, in order, with its own position and its own thread.

A sink that is slow or down waits for itself alone: the position moves only when it has stored what it was given.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
import pyarrow as pa

from gateway.streams.feed import Feed, Portion
from gateway.streams.table import CommitFailed
from gateway.telemetry.log import EventLog
from models.files import replace_file

_log: Final = EventLog(__name__)
_IDLE_S: Final = 1.0
_RETRY_MAX_S: Final = 30.0


class SinkFailed(Exception):
    """The sink has not stored what it was given, or not all of it; it will be given the same again."""


class Sink(Protocol):
    """Where rows go. Blocking; called from one thread."""

    def send(self, table: str, rows: pa.Table) -> Sequence[int]:
        """On return all rows are stored but those whose `sequence` it answers: they are larger than the sink ever takes.

        The same sequence again is the same row. Raises SinkFailed.
        """

    def close(self) -> None:
        """Gives back connections."""


class RelayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`lag_s`: the age of the oldest row that the sink has not stored, 0 when it has all. `failure`: why it stands still, None: it moves.

    `rows` were stored; `too_large` were stepped over.
    """

    lag_s: float = 0.0
    rows: int = 0
    too_large: int = 0
    failure: str | None = None


class Relay:
    """From the tables `tables` of the lake at `uri` to what `connect` gives. `figures` may be read from any thread.

    `start` is for a sink without a position yet: `new` begins with what comes from now on, `all` with the oldest row.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        tables: Sequence[str],
        connect: Callable[[], Sink],
        *,
        position: Path,
        start: Literal["new", "all"] = "new",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._feeds = {table: Feed(uri, table) for table in tables}
        self._connect = connect
        self._path = position
        self._start = start
        self._wall = wall
        self._sink: Sink | None = None
        self._positions: dict[str, int] | None = None
        self._waiting: Portion | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{name}")
        self.figures = RelayFigures()

    async def begin(self) -> None:
        """Reads the positions and holds them to the lake, which should not grow meanwhile. What goes wrong is told by the first step."""
        with suppress(Exception):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._known)

    async def run(self, stop: asyncio.Event) -> None:
        """Steps until `stop` is set."""
        loop, pause_s = asyncio.get_running_loop(), _IDLE_S
        while not stop.is_set():
            moved = await loop.run_in_executor(self._thread, self.step)
            if moved is None:
                pause_s = min(_RETRY_MAX_S, 2 * pause_s)
            else:
                pause_s = 0.0 if moved else _IDLE_S
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
        await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def step(self) -> bool | None:
        """Sends one portion of each table. Whether there was any; None: it failed, and is tried again."""
        try:
            self._known()  # what is new counts from here, not from the end of an import or of a server's outage
            # Connected before there are rows, so that what is wrong shows at once and the first row does not wait for an import.
            sink = self._sink = self._sink or self._connect()
            moved = [self._carry(sink, table, feed) for table, feed in self._feeds.items()]
        except Exception as error:  # noqa: BLE001  # clients of others raise what they like; none of it may end the relay
            is_expected = isinstance(error, SinkFailed | CommitFailed | OSError)
            if self.figures.failure is None:
                _log.warning(
                    "sink_failed", sink=self.name, reason=str(error), error=None if is_expected else repr(error)
                )
            self._show(f"{type(error).__name__}: {error}")
            self._close()
            return None
        if self.figures.failure is not None:
            _log.info("sink_recovered", sink=self.name)
        self._waiting = None
        self._show(None)
        return any(moved)

    def _carry(self, sink: Sink, table: str, feed: Feed) -> bool:
        positions = self._known()
        portion = feed.after(positions[table])
        if portion is None:
            return False
        self._waiting = portion
        too_large = sink.send(table, portion.rows)
        positions[table] = portion.last
        self._write(positions)
        if too_large:
            _log.warning("sink_rows_too_large", sink=self.name, table=table, rows=len(too_large), first=too_large[0])
        self.figures = msgspec.structs.replace(
            self.figures,
            rows=self.figures.rows + portion.rows.num_rows - len(too_large),
            too_large=self.figures.too_large + len(too_large),
        )
        return True

    def _known(self) -> dict[str, int]:
        """The position in each table; one that the sink never had begins as `start` says, and is written at once."""
        if self._positions is None:
            known = self._stored()
            positions = {
                table: self._within(table, feed, known[table])
                if table in known
                else feed.end()
                if self._start == "new"
                else 0
                for table, feed in self._feeds.items()
            }
            self._write(known | positions)
            self._positions = known | positions
        return self._positions

    def _stored(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as error:
            remedy = f"restore it, or delete it: the sink then begins as sinks.start says ({self._start})"
            raise SinkFailed(f"{self._path} holds no positions ({error}); {remedy}") from error

    def _within(self, table: str, feed: Feed, position: int) -> int:
        """The position, or the lake's end where that lies before it: a lake restored from a backup gives numbers out anew."""
        given = feed.given()
        if position <= given:
            return position
        _log.error("sink_ahead_of_lake", sink=self.name, table=table, position=position, lake=given)
        return given

    def _write(self, positions: dict[str, int]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, msgspec.json.encode(positions), durable=True)

    def _show(self, failure: str | None) -> None:
        lag_s = 0.0 if self._waiting is None else max(0.0, self._wall() - self._waiting.oldest_unix_s)
        self.figures = msgspec.structs.replace(self.figures, lag_s=lag_s, failure=failure)

    def _close(self) -> None:
        if self._sink is not None:
            with suppress(Exception):  # it may be broken already, which is why it is closed
                self._sink.close()
            self._sink = None
