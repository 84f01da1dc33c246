"""Sinks that are down for minutes under load: `python -m loadtests.outage --minutes 3 --rate 2000`. Temporary files only.

Three phases at the same arrival rate (sent on a schedule, whether answers come or not): all is well; the lake's folder is away and the
NATS server is killed; both are back. Prints errors and latency by phase, how fast the backlog drained beside the load that went on,
and compares what callers were told with what the lake and the stream hold, id by id.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.gateway.streams.test_nats_sink import Server, stored
from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_body, route

CONNECTIONS = 16
_HEAD = b"x-prediction-id: "


@dataclass(kw_only=True)
class Phase:
    """Latencies in ms from the scheduled instant, so that a stall counts for all who would have come in it."""

    name: str
    took_ms: list[float] = field(default_factory=list)
    errors: int = 0
    control_share: float = 0.0
    """Of a core, what the process that writes to the sinks took."""

    def told(self) -> str:
        cuts = statistics.quantiles(self.took_ms, n=1000)
        return f"{self.name:<8} {len(self.took_ms):>8} answered, {self.errors} errors, p50 {cuts[499]:.2f} ms, p99 {cuts[989]:.2f} ms, p99.9 {cuts[998]:.2f} ms, control took {self.control_share:.0%} of a core"


class Connection(asyncio.Protocol):
    """One keep-alive connection, whose answers come in the order of its requests."""

    def __init__(self, answered: Callable[[float, bytes, bytes], None]) -> None:
        self._answered = answered
        self._waiting: deque[float] = deque()
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, due: float, request: bytes) -> None:
        self._waiting.append(due)
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._buffer) < end + 4 + size:
                return
            self._answered(self._waiting.popleft(), head[9:12], head.partition(_HEAD)[2].partition(b"\r\n")[0])
            self._buffer = self._buffer[end + 4 + size :]

    def connection_lost(self, _error: Exception | None) -> None:
        while self._waiting:
            self._answered(self._waiting.popleft(), b"", b"")


class Load:
    """Arrivals at a rate. `ids`: of every answer, as the caller was told."""

    def __init__(self, address: str, rate: float) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._host, self._port, self._rate = host, int(port), rate
        body = json.dumps(infer_body([[1.0, 2.0, 3.0, 4.0]])).encode()
        self._request = b"POST /v2/models/outage/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
        self.ids: list[bytes] = []
        self.phase = Phase(name="warm-up")

    async def run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Connection(self._answered), self._host, self._port)
            for _ in range(CONNECTIONS)
        ]
        connections = [connection for _, connection in made]
        due, number = time.perf_counter(), 0
        while not stop.is_set():
            now = time.perf_counter()
            while due <= now:
                connections[number % CONNECTIONS].send(due, self._request)
                due, number = due + 1 / self._rate, number + 1
            await asyncio.sleep(0.0005)
        await asyncio.sleep(2.0)
        for transport, _ in made:
            transport.close()

    def _answered(self, due: float, status: bytes, prediction_id: bytes) -> None:
        if status == b"200":
            self.phase.took_ms.append(1000 * (time.perf_counter() - due))
            self.ids.append(prediction_id)
        else:
            self.phase.errors += 1


async def run(folder: Path, *, minutes: float, rate: float) -> None:
    nats = Server(folder / "jetstream")
    nats.start()
    sinks = {
        "RUNOFF_SINKS_START": "all",
        "RUNOFF_SINKS_NATS_SERVERS": nats.url,
        "RUNOFF_SINKS_NATS_TABLES": "predictions",
    }
    model = files.binary(folder / "model.onnx")
    try:
        with Gateway(folder / "gateway", workers=1, environ=sinks) as gateway:
            gateway.apply(route("outage", ("champion", model, 1)))
            load, stop = Load(gateway.rest, rate), asyncio.Event()
            task = asyncio.create_task(load.run(stop))
            await asyncio.sleep(5.0)
            calm_s = min(60.0, 60 * minutes)
            before, down, after = (Phase(name=name) for name in ("before", "down", "after"))
            control = psutil.Process(gateway.pid("control"))
            spent = lambda: sum(control.cpu_times()[:2])
            load.phase, mark = before, spent()
            await asyncio.sleep(calm_s)
            before.control_share = (spent() - mark) / calm_s
            load.phase = down
            lake, away = gateway.state / "lake", gateway.state / "lake.away"
            nats.kill()
            lake.rename(away)
            lake.write_text("in the way")
            held, mark = len(load.ids), spent()
            await asyncio.sleep(60 * minutes)
            down.control_share = (spent() - mark) / (60 * minutes)
            held = len(load.ids) - held
            lake.unlink()
            away.rename(lake)
            await asyncio.to_thread(nats.start)
            load.phase, back_at, mark = after, time.perf_counter(), spent()
            of_lake = lambda: gateway.metric("runoff_sink_rows_total", sink="lake", outcome="stored")
            first = await asyncio.to_thread(of_lake)
            while True:
                await asyncio.sleep(0.25)
                rows, now = await asyncio.to_thread(of_lake), time.perf_counter()
                if len(load.ids) - rows < 2 * rate:
                    break
            drained_at = now
            await asyncio.sleep(calm_s)
            after.control_share = (spent() - mark) / (time.perf_counter() - back_at)
            stop.set()
            await task
            total = len(load.ids)
            eventually(lambda: of_lake() >= total, 300, 0.5)
            eventually(
                lambda: gateway.metric("runoff_sink_rows_total", sink="nats", outcome="stored") >= total, 600, 0.5
            )
            in_lake = [row[0] for row in gateway.lake("SELECT prediction_id FROM predictions")]
        in_stream = [
            value["prediction_id"] for _, value in await asyncio.to_thread(stored, nats.url, "runoff.predictions")
        ]
    finally:
        nats.kill()
    told = {one.decode() for one in load.ids}
    print(f"{rate:.0f} arrivals a second, sinks down for {minutes:g} min")
    for phase in (before, down, after):
        print(phase.told())
    p99 = [statistics.quantiles(phase.took_ms, n=100)[98] for phase in (before, down, after)]
    print(f"p99 while down / p99 before: {p99[1] / p99[0]:.3f}; after / before: {p99[2] / p99[0]:.3f}")
    drain_s = drained_at - back_at
    print(f"{held} came while down; {drain_s:.1f} s after its return the lake had all but the last two seconds")
    print(
        f"drain rate: {(rows - first) / drain_s:.0f} a second, {(rows - first) / drain_s / rate:.1f} times the arrival rate,"
        " beside that load, the pause before the next try included"
    )
    for name, found in (("lake", in_lake), ("stream", in_stream)):
        print(
            f"{name}: {len(found)} rows, {len(told - set(found))} answered and missing, {len(set(found) - told)} that nobody was told, {len(found) - len(set(found))} double"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=2000.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        asyncio.run(run(Path(folder), minutes=asked.minutes, rate=asked.rate))


if __name__ == "__main__":
    main()
