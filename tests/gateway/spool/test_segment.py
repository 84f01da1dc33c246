import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.spool.files import Files
from gateway.spool.frame import HEADER_BYTES
from gateway.spool.reader import SegmentReader
from gateway.spool.segment import SegmentWriter, SpoolFull, segment_path

MB = 1 << 20


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "worker-1"


def settle(writer):
    """Waits for what the helper thread was asked to do."""
    writer._helper.submit(lambda: None).result()


def read_all(folder):
    reader = SegmentReader(folder)
    frames = reader.read(1 << 30)
    reader.close()
    return frames, reader


def test_frames_are_numbered_from_one_without_gaps(folder):
    writer = SegmentWriter(folder, bytes_max=MB)
    assert writer.append([b"a", b"b"]) == 2
    assert writer.append([b"c"]) == 3
    frames, reader = read_all(folder)
    assert [(frame.sequence, frame.payload) for frame in frames] == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert (reader.missing, reader.torn_bytes) == (0, 0)
    writer.close()


def test_a_turn_of_more_parts_than_one_call_takes_is_still_whole(folder):
    writer = SegmentWriter(folder, bytes_max=MB)
    assert writer.append([b"%d" % at for at in range(1, 2001)]) == 2000
    writer.close()
    assert len(read_all(folder)[0]) == 2000


def test_files_and_folders_are_the_owners_alone(folder):
    writer = SegmentWriter(folder, bytes_max=MB)
    writer.append([b"a"])
    settle(writer)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    writer.close()


def test_a_folder_is_never_used_twice(folder):
    SegmentWriter(folder, bytes_max=MB).close()
    with pytest.raises(FileExistsError):
        SegmentWriter(folder, bytes_max=MB)


def test_a_segment_rolls_by_size_and_nothing_is_lost_between_segments(folder):
    writer = SegmentWriter(folder, segment_bytes=1000, bytes_max=MB)
    for at in range(100):
        writer.append([bytes([at]) * 90])
        settle(writer)
    assert len(list(folder.glob("*.seg"))) > 8
    writer.close()
    frames, reader = read_all(folder)
    assert [frame.sequence for frame in frames] == list(range(1, 101))
    assert reader.missing == 0


def test_a_segment_rolls_by_age_but_an_empty_one_never_does(folder):
    clock = Clock()
    writer = SegmentWriter(folder, segment_s=10.0, bytes_max=MB, clock=clock)
    settle(writer)
    clock.now = 11.0
    writer.append([b"a"])
    assert segment_path(folder, 1).stat().st_size > HEADER_BYTES
    clock.now = 22.0
    writer.append([b"b"])
    assert segment_path(folder, 2).stat().st_size > HEADER_BYTES
    writer.close()


def test_a_roll_does_not_wait_for_the_file_ahead(folder):
    writer = SegmentWriter(folder, segment_bytes=100, bytes_max=MB)
    settle(writer)
    blocked = threading.Event()
    writer.append([b"a" * 200])
    writer._helper.submit(blocked.wait)
    writer.append([b"b" * 200])  # takes the file opened ahead; the one after it cannot be opened now
    writer.append([b"c" * 200])
    assert writer.append([b"d"]) == 4
    blocked.set()
    writer.close()
    assert [frame.payload[:1] for frame in read_all(folder)[0]] == [b"a", b"b", b"c", b"d"]


def test_a_full_spool_refuses_and_heals_when_readers_release(folder):
    clock = Clock()
    writer = SegmentWriter(folder, bytes_max=4000, clock=clock)
    written = 0
    while writer.pending_bytes() + 100 <= 4000:
        settle(writer)
        written = writer.append([b"x" * 84])
    with pytest.raises(SpoolFull) as caught:
        writer.append([b"x" * 84])
    assert caught.value.sequence == written
    assert writer.pending_bytes() <= 4000 + HEADER_BYTES
    reader = SegmentReader(folder)
    assert len(reader.read()) == written
    reader.release(written)
    clock.now += 1
    with pytest.raises(SpoolFull):
        writer.append([b"x" * 3000])  # asks for another look at the folder
    settle(writer)
    assert writer.append([b"y"]) == written + 1
    assert [frame.payload for frame in reader.read()] == [b"y"]
    assert reader.missing == 0
    reader.close()
    writer.close()


def test_one_frame_that_fills_the_spool_can_still_be_released(folder):
    clock = Clock()
    writer = SegmentWriter(folder, bytes_max=1000, clock=clock)
    settle(writer)
    writer.append([b"x" * 900])
    reader = SegmentReader(folder)
    for _ in range(3):
        clock.now += 1
        with pytest.raises(SpoolFull):
            writer.append([b"y" * 200])
        settle(writer)
    assert len(reader.read()) == 1
    reader.release(1)
    clock.now += 1
    writer._rescan()
    settle(writer)
    assert writer.append([b"y" * 200]) == 2
    reader.close()
    writer.close()


@pytest.mark.faults
def test_frames_after_a_write_that_the_disk_cut_short_are_all_readable(folder):
    """RLIMIT_FSIZE cuts a write short at exactly the limit, as a full disk does, and then refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    clock = Clock()
    writer = SegmentWriter(folder, bytes_max=MB, clock=clock)
    settle(writer)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for _ in range(5):
            writer.append([b"a" * 100])
        with pytest.raises(SpoolFull) as caught:
            writer.append([b"b" * 100, b"c" * 100, b"d" * 300, b"e" * 100])
        assert caught.value.errno == errno.EFBIG
        assert caught.value.sequence == 7  # b and c were whole, and stay
        assert writer.append([b"f" * 100]) == 8  # in the next segment
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    frames, reader = read_all(folder)
    assert b"".join(frame.payload[:1] for frame in frames) == b"aaaaabcf"
    assert (reader.missing, reader.torn_bytes) == (0, 0)


class BadDisk(Files):
    """Refuses to truncate, and to sync while `is_bad`."""

    is_bad = False

    def truncate(self, file, length):
        raise OSError(errno.EIO, "no")

    def datasync(self, file):
        if self.is_bad:
            raise OSError(errno.EIO, "lost")
        os.fdatasync(file)


@pytest.mark.faults
def test_a_torn_tail_that_cannot_be_cut_ends_its_segment_only(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SegmentWriter(folder, bytes_max=MB, files=BadDisk())
    settle(writer)
    writer.append([b"a" * 100])
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(SpoolFull):
            writer.append([b"b" * 150])
        assert writer.append([b"c" * 50]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()
    frames, reader = read_all(folder)
    assert [frame.payload[:1] for frame in frames] == [b"a", b"c"]
    assert reader.torn_bytes == 200 - 2 * HEADER_BYTES - 100
    assert reader.missing == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_without_room_is_spool_full_and_passes(folder):
    clock = Clock()
    writer = SegmentWriter(folder, bytes_max=MB, clock=clock)
    writer.append([b"a"])
    real = writer._file
    writer._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(SpoolFull) as caught:
        writer.append([b"b"])
    assert caught.value.errno == errno.ENOSPC
    os.close(writer._file)
    writer._file = real
    assert writer.append([b"c"]) == 2
    writer.close()
    assert [frame.payload for frame in read_all(folder)[0]] == [b"a", b"c"]


def test_sync_answers_the_last_frame_that_is_on_the_disk(folder):
    writer = SegmentWriter(folder, segment_bytes=100, bytes_max=MB, durable=True)
    for at in range(1, 6):
        writer.append([b"x" * 200])
        assert writer.sync() == at
    assert not writer._retired
    writer.close()


def test_a_segment_that_could_not_be_synced_is_left_and_the_next_one_may_be_well(folder):
    disk = BadDisk()
    writer = SegmentWriter(folder, bytes_max=MB, durable=True, files=disk)
    settle(writer)
    writer.append([b"a"])
    disk.is_bad = True
    with pytest.raises(OSError, match="lost"):
        writer.sync()
    disk.is_bad = False
    with pytest.raises(OSError, match="could not be synced"):  # the kernel would say that all is well
        writer.sync()
    writer.append([b"b"])  # in the next segment; but what else was written to the last one is not told of yet
    settle(writer)
    with pytest.raises(OSError, match="could not be synced"):
        writer.sync()
    writer.append([b"c"])
    assert writer.sync() == 3
    writer.close()
    assert [frame.payload for frame in read_all(folder)[0]] == [b"a", b"b", b"c"]
    assert segment_path(folder, 2).exists()


def test_a_sealed_segment_that_could_not_be_synced_is_told_of_by_the_next_sync(folder):
    disk = BadDisk()
    writer = SegmentWriter(folder, segment_bytes=100, bytes_max=MB, durable=True, files=disk)
    writer.append([b"x" * 200])
    settle(writer)
    disk.is_bad = True
    writer.append([b"x" * 200])  # rolls; the helper syncs the segment before it
    settle(writer)
    disk.is_bad = False
    with pytest.raises(OSError, match="lost"):
        writer.sync()
    writer.append([b"x" * 200])
    assert writer.sync() == 3
    writer.close()


CHILD = """
import sys
from pathlib import Path
from gateway.spool.segment import SegmentWriter
writer = SegmentWriter(Path(sys.argv[1]), segment_bytes=64 << 10, bytes_max=1 << 30)
at = 0
while True:
    payloads = [b"%010d" % (at + i) * (1 + (at + i) % 97) for i in range(1 + at % 13)]
    at += len(payloads)
    last = writer.append(payloads)
    sys.stdout.write(f"{last}\\n")
    sys.stdout.flush()
"""


@pytest.mark.faults
@pytest.mark.parametrize("acks", [1, 500, 3000, 9000])
def test_kill_9_loses_no_acknowledged_frame(folder, acks):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    acknowledged = 0
    for _ in range(acks):
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")[:-1]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    acknowledged = int(rest[-1]) if rest else acknowledged

    frames, reader = read_all(folder)
    assert len(frames) >= acknowledged
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
    assert all(frame.payload[:10] == b"%010d" % (frame.sequence - 1) for frame in frames)
    assert reader.missing == 0
    assert reader.is_drained
