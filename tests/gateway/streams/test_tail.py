import asyncio
import shutil
from datetime import UTC, datetime

import pytest
from deltalake import DeltaTable

from gateway.streams.ingest import ingest
from gateway.streams.table import CommitFailed
from gateway.streams.tail import LakeStream
from routing.traffic import Retention
from tests.kit.spooled import (
    BINARY,
    START_UNIX_US,
    Place,
    encode,
    label,
    labels,
    pid_text,
    predictions,
    request,
    shadows,
)


class Clock:
    """The wall clock; `monotonic` goes with it, but not back."""

    def __init__(self):
        self.now_us = 1_800_000_000_000_000
        self.set_back_us = 0

    def __call__(self):
        return self.now_us - self.set_back_us

    def monotonic(self):
        return self.now_us / 1e6


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(place, clock, tmp_path):
    """Makes a stream of the place, with options of its own."""
    own = {"letters": tmp_path / "letters", "forgets": tmp_path / "forgets.json", "answers": lambda _: BINARY}
    return lambda **options: LakeStream(
        place.uri, place.spool, clock=clock.monotonic, clock_us=clock, **(own | options)
    )


@pytest.fixture
async def stream(opened):
    stream = opened(frames_max=10)
    yield stream
    await stream.close()


@pytest.fixture
def writer(place):
    writer = place.writer()
    yield writer
    writer.close()


def count(place, table="predictions"):
    return DeltaTable(f"{place.uri}/{table}").to_pyarrow_dataset().count_rows()


async def test_a_record_is_committed_when_it_has_waited_long_enough(place, stream, clock, writer):
    writer.append(encode(predictions([request(0)], [0.5])))
    assert await stream.step()
    assert (stream.figures.held_frames, stream.figures.rows["predictions"]) == (1, 0)
    clock.now_us += 400_000
    await stream.step()
    assert stream.figures.lag_s == pytest.approx(0.4)
    clock.now_us += 600_000
    await stream.step()
    assert (stream.figures.held_frames, stream.figures.rows["predictions"]) == (0, 1)
    assert stream.figures.lag_s == 0
    assert count(place) == 1


async def test_many_records_are_committed_at_once(place, stream, writer):
    writer.append(encode(*[predictions([request(n)], [0.5]) for n in range(10)]))
    await stream.step()
    assert stream.figures.commits["predictions"] == 1
    assert count(place) == 10


async def test_the_end_commits_what_is_there(place, writer, opened):
    stream = opened()
    writer.append(encode(predictions([request(0)], [0.5]), labels(label(0, 1))))
    stop = asyncio.Event()
    stop.set()
    await stream.run(stop)
    assert (count(place), count(place, "labels")) == (1, 1)


async def test_a_lake_that_cannot_be_written_is_shown_and_loses_nothing(place, stream, writer, tmp_path):
    obstacle = tmp_path / "lake"
    obstacle.write_text("in the way")
    writer.append(encode(*[predictions([request(n)], [0.5]) for n in range(10)]))
    assert not await stream.step()
    assert stream.figures.failure is not None
    obstacle.unlink()
    assert await stream.step()
    assert stream.figures.failure is None
    assert count(place) == 10


async def test_a_lake_that_cannot_even_be_opened_falls_behind_all_the_while(place, stream, writer, clock, tmp_path):
    obstacle = tmp_path / "lake"
    obstacle.write_text("in the way")
    writer.append(encode(predictions([request(0)], [0.5])))
    for seconds in (0, 3, 6):
        assert not await stream.step()
        assert stream.figures.lag_s == pytest.approx(seconds)
        clock.now_us += 3_000_000
    obstacle.unlink()
    assert await stream.step(flush=True)
    assert stream.figures.lag_s == 0


async def test_a_frame_that_can_neither_be_read_nor_set_aside_is_kept(place, stream, writer, tmp_path):
    (tmp_path / "letters").write_text("in the way")
    writer.append([b"\xc1", *encode(predictions([request(0)], [0.5]))])
    assert not await stream.step()
    (tmp_path / "letters").unlink()
    assert await stream.step(flush=True)
    assert stream.figures.dead_letters == 1
    assert count(place) == 1


async def test_a_writer_that_left_is_drained_and_its_folder_goes(place, stream, writer, clock):
    writer.append(encode(predictions([request(0)], [0.5])))
    writer.close()
    await stream.step()
    clock.now_us += 2_000_000
    await stream.step()
    await stream.step()
    assert not list(place.spool.iterdir())
    assert count(place) == 1


async def test_figures_count_on_when_the_lake_had_to_start_over(place, stream, writer, clock):
    writer.append(encode(*[predictions([request(n)], [0.5]) for n in range(10)]))
    await stream.step()
    shutil.move(f"{place.uri}/labels", f"{place.uri}/away")
    writer.append(encode(*[labels(label(n, 1)) for n in range(10)]))
    assert not await stream.step()
    shutil.move(f"{place.uri}/away", f"{place.uri}/labels")
    assert await stream.step(flush=True)
    assert (stream.figures.rows["predictions"], stream.figures.rows["labels"]) == (10, 10)


async def test_small_files_are_joined_after_enough_commits_and_every_row_is_kept(place, writer, opened):
    stream = opened(frames_max=1, join_every=5)
    for n in range(5):
        writer.append(encode(predictions([request(n)], [0.5])))
        assert await stream.step()
    await stream.close()
    assert len(DeltaTable(f"{place.uri}/predictions").file_uris()) == 1
    assert count(place) == 5


async def test_rows_past_their_retention_go_by_themselves(place, clock, writer, opened):
    clock.now_us = START_UNIX_US
    stream = opened(frames_max=1, retention=lambda: {"phishing": Retention(3600)})
    writer.append(encode(predictions([request(0)], [0.5])))
    assert await stream.step()
    clock.now_us += 600_000_000
    assert await stream.step()
    assert count(place) == 1
    clock.now_us += 3_600_000_000
    assert await stream.step()
    assert count(place) == 0
    assert stream.figures.expired == 1
    await stream.close()


async def test_tables_of_others_are_looked_at_every_hour_and_one_that_cannot_be_read_holds_nobody_up(
    place, clock, writer, opened, tmp_path
):
    clock.now_us = START_UNIX_US
    (tmp_path / "a.csv").write_text("id\n1\n")
    at = datetime.fromtimestamp(START_UNIX_US / 1e6, UTC)
    list(ingest(f"{place.uri}/ingested/good", str(tmp_path / "a.csv"), at))
    broken = tmp_path / "lake" / "ingested" / "broken" / "_delta_log"
    broken.mkdir(parents=True)
    (broken / "00000000000000000000.json").write_text("no log")
    stream = opened(frames_max=1, ingested_s={"broken": 3600, "good": 3600, "nowhere": 3600})
    writer.append(encode(predictions([request(0)], [0.5])))
    clock.now_us += 600_000_000
    assert await stream.step()
    assert count(place, "ingested/good") == 1
    clock.now_us += 3_600_000_000
    assert await stream.step()
    assert (count(place), count(place, "ingested/good"), stream.figures.expired) == (1, 0, 1)
    await stream.close()


async def test_forgetting_takes_what_was_still_in_the_spool_along(place, stream, writer):
    writer.append(encode(predictions([request(0, unit="gone"), request(1, unit="kept")], [0.5, 0.5])))
    deleted = await stream.forget(["gone"])
    assert {name: rows for name, rows in deleted.items() if rows} == {"predictions": 1}
    assert count(place) == 1


async def test_what_cannot_be_deleted_now_is_said(place, stream, tmp_path):
    (tmp_path / "lake").write_text("in the way")
    with pytest.raises(CommitFailed):
        await stream.forget(["gone"])


async def test_a_wall_clock_that_is_set_back_holds_nothing_up(clock, writer, opened):
    clock.now_us = START_UNIX_US
    stream = opened(retention=lambda: {"phishing": Retention(3600)})
    writer.append(encode(predictions([request(0, received_unix_us=START_UNIX_US - 20_000_000_000)], [0.5])))
    await stream.step()
    clock.set_back_us = 7_200_000_000
    clock.now_us += 400_000
    await stream.step()
    assert stream.figures.lag_s == pytest.approx(0.4), "and it is seen that something waits"
    clock.now_us += 600_000
    await stream.step()
    assert stream.figures.held_frames == 0
    clock.now_us += 600_000_000
    await stream.step()
    assert stream.figures.expired == 1
    await stream.close()


async def test_forgetting_reaches_behind_any_backlog(place, stream, writer, monkeypatch):
    monkeypatch.setattr("gateway.streams.lake._READ_BYTES", 100)
    for number in range(120):
        writer.append(encode(predictions([request(number, unit="gone")], [0.5])))
    deleted = await stream.forget(["gone"])
    assert deleted["predictions"] == 120
    await stream.step(flush=True)
    assert count(place) == 0


async def test_what_mirrors_bring_later_of_a_forgotten_unit_goes_too_and_what_it_does_afterwards_stays(
    place, stream, writer, clock, tmp_path, opened
):
    clock.now_us = START_UNIX_US + 1_000_000
    writer.append(encode(predictions([request(0, unit="gone")], [0.5])))
    await stream.forget(["gone"])
    pair = shadows([0, 2000], ["0", "0"], ["1", "1"], units=["gone", "gone"])
    writer.append(encode(predictions([request(2000, unit="gone")], [0.5]), pair))
    after = opened()
    await after.step(flush=True)
    assert (count(place), count(place, "shadows")) == (1, 2)
    clock.now_us += 150_000_000
    assert await after.step()
    assert (count(place), count(place, "shadows")) == (1, 1), "what was received after the call is nobody's business"
    assert not (tmp_path / "forgets.json").exists()
    await after.close()


async def test_labels_that_come_late_of_forgotten_predictions_go_too(place, stream, writer, clock, tmp_path, opened):
    clock.now_us = START_UNIX_US + 1_000_000
    asked = [request(n, unit="gone", request_id=f"order-{n}") for n in (0, 1)]
    writer.append(encode(predictions([*asked, request(2, unit="kept")], [0.5] * 3)))
    await stream.forget(["gone"])
    by_request = [label(None, 1, endpoint="phishing", request_id=f"order-{n}") for n in (0, 1)]
    again = predictions([request(3, unit="other", request_id="order-1", received_unix_us=clock.now_us + 1)], [0.5])
    writer.append(encode(labels(label(0, 1), label(2, 1), *by_request), again))
    after = opened()
    await after.step(flush=True)
    assert count(place, "labels") == 4
    clock.now_us += 150_000_000
    assert await after.step()
    stored = DeltaTable(f"{place.uri}/labels").to_pyarrow_table(columns=["prediction_id", "request_id"]).to_pylist()
    left = {(row["prediction_id"], row["request_id"]) for row in stored}
    assert left == {(pid_text(2), None), (None, "order-1")}, "a request id that another bears by now is the other's"
    assert not (tmp_path / "forgets.json").exists()
    await after.close()
