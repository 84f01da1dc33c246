import errno
import os

import pytest

from gateway.spool import reader as spool_reader
from gateway.spool.files import Files
from gateway.spool.frame import HEADER_BYTES
from gateway.spool.reader import SegmentReader, expire, is_writer_dead, writers
from gateway.spool.segment import SegmentWriter, segment_path

MB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool" / "worker-1"


@pytest.fixture
def writer(folder):
    writer = SegmentWriter(folder, segment_bytes=400, bytes_max=MB)
    yield writer
    writer.close()


@pytest.fixture
def reader(folder, writer):
    reader = SegmentReader(folder)
    yield reader
    reader.close()


def fill(writer, count, size=90):
    for _ in range(count):
        writer.append([b"x" * size])
        writer._helper.submit(lambda: None).result()


def sequences(frames):
    return [frame.sequence for frame in frames]


def test_a_reader_follows_its_writer_from_segment_to_segment(writer, reader):
    assert reader.read() == []
    fill(writer, 3)
    assert sequences(reader.read()) == [1, 2, 3]
    assert reader.read() == []
    fill(writer, 10)
    assert sequences(reader.read()) == list(range(4, 14))
    assert not reader.is_drained


def test_a_read_takes_about_what_it_was_asked_for_and_at_least_one_frame(writer, reader):
    fill(writer, 10)
    assert sequences(reader.read(1)) == [1]
    assert sequences(reader.read(150)) == [2, 3]
    assert reader.sequence == 3


def test_a_frame_larger_than_a_chunk_is_read_whole(folder):
    data = os.urandom(3 * MB)
    large = SegmentWriter(folder.parent / "worker-2", bytes_max=16 * MB)
    large.append([data, b"y"])
    large.close()
    other = SegmentReader(folder.parent / "worker-2")
    assert [frame.payload for frame in other.read()] == [data, b"y"]
    other.close()


def test_a_reader_resumes_after_a_sequence(folder, writer):
    fill(writer, 12)
    reader = SegmentReader(folder, after=7)
    assert sequences(reader.read()) == [8, 9, 10, 11, 12]
    assert reader.missing == 0
    reader.close()


def test_only_segments_wholly_read_and_committed_are_released(folder, writer, reader):
    fill(writer, 12)
    reader.read()
    before = len(list(folder.glob("*.seg")))
    reader.release(2)
    assert len(list(folder.glob("*.seg"))) == before
    reader.release(12)
    left = sorted(path.stat().st_size for path in folder.glob("*.seg"))
    assert len(left) == 2  # the one that is written to, and the one opened ahead
    assert left[0] == 0
    again = SegmentReader(folder)
    found = sequences(again.read())
    assert found == list(range(13 - len(found), 13))
    assert again.missing == 0
    again.close()


def test_a_torn_tail_of_a_living_writer_is_waited_for(folder, writer, reader):
    fill(writer, 1)
    with segment_path(folder, 1).open("ab") as file:
        file.write(b"\x05")
    assert sequences(reader.read()) == [1]
    assert reader.read() == []
    assert reader.torn_bytes == 0


def test_a_torn_tail_of_a_dead_writer_is_counted_and_stepped_over(folder, writer, reader):
    fill(writer, 1)
    writer.close()
    with segment_path(folder, 1).open("ab") as file:
        file.write(b"\x05\x00\x00")
    assert sequences(reader.read()) == [1]
    assert reader.torn_bytes == 3
    assert reader.is_drained
    reader.release(1)
    assert not list(folder.glob("*.seg"))
    reader.remove()
    assert not folder.exists()


def test_one_corrupt_frame_costs_that_frame_and_is_counted(folder, writer, reader):
    fill(writer, 12)
    path = segment_path(folder, 2)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + HEADER_BYTES + 5] ^= 1  # in the payload of its first frame after the mark
    path.write_bytes(data)
    found = sequences(reader.read())
    assert len(found) == 11
    assert reader.missing == 1
    assert reader.torn_bytes == HEADER_BYTES + 90


def test_a_corrupt_length_costs_the_rest_of_its_segment_and_no_more(folder, writer, reader):
    fill(writer, 12)
    path = segment_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[2 * HEADER_BYTES + 90 + 3] = 0x7F
    path.write_bytes(data)
    found = sequences(reader.read())
    assert found[0] == 1
    assert found[-1] == 12
    assert reader.missing == 12 - len(found)


def test_corruption_where_the_writer_still_writes_is_not_believed(folder, writer, reader):
    fill(writer, 2)
    path = segment_path(folder, 1)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"?")
    assert sequences(reader.read()) == [1]
    path.write_bytes(good)
    assert sequences(reader.read()) == [2]
    assert reader.torn_bytes == 0


def test_the_lock_tells_the_living_from_the_dead(folder, writer):
    assert not is_writer_dead(folder)
    writer.close()
    assert is_writer_dead(folder)


def test_a_writer_without_a_frame_is_drained_when_it_is_dead(folder, writer, reader):
    assert reader.read() == []
    assert not reader.is_drained
    writer.close()
    assert reader.read() == []
    assert reader.is_drained


def test_writers_are_found_by_their_lock(folder, writer):
    (folder.parent / "stray").mkdir()
    assert writers(folder.parent) == ["worker-1"]
    assert writers(folder.parent / "none") == []


def test_segments_expire_also_under_a_reader_that_has_one_open(folder, writer, reader):
    fill(writer, 9)
    reader.read(100)
    written_at = segment_path(folder, 1).stat().st_mtime
    assert expire(folder, 60.0, written_at + 30) == (0, 0)
    segments, deleted = expire(folder, 60.0, written_at + 3600)
    assert segments == 3
    assert deleted > 900
    assert sequences(reader.read()) == [2, 3, 4]  # the file that was open
    assert expire(folder, 60.0, written_at + 3600) == (0, 0)


def test_segments_that_were_read_go_without_being_told_of(folder, writer):
    fill(writer, 9)
    segments, _ = expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 3600, read=4)
    assert segments == 2
    assert not [path for path in folder.glob("*.seg") if path.stat().st_size > HEADER_BYTES]


def test_a_writer_whose_last_segment_expired_writes_the_next_one(folder):
    """What an idle worker left: nothing appends, so nothing seals it, and still its rows must go."""
    now = [0.0]
    writer = SegmentWriter(folder, segment_s=10.0, bytes_max=MB, clock=lambda: now[0])
    writer.append([b"private"])
    writer._ahead.result()
    assert expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 61).segments == 1
    now[0] = 61.0
    writer.append([b"next"])
    writer.append([b"after"])
    writer.close()
    reader = SegmentReader(folder)
    assert [frame.payload for frame in reader.read()] == [b"next", b"after"]
    reader.close()


def test_the_file_of_a_living_writer_that_could_open_no_other_stays(folder):
    """It appends to that file still: what it then wrote would be nowhere, and counted nowhere."""

    class Broken(Files):
        def open(self, path, flags, mode=0o777):
            if str(path).endswith("2.seg"):
                raise OSError(errno.EMFILE, "no file to be had")
            return os.open(path, flags, mode)

    now = [0.0]
    writer = SegmentWriter(folder, segment_s=10.0, bytes_max=MB, clock=lambda: now[0], files=Broken())
    writer.append([b"idle"])
    writer._ahead.exception()
    assert expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 61) == (0, 0)
    now[0] = 61.0
    writer.append([b"next"])
    reader = SegmentReader(folder)
    assert [frame.payload for frame in reader.read()] == [b"idle", b"next"]
    reader.close()
    writer.close()
    assert expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 61).segments == 1, "the dead append nothing"


def test_an_idle_writer_keeps_the_segment_that_holds_only_its_mark(folder, writer):
    """The writer would not leave it before it appends, and what it then wrote would be nowhere."""
    path = segment_path(folder, 1)
    assert path.stat().st_size == HEADER_BYTES
    assert expire(folder, 60.0, path.stat().st_mtime + 3600) == (0, 0)
    assert path.exists()


def test_a_backlog_of_many_segments_is_listed_once(folder, writer, monkeypatch):
    fill(writer, 120)
    writer.close()
    listed = []
    real = spool_reader._filled
    monkeypatch.setattr(spool_reader, "_filled", lambda *of: listed.append(of) or real(*of))
    reader = SegmentReader(folder)
    found = []
    while frames := reader.read(200):
        found += sequences(frames)
        reader.release(reader.sequence)
    assert found == list(range(1, 121))
    assert reader.is_drained
    assert len(listed) <= 4, "each listing is as long as the backlog"
    reader.close()
