import asyncio
import errno
import threading

import pytest

from gateway.spool.group import GroupCommit
from gateway.spool.reader import SegmentReader
from gateway.spool.segment import SegmentWriter
from tests.kit.power_loss import LossyDisk


class HeldDisk(LossyDisk):
    """A disk whose syncs wait until they may, and fail when told to."""

    def __init__(self, root):
        super().__init__(root)
        self.may = threading.Event()
        self.began = threading.Semaphore(0)
        self.fails = False

    def datasync(self, file):
        self.began.release()
        assert self.may.wait(30)
        if self.fails:
            raise OSError(errno.EIO, "a bad sector")
        super().datasync(file)


@pytest.fixture
def disk(tmp_path):
    return HeldDisk(tmp_path)


@pytest.fixture
def writer(tmp_path, disk):
    return SegmentWriter(tmp_path / "w", bytes_max=1 << 20, durable=True, files=disk)


async def test_who_comes_during_a_sync_shares_the_next_one(writer, disk):
    group = GroupCommit(writer)
    writer.append([b"first"])
    first = asyncio.create_task(group.synced())
    await asyncio.to_thread(disk.began.acquire)
    later = []
    for number in range(5):
        writer.append([b"%d" % number])
        later.append(asyncio.create_task(group.synced()))
    await asyncio.sleep(0)
    assert not first.done()
    disk.may.set()
    await asyncio.gather(first, *later)
    assert sum(one.kind == "sync" for one in disk.history) == 2
    await group.close()


async def test_a_sync_that_fails_is_told_to_all_of_its_group_and_the_next_segment_may_be_well(writer, disk):
    group = GroupCommit(writer)
    writer.append([b"lost"])
    disk.fails = True
    disk.may.set()
    told = await asyncio.gather(group.synced(), group.synced(), return_exceptions=True)
    assert [type(one) for one in told] == [OSError, OSError]
    disk.fails = False
    writer.append([b"told once more"])  # it shares the sync that looks at the broken segment again
    with pytest.raises(OSError, match="could not be synced before"):
        await group.synced()
    writer.append([b"kept"])
    await group.synced()
    await group.close()


async def test_a_caller_who_leaves_takes_nobodys_sync_along(writer, disk, tmp_path):
    group = GroupCommit(writer)
    writer.append([b"one"])
    leaves, stays = asyncio.create_task(group.synced()), asyncio.create_task(group.synced())
    await asyncio.to_thread(disk.began.acquire)
    leaves.cancel()
    disk.may.set()
    await stays
    await group.close()
    assert [frame.payload for frame in SegmentReader(tmp_path / "w").read(1 << 20)] == [b"one"]
