"""What the suite speaks to: a gateway as a client sees it.

`served` is the one fixture to replace: it must serve `phishing` (versions 3 and 2: `tests.kit.onnx_models.classifier`), `churn`
(`columns`), `fragile` and `echo-<datatype>`, with pins allowed and `phishing` as the default endpoint. Here it is REST and grpcio's
server over the kit's small corridor, and the gRPC wire door over a whole data plane; another suite may hand out the addresses of a
real gateway. What is asked over gRPC is asked of both of its doors.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import uvicorn

from gateway.rest.app import build
from gateway.rpc.server import serve
from gateway.rpc.wire.server import serve as serve_wire
from gateway.settings import Settings
from gateway.statistics import ModelStatistics, Wanted, added
from models.staged import ModelKey
from tests.kit.plane import Plane
from tests.kit.small_corridor import ListSink, stock, stocked_corridor
from tests.kit.staged import stage_made


class Served(NamedTuple):
    """Addresses, as clients want them."""

    rest: str
    grpc: str
    grpc_wire: str

    @property
    def url(self) -> str:
        return f"http://{self.rest}"


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/conformance/" in item.path.as_posix():
            item.add_marker(pytest.mark.conformance)


class StockedPlane(Plane):
    """All of the kit's `stock` behind a real corridor, and its own counts as statistics."""

    def __init__(self, folder):
        super().__init__(folder)
        for endpoint, versions in stock().items():
            staged = {
                f"v{version}": stage_made(self.artifacts, made, ModelKey(endpoint, version))
                for version, made in versions.items()
            }
            self.serve(staged, endpoint=endpoint, allow_pin=True)

    async def statistics(self, wanted: Wanted) -> list[ModelStatistics]:
        return added(wanted, [entry for place in wanted if (entry := self.meter.statistics(*place))])


@pytest.fixture(params=["grpcio", "wire"])
def grpc_address(request, served) -> str:
    """Each of the two doors of gRPC."""
    return {"grpcio": served.grpc, "wire": served.grpc_wire}[request.param]


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("state")
    settings = Settings(state_dir=str(folder))
    corridor = stocked_corridor()
    config = uvicorn.Config(
        build(corridor, ListSink(), settings, statistics=corridor),
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
    )
    rest = uvicorn.Server(config)
    ports: dict[str, int] = {}
    is_up, stop = threading.Event(), threading.Event()

    async def run() -> None:
        rpc = await serve(corridor, "127.0.0.1:0", settings, statistics=corridor)
        plane = StockedPlane(folder / "plane")
        sock = socket.create_server(("127.0.0.1", 0))
        wire = await serve_wire(plane.data, plane.corridor, sock, settings, statistics=plane)
        config.load()
        rest.lifespan = config.lifespan_class(config)
        await rest.startup()
        ports["rest"] = rest.servers[0].sockets[0].getsockname()[1]
        ports["grpc"], ports["wire"] = rpc.port, wire.port
        is_up.set()
        await asyncio.to_thread(stop.wait)
        await rest.shutdown()
        await rpc.stop(0)
        await wire.stop(0)
        plane.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="served")
    thread.start()
    assert is_up.wait(30)
    yield Served(f"127.0.0.1:{ports['rest']}", f"127.0.0.1:{ports['grpc']}", f"127.0.0.1:{ports['wire']}")
    stop.set()
    thread.join(30)
