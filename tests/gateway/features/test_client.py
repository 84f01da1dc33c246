import asyncio

import pytest

from gateway.features.client import PATH_BYTES_MAX, FeatureClient, StoreFailed, StoreSilent
from gateway.features.frames import SOCKET, Feature
from tests.kit.features import FEATURES, KEYS, FeatureWorld


async def test_rows_come_back_in_their_order_with_the_age_of_their_values(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        world.store.age_s = 100
        found = await world.client.ask("credit", {"customer_id": [4, 3, 2]}, 5)
        assert found["stats__income"].values == [40.0, None, 20.0]
        assert len(found["stats__income"].times_unix_s) == 3


async def test_a_folder_with_a_name_longer_than_a_socket_address_is_reached_all_the_same(tmp_path):
    folder = tmp_path / ("x" * PATH_BYTES_MAX)
    folder.mkdir()
    async with FeatureWorld(folder) as world:
        assert (await world.client.ask("credit", {"customer_id": [2]}, 5))["stats__income"].values == [20.0]
    assert not (folder / SOCKET).exists()


async def test_a_service_is_described_by_keys_and_features(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        told = await world.client.describe("credit", 5)
        assert (told.keys, told.features) == (KEYS, FEATURES)
        assert isinstance(told.features[0], Feature)
        with pytest.raises(StoreFailed, match="credit") as failed:
            await world.client.describe("nothing", 5)
        assert failed.value.code == "unknown"


async def test_who_waits_too_long_goes_on_without_and_the_next_is_answered(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        with world.store.stopped(), pytest.raises(StoreSilent, match="50 ms"):
            await world.client.ask("credit", {"customer_id": [2]}, 0.05)
        assert (await world.client.ask("credit", {"customer_id": [4]}, 5))["stats__income"].values == [40.0]


async def test_without_a_process_it_fails_at_once_and_comes_back_with_it(tmp_path):
    client = FeatureClient(tmp_path)
    for _ in range(3):
        with pytest.raises(StoreFailed) as failed:
            await client.ask("credit", {"customer_id": [2]}, 5)
        assert failed.value.code == "down"
    async with FeatureWorld(tmp_path) as world:
        async with asyncio.timeout(30):
            while True:
                try:
                    found = await client.ask("credit", {"customer_id": [2]}, 5)
                    break
                except StoreFailed:
                    await asyncio.sleep(0.01)
        assert found["stats__income"].values == [20.0]
        with world.store.stopped():
            asked = asyncio.create_task(client.ask("credit", {"customer_id": [2]}, 5))
            await world.store.asked(2)
            await world.process.close()
            with pytest.raises(StoreFailed, match="gone"):
                await asked
    await client.close()


async def test_a_caller_that_leaves_costs_nobody_anything(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        with world.store.stopped():
            leaves = asyncio.create_task(world.client.ask("credit", {"customer_id": [2]}, 5))
            stays = asyncio.create_task(world.client.ask("credit", {"customer_id": [4]}, 5))
            await world.store.asked()
            leaves.cancel()
        assert (await stays)["stats__income"].values == [40.0]
        assert not world.client._open
