"""A plane with real models, and both gRPC servers over it: ours, and grpcio's as the measure of it."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.rpc.server import RpcServer
from gateway.rpc.server import serve as serve_grpcio
from gateway.rpc.wire.server import WireServer, serve
from gateway.settings import Limits, Settings
from tests.kit.plane import Plane
from tests.kit.staged import stage_dense, stage_linear

LIMITS = Limits(body_bytes_binary_max=8 << 20, body_bytes_json_max=1 << 20, header_bytes_max=8192, connections_max=64)


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """The event loop that workers run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    made.serve({"champion": stage_linear(made.artifacts, check_row=True)})
    made.serve({"wide": stage_linear(made.artifacts, name="wide", columns=50_000)}, endpoint="wide")
    made.serve({"slow": stage_dense(made.artifacts, width=512, layers=4)}, endpoint="slow")
    yield made
    made.close()


@pytest.fixture
async def server(plane: Plane, tmp_path: Path) -> AsyncIterator[WireServer]:
    sock = socket.create_server(("127.0.0.1", 0))
    made = await serve(plane.data, plane.corridor, sock, Settings(state_dir=str(tmp_path), limits=LIMITS))
    yield made
    await made.stop(2.0)


@pytest.fixture
async def grpcio(plane: Plane, tmp_path: Path) -> AsyncIterator[RpcServer]:
    made = await serve_grpcio(plane.corridor, "127.0.0.1:0", Settings(state_dir=str(tmp_path), limits=LIMITS))
    yield made
    await made.stop(0)
