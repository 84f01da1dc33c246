"""Requests at a fixed rate, sent on a schedule whether answers come or not, from a process of its own; every answer is kept.

`Arrivals` runs it beside a benchmark: `with Arrivals(url, endpoint, rate, body) as load: …; answers = load.answers()`. Times are
CLOCK_MONOTONIC, which all processes of a machine share; latencies count from the scheduled instant, so that a stall counts for all who
would have come in it.
"""

import argparse
import asyncio
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np

CONNECTIONS = 8
FIELDS = np.dtype(
    [("due", "f8"), ("sent", "f8"), ("done", "f8"), ("status", "i4"), ("revision", "i8"), ("model", "U96")]
)


Row = tuple[float, float, float, int, int, str]
"""Of FIELDS."""


class Connection(asyncio.Protocol):
    """One kept connection, whose answers come in the order of its requests; what is open when it breaks counts as status 0."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._waiting: deque[tuple[float, float]] = deque()
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, due: float, request: bytes) -> None:
        assert self.transport is not None
        self._waiting.append((due, time.monotonic()))
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            lines = self._buffer[:end].lower().split(b"\r\n")
            head = dict(line.split(b": ", 1) for line in lines[1:])
            size = end + 4 + int(head[b"content-length"])
            if len(self._buffer) < size:
                return
            self._buffer = self._buffer[size:]
            revision, model = int(head.get(b"x-runoff-revision", b"0")), head.get(b"x-runoff-model", b"").decode()
            self._rows.append((*self._waiting.popleft(), time.monotonic(), int(lines[0].split()[1]), revision, model))

    def connection_lost(self, _error: Exception | None) -> None:
        now = time.monotonic()
        self._rows += [(due, sent, now, 0, 0, "") for due, sent in self._waiting]
        self._waiting.clear()
        self.transport = None


class Arrivals:
    """The load, from its first answer until the block ends."""

    def __init__(self, url: str, endpoint: str, rate: float, body: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="arrivals-")
        folder = Path(self._folder.name)
        self._found = folder / "answers.npy"
        (folder / "body").write_bytes(body)
        self._command = [
            *(sys.executable, "-m", "loadtests.arrivals"),
            *(url, endpoint, str(rate), str(folder / "body"), str(self._found)),
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "sending"
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._answers = np.load(self._found) if kind is None else None
        self._folder.cleanup()

    def answers(self) -> np.ndarray:
        """All answers, by the instant at which they were due; after the block."""
        assert self._answers is not None
        return np.sort(self._answers, order="due")


def p99_ms(answers: np.ndarray, since: float, until: float, *, what: str = "done") -> float:
    """Of the requests that were due in a stretch of time; NaN where there were none. `what="sent"`: how late the generator itself was."""
    some = answers[(answers["due"] >= since) & (answers["due"] < until)]
    return float(np.percentile((some[what] - some["due"]) * 1000, 99)) if len(some) else float("nan")


async def send(url: str, endpoint: str, rate: float, body: bytes, found: Path) -> None:
    """Until SIGTERM, and two seconds more for answers that are late."""
    parts, loop, stop = urlsplit(url), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    rows: list[Row] = []

    async def connected() -> Connection:
        _, connection = await loop.create_connection(lambda: Connection(rows), parts.hostname, parts.port)
        return connection

    connections = [await connected() for _ in range(CONNECTIONS)]
    head = f"POST /v2/models/{endpoint}/infer HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    print("sending", flush=True)
    due, number = time.monotonic(), 0
    while not stop.is_set():
        while due <= time.monotonic():
            place = number % CONNECTIONS
            if connections[place].transport is None:
                connections[place] = await connected()
            connections[place].send(due, request)
            due, number = due + 1 / rate, number + 1
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.sleep(2.0)
    for connection in connections:
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(0.1)
    np.save(found, np.array(rows, FIELDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "endpoint", "rate", "body", "found"):
        parser.add_argument(name)
    asked = parser.parse_args()
    body = Path(asked.body).read_bytes()
    # select waits by the microsecond, epoll by the millisecond.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(send(asked.url, asked.endpoint, float(asked.rate), body, Path(asked.found)))


if __name__ == "__main__":
    main()
