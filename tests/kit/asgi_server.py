"""Any ASGI application on a real port, in the test's own loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        self.listening = asyncio.Event()

    def install_signal_handlers(self) -> None:
        """The test's own stay; older uvicorns."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)  # without capturing the signals of the process


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Its address, while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(app)
        serving = asyncio.create_task(server.serve([listener]))
        await server.listening.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
