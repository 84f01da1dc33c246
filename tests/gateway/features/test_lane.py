import asyncio
import json
import logging

import pytest

from gateway.features import lane as lanes
from gateway.features.client import StoreFailed, StoreSilent
from tests.kit.features import FeatureWorld, becomes


async def test_what_comes_while_the_store_is_asked_is_asked_together(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        with world.store.stopped():
            asked = [asyncio.create_task(world.client.ask("credit", {"customer_id": [n, n]}, 5)) for n in (2, 4, 6, 8)]
            await world.store.asked()
            await asyncio.sleep(0.05)
        found = await asyncio.gather(*asked)
        assert [one["stats__income"].values for one in found] == [[20.0] * 2, [40.0] * 2, [60.0] * 2, [80.0] * 2]
        assert len(world.store.reads) <= 2
        assert sum(len(keys["customer_id"]) for keys in world.store.reads) == 8


async def test_who_has_given_up_is_not_asked_for_any_more(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        with world.store.stopped():
            first = asyncio.create_task(world.client.ask("credit", {"customer_id": [2]}, 5))
            await world.store.asked()
            with pytest.raises(StoreSilent):
                await world.client.ask("credit", {"customer_id": [4]}, 0.05)
        await first
        await world.client.ask("credit", {"customer_id": [6]}, 5)
        assert [keys["customer_id"] for keys in world.store.reads] == [[2], [6]]


async def test_a_poisoned_request_fails_alone_and_its_key_is_in_no_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    async with FeatureWorld(tmp_path) as world:
        world.store.poison = 424242
        with world.store.stopped():
            asked = [
                asyncio.create_task(world.client.ask("credit", {"customer_id": [n]}, 5)) for n in (2, 4, 424242, 6)
            ]
            await world.store.asked()
            await asyncio.sleep(0.05)
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(one, StoreFailed) for one in found] == [False, False, True, False]
    assert "424242" not in str(found[2])
    told = json.dumps([str(record.msg) for record in caplog.records])
    assert "feature_lookup_failed" in told
    assert "424242" not in told
    assert "canary" not in told


async def test_too_many_that_wait_are_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "WAITING_MAX", 2)
    async with FeatureWorld(tmp_path) as world:
        with world.store.stopped():
            asked = [asyncio.create_task(world.client.ask("credit", {"customer_id": [2]}, 5)) for _ in range(6)]
            await becomes(lambda: sum(one.done() for one in asked) >= 3)
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert {one.code for one in found if isinstance(one, StoreFailed)} == {"overloaded"}
    assert any(isinstance(one, dict) for one in found)


async def test_a_repository_that_cannot_be_opened_says_why_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "REOPEN_S", 0.05)
    async with FeatureWorld(tmp_path) as world:
        opened = world.process._open_store
        trouble = [FileNotFoundError("/srv/features is no feature repository")]

        def breaks():
            if trouble:
                raise trouble[0]
            return opened()

        world.process._open_store = breaks
        with pytest.raises(StoreFailed, match="no feature repository") as failed:
            await world.client.describe("credit", 5)
        assert failed.value.code == "unavailable"
        trouble.clear()
        await asyncio.sleep(0.06)
        assert (await world.client.describe("credit", 5)).keys


async def test_a_store_is_read_once_when_it_is_described_so_that_no_request_is_the_first(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        await world.client.describe("credit", 5)
        await world.client.describe("credit", 5)
        assert world.store.reads == [{"customer_id": [0]}]
