"""What the suite speaks to: a gateway as a client sees it.

`served` is the one fixture to replace: it must serve `phishing` (versions 3 and 2: `tests.kit.onnx_models.classifier`), `churn`
(`columns`), `fragile` and `echo-<datatype>`, with pins allowed and `phishing` as the default endpoint. Here it is both doors in this
process over the kit's small corridor; another suite may hand out the addresses of a real gateway.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import uvicorn

from gateway.rest.app import build
from gateway.rpc.server import serve
from gateway.settings import Settings
from tests.kit.small_corridor import ListSink, stocked_corridor


class Served(NamedTuple):
    """Addresses, as clients want them."""

    rest: str
    grpc: str

    @property
    def url(self) -> str:
        return f"http://{self.rest}"


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/conformance/" in item.path.as_posix():
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Iterator[Served]:
    settings = Settings(state_dir=str(tmp_path_factory.mktemp("state")))
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
        config.load()
        rest.lifespan = config.lifespan_class(config)
        await rest.startup()
        ports["grpc"], ports["rest"] = rpc.port, rest.servers[0].sockets[0].getsockname()[1]
        is_up.set()
        await asyncio.to_thread(stop.wait)
        await rest.shutdown()
        await rpc.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="served")
    thread.start()
    assert is_up.wait(30)
    yield Served(f"127.0.0.1:{ports['rest']}", f"127.0.0.1:{ports['grpc']}")
    stop.set()
    thread.join(30)
