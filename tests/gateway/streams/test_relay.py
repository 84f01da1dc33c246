import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from gateway.streams.relay import Relay, SinkFailed
from gateway.streams.upkeep import forget
from tests.kit.spooled import START_UNIX_US, Place, label, labels, pid_text, predictions, request


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Store:
    """A sink in memory, as a real one behaves: it may refuse, and it knows a row by its sequence."""

    def __init__(self):
        self.rows = {}
        self.given = 0
        self.refuses = False
        self.closed = 0
        self.size_max = None

    def send(self, table, rows):
        self.given += rows.num_rows
        if self.refuses:
            raise SinkFailed("down")
        too_large = []
        for row in rows.to_pylist():
            if self.size_max is not None and row["input_x"] > self.size_max:
                too_large.append(row["sequence"])
            else:
                self.rows[row["sequence"]] = (table, row)
        return too_large

    def close(self):
        self.closed += 1


def relay(place, store, tmp_path, **more):
    options = {"position": tmp_path / "sinks" / "mine.json", "start": "all"} | more
    return Relay("mine", place.uri, ("predictions", "labels"), lambda: store, **options)


def block(*numbers):
    return predictions([request(n) for n in numbers], [0.5] * len(numbers))


def test_rows_of_all_tables_arrive_and_the_position_is_kept_over_restarts(place, tmp_path):
    place.store(block(0, 1), labels(label(0, 1)))
    store = Store()
    first = relay(place, store, tmp_path)
    assert first.step() is True
    assert first.step() is False
    assert sorted(table for table, _ in store.rows.values()) == ["labels", "predictions", "predictions"]
    assert first.figures.rows == 3
    place.store(block(2), writer="worker-2")
    again = relay(place, store, tmp_path)
    assert again.step() is True
    assert store.given == 4
    assert (tmp_path / "sinks" / "mine.json").stat().st_mode & 0o777 == 0o600


def test_a_sink_that_is_down_gets_the_same_rows_again_and_its_lag_grows(place, tmp_path):
    place.store(block(0))
    store, now = Store(), [START_UNIX_US / 1e6 + 10]
    ours = relay(place, store, tmp_path, wall=lambda: now[0])
    store.refuses = True
    assert ours.step() is None
    assert (ours.figures.lag_s, store.closed) == (pytest.approx(10), 1)
    assert "down" in ours.figures.failure
    now[0] += 60
    assert ours.step() is None
    assert ours.figures.lag_s == pytest.approx(70)
    store.refuses = False
    assert ours.step() is True
    assert (ours.figures.lag_s, ours.figures.failure, len(store.rows)) == (0.0, None, 1)


def test_a_new_sink_begins_with_what_comes_from_now_on_unless_it_wants_all(place, tmp_path):
    place.store(block(0, 1, 2))
    store = Store()
    ours = relay(place, store, tmp_path, start="new")
    assert ours.step() is False
    place.store(block(3), writer="worker-2")
    assert ours.step() is True
    assert store.given == 1


def test_what_comes_while_a_new_sink_connects_is_carried_to_it(place, tmp_path):
    place.store(block(0))
    store = Store()

    def connect():
        place.store(block(1), writer="worker-2")
        return store

    first = Relay("mine", place.uri, ("predictions",), connect, position=tmp_path / "mine.json", start="new")
    assert first.step() is True
    assert len(store.rows) == 1


def test_a_connection_that_cannot_be_made_is_tried_again(place, tmp_path):
    place.store(block(0))
    tries = []

    def connect():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("whatever a client raises")
        return Store()

    ours = Relay("mine", place.uri, ("predictions",), connect, position=tmp_path / "p.json", start="all")
    assert ours.step() is None
    assert "whatever" in ours.figures.failure
    assert ours.step() is True


def test_rows_that_the_sink_never_takes_are_stepped_over_and_counted(place, tmp_path, caplog):
    place.store(block(0, 1, 2, 3))
    store = Store()
    store.size_max = 1.0
    ours = relay(place, store, tmp_path)
    assert ours.step() is True
    assert ours.step() is False
    assert (ours.figures.rows, ours.figures.too_large, ours.figures.failure) == (2, 2, None)
    assert sorted(store.rows) == [1, 2]
    assert "sink_rows_too_large" in caplog.text
    assert "'first': 3" in caplog.text


def test_a_position_ahead_of_a_lake_that_was_restored_begins_anew_at_its_end(place, tmp_path, caplog):
    place.store(block(0, 1))
    shutil.copytree(place.uri, tmp_path / "backup")
    place.store(block(2, 3, 4), writer="worker-2")
    store = Store()
    assert relay(place, store, tmp_path).step() is True
    shutil.rmtree(place.uri)
    shutil.copytree(tmp_path / "backup", place.uri)
    ours = relay(place, store, tmp_path)
    asyncio.run(ours.begin())
    assert "sink_ahead_of_lake" in caplog.text
    place.store(block(5), writer="worker-3")
    assert ours.step() is True
    assert store.rows[3][1]["prediction_id"] == pid_text(5)


def test_a_lake_whose_newest_rows_were_forgotten_is_no_lake_that_was_restored(place, tmp_path, caplog):
    place.store(block(0), predictions([request(1, unit="gone")], [0.5]))
    store = Store()
    assert relay(place, store, tmp_path).step() is True
    lake = place.lake()
    forget(lake._tables, lake._letters, ["gone"])
    assert relay(place, store, tmp_path).step() is False
    assert store.given == 2
    assert "sink_ahead_of_lake" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}garbage", b'{"predictions": "x"}'])
def test_a_position_file_that_is_none_stops_the_sink_and_says_what_to_do(place, tmp_path, content):
    place.store(block(0))
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    ours = relay(place, Store(), tmp_path, position=path, start="new")
    assert ours.step() is None
    assert f"{path} holds no positions" in ours.figures.failure
    assert "begins as sinks.start says (new)" in ours.figures.failure
    path.unlink()
    assert ours.step() is False


def test_a_position_is_synced_before_the_next_rows_are_sent(place, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    place.store(block(0))
    synced.clear()
    relay(place, Store(), tmp_path).step()
    assert any("mine.json" in path for path in synced)
    assert str(tmp_path / "sinks") in synced


async def test_it_runs_until_it_is_told_to_stop(place, tmp_path):
    store, stop = Store(), asyncio.Event()
    ours = relay(place, store, tmp_path)
    place.store(block(0, 1))
    task = asyncio.create_task(ours.run(stop))
    async with asyncio.timeout(30):
        while len(store.rows) < 2:  # noqa: ASYNC110  # another thread writes it
            await asyncio.sleep(0.01)
        stop.set()
        await task
    assert store.closed == 1
    assert json.loads((tmp_path / "sinks" / "mine.json").read_text())["predictions"] > 0
