import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway import labels
from gateway.errors import Overloaded, SpoolClosed
from gateway.privacy import keyed_hashes
from gateway.spool.files import Files
from gateway.spool.reader import writers
from routing.records import LabelBlock, LabelRow, SensitiveLabelBlock
from tests.kit.plane import UNIT_KEY, Plane
from tests.kit.staged import stage_linear

SYNCED = "spool/worker-1-labels"


class CountedDisk(Files):
    """Counts syncs; fails them when told to."""

    def __init__(self) -> None:
        self.synced = 0
        self.fails = False
        self.thread = threading.get_ident()

    def datasync(self, file: int) -> None:
        assert threading.get_ident() != self.thread, "a sync on the event loop"
        if self.fails:
            raise OSError(errno.EIO, "a bad sector")
        super().datasync(file)
        self.synced += 1


@pytest.fixture
def disk() -> CountedDisk:
    return CountedDisk()


@pytest.fixture
async def plane(tmp_path: Path, disk: CountedDisk) -> AsyncIterator[Plane]:
    made = Plane(tmp_path, files=disk)
    yield made
    await made.labels.close()
    made.close()


def row(endpoint: str | None = None, **fields: object) -> LabelRow:
    about = {"prediction_id": b"i" * 16} if endpoint is None else {"prediction_id": None, "request_id": "r"}
    plain = {"endpoint": endpoint, "request_id": None, "row": None, "label": 1.0, "at_unix_us": None}
    return LabelRow(**(plain | about | {"received_unix_us": 5} | fields))


def serve(plane: Plane, endpoint: str, **record: object) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, endpoint=endpoint, record=record)


@pytest.mark.parametrize("durability", ["process", "async"])
async def test_labels_go_through_the_workers_own_spool_as_one_block(
    plane: Plane, disk: CountedDisk, durability: str
) -> None:
    serve(plane, "line", durability=durability)
    await plane.labels.accept([row(), row("line")])
    assert plane.blocks() == [LabelBlock([row(), row("line")])]
    assert disk.synced == 0
    assert set(writers(plane.folder / "spool")) == {"worker-1", "worker-1-disk"}


async def test_a_label_of_an_endpoint_with_durability_disk_is_synced_before_it_is_accepted(
    plane: Plane, disk: CountedDisk
) -> None:
    serve(plane, "quick")
    serve(plane, "safe", durability="disk")
    await plane.labels.accept([row("quick")])
    assert disk.synced == 0
    await plane.labels.accept([row("safe")])
    assert disk.synced == 1
    assert plane.blocks(SYNCED) == [LabelBlock([row("safe")])]


@pytest.mark.parametrize("about", [None, "gone"])
async def test_a_label_that_does_not_say_whose_it_is_is_as_durable_as_the_strictest_route(
    plane: Plane, disk: CountedDisk, about: str | None
) -> None:
    serve(plane, "quick")
    serve(plane, "safe", durability="disk")
    await plane.labels.accept([row(about)])
    assert disk.synced == 1


async def test_labels_that_cannot_be_synced_are_not_accepted_and_later_ones_are(
    plane: Plane, disk: CountedDisk
) -> None:
    serve(plane, "safe", durability="disk")
    disk.fails = True
    with pytest.raises(SpoolClosed):
        await plane.labels.accept([row("safe")])
    disk.fails = False
    with pytest.raises(SpoolClosed):  # it shares the sync that looks at the broken segment again
        await plane.labels.accept([row("safe")])
    await plane.labels.accept([row("safe")])
    totals = plane.totals()
    assert totals.value("runoff_labels_total", outcome="rejected") == 2
    assert totals.value("runoff_labels_total", outcome="accepted") == 1


async def test_a_segment_that_could_not_be_made_is_made_for_the_next_label(plane: Plane, disk: CountedDisk) -> None:
    serve(plane, "safe", durability="disk")
    taken = plane.folder / SYNCED
    taken.write_text("in the way")
    with pytest.raises(SpoolClosed):
        await plane.labels.accept([row("safe")])
    taken.unlink()
    await plane.labels.accept([row("safe")])
    assert disk.synced == 1


async def test_a_slow_disk_becomes_429_and_not_memory(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(plane, "safe", durability="disk")
    monkeypatch.setattr(labels, "_WAITING_MAX", 0)
    with pytest.raises(Overloaded):
        await plane.labels.accept([row("safe")])


async def test_sensitive_attributes_of_labels_are_a_block_of_their_own(plane: Plane) -> None:
    plane.serve(
        {"champion": stage_linear(plane.artifacts)},
        endpoint="line",
        record={"mask": {"who": "hmac", "note": "drop"}},
        label={"sensitive": ["origin"]},
    )
    given = {"origin": "east", "who": "ann", "note": "private", "source": "audit"}
    await plane.labels.accept([row(attributes=given), row("line")])
    plain, apart = plane.blocks()
    assert isinstance(plain, LabelBlock)
    assert plain.labels[0].attributes == {"who": keyed_hashes(UNIT_KEY, ["ann"])[0], "source": "audit"}
    assert isinstance(apart, SensitiveLabelBlock)
    assert apart.labels == [row(label=None, attributes={"origin": "east"})]
    assert b"private" not in b"".join(path.read_bytes() for path in plane.folder.rglob("*.seg"))


async def test_a_label_of_one_endpoint_keeps_what_only_another_calls_sensitive(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, endpoint="a", label={"sensitive": ["origin"]})
    plane.serve({"champion": stage_linear(plane.artifacts)}, endpoint="b")
    of_b = row("b", attributes={"origin": "east"})
    await plane.labels.accept([of_b, row(attributes={"origin": "west"})])
    plain, apart = plane.blocks()
    assert plain == LabelBlock([of_b, row(attributes=None)])
    assert msgspec.to_builtins(apart.labels[0].attributes) == {"origin": "west"}
