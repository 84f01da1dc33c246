"""A plain HTTP/2 server on the machine of the gRPC wire door: what tools that know nothing of gRPC can talk to.

    python -m tests.kit.http2_server [port]     prints the port, answers until its standard input ends

Each complete request is answered with 200 and a small body, once all of it has come, as h2spec and nghttp expect.
"""

import asyncio
import sys
import time
from typing import cast

from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.connection import Connection
from gateway.rpc.wire.headers import STATUS_200, write_fields
from gateway.rpc.wire.stream import Stream

HEAD = STATUS_200 + write_fields([(b"content-type", b"text/plain")])
BODY = b"0123456789" * 10
TRAILERS = write_fields([(b"x-end", b"1")])


class PlainProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._http = Connection(Bounds(), self, time.monotonic())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._http.receive(data, time.monotonic())
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.lost()

    def requested(self, stream: Stream) -> None:
        pass

    def received(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        self._http.grant(stream, stop - start)
        if ends:
            self._http.answer(stream, HEAD, () if stream.head.method == b"HEAD" else (BODY,), TRAILERS)

    def gone(self, stream: Stream) -> None:
        pass

    def moved(self, stream: Stream) -> None:
        pass

    def _flush(self) -> None:
        ready, self._http.out.ready = self._http.out.ready, []
        if ready:
            self._transport.write(b"".join(ready))
        if self._http.is_over:
            self._transport.close()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(PlainProtocol, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
