import asyncio
import socket

import pytest

from gateway.features import process
from gateway.features.client import SocketPath, StoreFailed
from gateway.features.frames import FoundColumn
from gateway.features.process import opener
from gateway.pipe import Pipe
from tests.kit.features import FeatureWorld


async def test_another_caller_that_talks_nonsense_is_cut_off_alone(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        with SocketPath(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
        for nonsense in (b"\xff\xff\xff\xff", b""):
            writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()
        assert (await world.client.ask("credit", {"customer_id": [2]}, 5))["stats__income"].values == [20.0]


async def test_services_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "LANES_MAX", 1)
    async with FeatureWorld(tmp_path) as world:
        await world.client.describe("credit", 5)
        with pytest.raises(StoreFailed) as failed:
            await world.client.describe("other", 5)
        assert failed.value.code == "overloaded"


async def test_a_successor_takes_over_the_socket_that_a_killed_one_left(tmp_path):
    (tmp_path / "features.sock").touch()
    async with FeatureWorld(tmp_path) as world:
        assert await world.client.describe("credit", 5)


async def test_it_beats_and_ends_when_it_is_told_to(tmp_path):
    near, far = socket.socketpair()
    async with FeatureWorld(tmp_path) as world:
        pipe, supervisor = Pipe(near.detach()), Pipe(far.detach())
        tasks = [asyncio.create_task(world.process.beat(pipe)), asyncio.create_task(world.process.obey(pipe))]
        running = asyncio.create_task(world.process.run())
        said = []
        async with asyncio.timeout(30):
            async for line in supervisor:
                said.append(line["event"])
                if len(said) == 2:
                    break
            supervisor.send({"command": "drain"})
            await running
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pipe.close()
        supervisor.close()
    assert said == ["ready", "beat"]


async def test_a_store_that_never_answers_ends_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "BUSY_MAX_S", 0.1)
    near, far = socket.socketpair()
    async with FeatureWorld(tmp_path) as world:
        pipe, supervisor = Pipe(near.detach()), Pipe(far.detach())
        beating = asyncio.create_task(world.process.beat(pipe))
        running = asyncio.create_task(world.process.run())
        with world.store.stopped():
            asked = asyncio.create_task(world.client.ask("credit", {"customer_id": [2]}, 10))
            async with asyncio.timeout(30):
                await running
            with pytest.raises(StoreFailed, match="gone"):
                await asked
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        pipe.close()
        supervisor.close()


def test_what_is_no_repository_is_said_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="features"):
        opener(None)()
    with pytest.raises(FileNotFoundError, match=r"feature_store\.yaml"):
        opener(str(tmp_path))()


async def test_an_answer_that_has_no_form_on_the_wire_is_a_failure_and_the_next_one_is_answered(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        read = world.store.read
        world.store.read = lambda service, keys: {"stats__income": FoundColumn([object()], [0.0])}
        with pytest.raises(StoreFailed) as failed:
            await world.client.ask("credit", {"customer_id": [2]}, 5)
        assert failed.value.code == "unavailable"
        world.store.read = read
        assert (await world.client.ask("credit", {"customer_id": [2]}, 5))["stats__income"].values == [20.0]
