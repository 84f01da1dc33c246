"""The REST app over the small corridor, called in process."""

import httpx
import pytest

from gateway.rest.app import build
from gateway.settings import Limits, Settings
from tests.kit.small_corridor import ListSink, SmallCorridor, stocked_corridor


@pytest.fixture
def corridor() -> SmallCorridor:
    return stocked_corridor()


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def settings(tmp_path) -> Settings:
    limits = Limits(body_bytes_json_max=100_000, body_bytes_binary_max=200_000, body_s=0.2)
    return Settings(state_dir=str(tmp_path), limits=limits)


@pytest.fixture
def app(corridor, sink, settings):
    return build(corridor, sink, settings, statistics=corridor)


@pytest.fixture
async def client(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://runoff.test") as made:
        yield made


@pytest.fixture
async def stranger(app):
    """A caller from another machine."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://runoff.test") as made:
        yield made
