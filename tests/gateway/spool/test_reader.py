import os

import pytest

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


def test_sealed_segments_expire_and_the_one_written_to_does_not(folder, writer, reader):
    fill(writer, 9)
    reader.read(100)
    assert expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 30) == 0
    deleted = expire(folder, 60.0, segment_path(folder, 1).stat().st_mtime + 3600)
    assert deleted > 700
    assert sequences(reader.read()) == [2, 3, 4, 9]  # the file that was open, then what is written to now
    assert reader.missing == 4
