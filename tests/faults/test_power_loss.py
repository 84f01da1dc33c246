"""`durability: disk` against a disk that loses its power at a thousand instants; with anything weaker the same test finds losses."""

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from deltalake import DeltaTable

from gateway.spool.reader import SegmentReader, writers
from gateway.spool.segment import SegmentWriter, SpoolFull
from gateway.streams.shore import Shore
from gateway.streams.table import CommitFailed
from gateway.ticket import Ticket
from routing.records import LabelBlock, LabelRow, MetricBlock, MinuteRow, PredictionBlock
from tests.kit import spooled
from tests.kit.plane import Plane
from tests.kit.power_loss import LossyDisk
from tests.kit.spooled import Place, encode
from tests.kit.staged import stage_linear

pytestmark = [pytest.mark.faults, pytest.mark.slow]

INSTANTS = 1000
SEED = 20_261_123


class Teller:
    """A door that tells the disk whom it has told."""

    def __init__(self, disk: LossyDisk) -> None:
        self._disk = disk
        self._told = asyncio.Event()
        self.answered = 0

    def complete(self, ticket: Ticket) -> None:
        assert ticket.error is None
        self._disk.acknowledge(ticket.prediction_bytes)
        self.answered += 1
        self._told.set()

    async def has_told(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.answered < count:
                self._told.clear()
                await self._told.wait()

    def flush(self) -> None:
        """Nothing is held back."""


def losses(disk: LossyDisk, folder: Path, read: Callable[[Path], set[object]]) -> int:
    """At how many of INSTANTS, drawn at random, something is missing that had been acknowledged."""
    chance = random.Random(SEED)
    lossy = 0
    for at in range(INSTANTS):
        instant = chance.randint(1, len(disk.history))
        rebuilt = folder / str(at)
        rebuilt.mkdir(parents=True)
        disk.rebuild(instant, rebuilt, chance)
        lossy += not disk.acknowledged(instant) <= read(rebuilt)
        shutil.rmtree(rebuilt)
    return lossy


def payloads(state: Path) -> set[object]:
    """Every payload that a reader finds in the spool of a state directory."""
    found = set()
    for writer in writers(state / "spool"):
        reader = SegmentReader(state / "spool" / writer)
        found |= {frame.payload for frame in reader.read(1 << 30)}
        reader.close()
    return found


def predictions(state: Path) -> set[object]:
    blocks = (msgspec.msgpack.decode(payload, type=PredictionBlock) for payload in payloads(state))
    return {request.prediction_id for block in blocks for request in block.requests}


async def served(folder: Path, *, durability: str = "disk", ignores: tuple[str, ...] = ()) -> LossyDisk:
    """A worker's own corridor over a lossy disk: bursts of requests, whose records take some twenty segments."""
    disk = LossyDisk(folder, ignores=ignores)
    plane = Plane(folder, segment_bytes=8192, files=disk)
    served = plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": durability})
    teller, chance, asked = Teller(disk), random.Random(SEED), 0
    while asked < 900:
        for _ in range(chance.randint(1, 4)):
            row = np.array([[asked, 1]], np.float32)
            plane.data.submit(Ticket(teller, served, [row], 1, 0, plane.data._clock_ns()))
            asked += 1
        for _ in range(chance.randint(1, 30)):  # turns in which syncs end, or do not
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            await teller.has_told(asked)
    await teller.has_told(asked)
    plane.close()
    return disk


async def test_power_loss_at_any_of_1000_instants_loses_no_acknowledged_prediction(tmp_path):
    disk = await served(tmp_path / "state")
    assert sum(one.kind == "sync" for one in disk.history) > 50
    assert sum(str(one.at).endswith(".seg") for one in disk.history if one.kind == "enter") > 15
    lossy = await asyncio.to_thread(losses, disk, tmp_path / "after", predictions)
    print(f"\npower loss at {INSTANTS} of {len(disk.history)} instants: {lossy} lost something")
    assert lossy == 0


async def labelled(folder: Path, *, durability: str = "disk", ignores: tuple[str, ...] = ()) -> LossyDisk:
    """Posts of labels, several at once, each acknowledged when its 202 would leave."""
    disk = LossyDisk(folder, ignores=ignores)
    plane = Plane(folder, segment_bytes=4096, files=disk)
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": durability})
    chance = random.Random(SEED)

    async def post(number: int) -> None:
        rows = [LabelRow(number.to_bytes(16, "big"), None, None, at, 1.0, None, number) for at in range(3)]
        await plane.labels.accept(rows)
        for row in rows:
            disk.acknowledge((row.prediction_id, row.row))

    for first in range(0, 600, 20):
        posts = [asyncio.create_task(post(number)) for number in range(first, first + 20)]
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)
        await asyncio.gather(*posts)
    await plane.labels.close()
    plane.close()
    return disk


def labels(state: Path) -> set[object]:
    blocks = (msgspec.msgpack.decode(payload, type=LabelBlock) for payload in payloads(state))
    return {(row.prediction_id, row.row) for block in blocks for row in block.labels}


async def test_power_loss_at_any_of_1000_instants_loses_no_accepted_label(tmp_path):
    disk = await labelled(tmp_path / "state")
    syncs = sum(one.kind == "sync" for one in disk.history)
    assert 30 < syncs < 600, "posts share their syncs"
    assert await asyncio.to_thread(losses, disk, tmp_path / "after", labels) == 0


@pytest.mark.parametrize("weaker", [{"ignores": ("datasync",)}, {"durability": "process"}])
async def test_control_labels_that_are_not_synced_are_lost(tmp_path, weaker):
    disk = await labelled(tmp_path / "state", **weaker)
    lossy = await asyncio.to_thread(losses, disk, tmp_path / "after", labels)
    assert lossy > INSTANTS // 10


@pytest.mark.parametrize("ignores", [("datasync",), ("sync_folder",)])
async def test_control_a_disk_that_does_not_keep_what_it_was_told_loses_predictions(tmp_path, ignores):
    disk = await served(tmp_path / "state", ignores=ignores)
    lossy = await asyncio.to_thread(losses, disk, tmp_path / "after", predictions)
    print(f"\nwithout {ignores[0]}: {lossy} of {INSTANTS} instants lost something")
    assert lossy > INSTANTS // 10


async def test_control_a_weaker_durability_loses_predictions(tmp_path):
    """`process` promises what a kill leaves, not what a power loss leaves: were it not so, the test would see nothing."""
    disk = await served(tmp_path / "state", durability="process")
    lossy = await asyncio.to_thread(losses, disk, tmp_path / "after", predictions)
    print(f"\ndurability: process: {lossy} of {INSTANTS} instants lost something")
    assert lossy > INSTANTS // 10


def written(folder: Path, *, durable: bool) -> LossyDisk:
    """One writer alone, on a disk that is full now and then; its folder and that above made by itself. Every sync is acknowledged."""
    disk = LossyDisk(folder)
    chance = random.Random(SEED)
    writer = SegmentWriter(
        folder / "spool" / "worker-1", segment_bytes=4000, bytes_max=1 << 20, durable=durable, files=disk
    )
    unsynced: list[bytes] = []
    for at in range(150):
        payloads = [b"%06d-%d" % (at, part) * chance.randint(1, 100) for part in range(2)]
        disk.room = chance.randint(0, 1500) if chance.random() < 0.2 else None
        with suppress(SpoolFull):  # what was written of them is cut off again, or stays as a whole frame
            writer.append(payloads)
            unsynced += payloads
        disk.room = None
        if chance.random() < 0.4:
            writer.sync()
            for payload in unsynced:
                disk.acknowledge(payload)
            unsynced = []
    writer.close()
    return disk


def test_a_synced_frame_outlives_power_loss_also_where_segments_roll_between_syncs(tmp_path):
    (tmp_path / "state").mkdir()
    disk = written(tmp_path / "state", durable=True)
    assert any(one.kind == "truncate" for one in disk.history)
    assert losses(disk, tmp_path / "after", payloads) == 0


def test_control_a_writer_that_is_not_durable_loses_synced_frames_with_the_names_of_their_files(tmp_path):
    (tmp_path / "state").mkdir()
    disk = written(tmp_path / "state", durable=False)
    assert losses(disk, tmp_path / "after", payloads) > INSTANTS // 10


class Cached:
    """A folder whose files are in the page cache until they were synced, and so were their names. For files that are written once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.durable: set[Path] = set()
        self._content: set[Path] = set()
        fsync = os.fsync

        def synced(file: int) -> None:
            path = Path(f"/proc/self/fd/{file}").readlink()
            fsync(file)
            if path.is_dir():
                self.durable |= self._content & set(path.iterdir())
            self._content.add(path)

        monkeypatch.setattr(os, "fsync", synced)

    def lose(self, into: Path, chance: random.Random) -> int:
        """Copies what a disk could hold when the power fails now; returns how many files that changed."""
        shutil.copytree(self.folder, into)
        torn = 0
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir() or path in self.durable or path.name == "_synced.json" or chance.random() < 0.5:
                continue
            target, size = into / path.relative_to(self.folder), path.stat().st_size
            torn += 1
            match chance.choice(["empty", "torn", "zeros", "gone"]):
                case "empty":
                    target.write_bytes(b"")
                case "torn":
                    os.truncate(target, chance.randint(1, size - 1))
                case "zeros":
                    target.write_bytes(bytes(size))
                case _:
                    target.unlink()
        return torn


def tended(folder: Path, lost: Path, cached: Cached, chance: random.Random, rounds: int) -> tuple[int, int, int]:
    """A lake that is committed, synced, folded and compacted while its power fails now and then, and a successor takes what is left.

    Answers at how many instants something was torn, and at how many of them the successor had not each row and each count once.
    """
    place = Place(folder)
    writers = [place.writer(f"worker-{one}", segment_bytes=3000) for one in range(2)]
    lake = place.lake()
    counted = instants = wrong = 0
    for at in range(rounds):
        writers[at % 2].append(encode(spooled.predictions([spooled.request(at)], [0.5])))
        if at % 3 == 0:
            writers[0].append(encode(MetricBlock([_minute(at // 12)])))
            counted += 10
        lake.read()
        assert lake.commit()
        if at % 5 == 0:
            lake.fold()
        if at % 13 == 12:
            lake.compact(0)
        if cached.lose(lost / str(at) / "lake", chance):
            instants += 1
            shutil.copytree(folder / "spool", lost / str(at) / "spool")
            wrong += not _is_whole(Place(lost / str(at)), at + 1, counted)
        shutil.rmtree(lost / str(at), ignore_errors=True)
    lake.close()
    for writer in writers:
        writer.close()
    return instants, wrong, len(list(place.spool.rglob("*.seg")))


def _minute(at: int) -> MinuteRow:
    return MinuteRow(
        endpoint="phishing",
        variant="champion",
        model="m",
        version="1",
        minute_unix_s=spooled.START_UNIX_US // 60_000_000 * 60 + 60 * at,
        requests=10,
        errors=0,
        rows=10,
        latency_sum_s=0.5,
        latency_buckets=[10],
    )


def _is_whole(place: Place, rows: int, counted: int) -> bool:
    try:
        lake = place.lake()
        while lake.read():
            assert lake.commit(), lake.failure
        lake.fold(everything=True)
        lake.compact(0)
        lake.close()
    except (CommitFailed, AssertionError):
        return False
    ids = DeltaTable(f"{place.uri}/predictions").to_pyarrow_dataset().to_table()["prediction_id"].to_pylist()
    requests = DeltaTable(f"{place.uri}/metrics").to_pyarrow_dataset().to_table()["requests"].to_pylist()
    return sorted(ids) == sorted(spooled.pid_text(number) for number in range(rows)) and sum(requests) == counted


@pytest.mark.timeout(400)  # 80 successors, each of which syncs its tables: two minutes on a busy machine
def test_a_lake_whose_power_fails_between_commit_and_sync_has_every_row_once_after_it(tmp_path, monkeypatch):
    cached = Cached(tmp_path / "state" / "lake", monkeypatch)
    instants, wrong, left = tended(tmp_path / "state", tmp_path / "lost", cached, random.Random(SEED), 80)
    assert left < 10, "segments went meanwhile"
    assert instants > 60
    assert wrong == 0


def test_control_a_lake_that_is_believed_as_it_is_found_loses_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(Shore, "mend", lambda _: None)
    cached = Cached(tmp_path / "state" / "lake", monkeypatch)
    instants, wrong, _ = tended(tmp_path / "state", tmp_path / "lost", cached, random.Random(SEED), 30)
    assert wrong > instants // 4
