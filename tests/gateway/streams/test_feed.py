import pytest
from deltalake import DeltaTable

from gateway.streams import feed as feeds
from gateway.streams.feed import Feed
from gateway.streams.upkeep import forget
from routing.records import Column
from tests.kit.spooled import START_UNIX_US, Place, label, labels, predictions, request


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def drained(feed, position=0):
    rows = []
    while (portion := feed.after(position)) is not None:
        rows += portion.rows["sequence"].to_pylist()
        position = portion.last
    return rows


def stored(place, table="predictions"):
    rows = DeltaTable(f"{place.uri}/{table}").to_pyarrow_dataset().to_table(columns=["sequence"])
    return sorted(rows["sequence"].to_pylist())


def test_rows_come_once_in_the_order_of_their_sequence_and_new_ones_after_them(place, monkeypatch):
    monkeypatch.setattr(feeds, "_WINDOW", 7)
    for part in range(3):
        numbers = range(part * 10, part * 10 + 10)
        block = predictions([request(n) for n in numbers], [0.5] * 10)
        place.store(block, labels(*[label(n, 1) for n in numbers]), writer=f"worker-{part}")
    feed = Feed(place.uri, "predictions")
    assert drained(feed) == stored(place)
    assert len(stored(place)) == 30
    end = feed.end()
    assert feed.after(end) is None
    place.store(predictions([request(99)], [0.5]), writer="worker-9")
    portion = feed.after(end)
    assert portion.rows.num_rows == 1
    assert portion.oldest_unix_s == pytest.approx((START_UNIX_US + 99_000) / 1e6)


def test_compaction_and_deletion_neither_repeat_nor_hide_a_row(place, monkeypatch):
    monkeypatch.setattr(feeds, "_WINDOW", 5)
    for part in range(4):
        rows = [request(n, unit="gone" if part == 1 else "kept") for n in range(part * 6, part * 6 + 6)]
        place.store(predictions(rows, [0.5] * 6), writer=f"worker-{part}")
    feed = Feed(place.uri, "predictions")
    first = feed.after(0)
    lake = place.lake()
    forget(lake._tables, lake._letters, ["gone"])
    lake.compact(0)
    assert sorted({*first.rows["sequence"].to_pylist(), *drained(feed, first.last), *range(7, 13)}) == list(
        range(1, 25)
    )


def test_a_table_that_is_not_there_yet_has_nothing(place):
    feed = Feed(place.uri, "predictions")
    assert feed.end() == 0
    assert feed.after(0) is None
    place.store(predictions([request(0)], [0.5]))
    assert feed.after(0).rows.num_rows == 1


def test_portions_of_large_rows_are_bounded_by_their_bytes_and_grow_again(place, monkeypatch):
    monkeypatch.setattr(feeds, "_BYTES_MAX", 300_000)
    monkeypatch.setattr(feeds, "_WINDOW", 40)
    monkeypatch.setattr(feeds, "_BATCH_ROWS", 4)
    large = Column("blob", "BYTES", (1,), ["x" * 60_000] * 20)
    place.store(predictions([request(n) for n in range(20)], [0.5] * 20, inputs=[large]))
    place.store(predictions([request(n) for n in range(20, 120)], [0.5] * 100), writer="worker-2")
    feed, position, sizes, numbers = Feed(place.uri, "predictions"), 0, [], []
    while (portion := feed.after(position)) is not None:
        sizes.append((portion.rows.num_rows, portion.rows.nbytes))
        numbers += portion.rows["sequence"].to_pylist()
        position = portion.last
    assert numbers == stored(place)
    assert max(size for _, size in sizes) <= 300_000
    assert max(rows for rows, _ in sizes[-3:]) > 10


def test_a_single_row_above_the_bound_is_a_portion_of_its_own(place, monkeypatch):
    monkeypatch.setattr(feeds, "_BYTES_MAX", 1000)
    large = Column("blob", "BYTES", (1,), ["x" * 60_000] * 3)
    place.store(predictions([request(n) for n in range(3)], [0.5] * 3, inputs=[large]))
    assert drained(Feed(place.uri, "predictions")) == [1, 2, 3]


def test_numbers_that_were_given_outlast_their_rows(place):
    place.store(predictions([request(0), request(1, unit="gone")], [0.5] * 2))
    lake = place.lake()
    forget(lake._tables, lake._letters, ["gone"])
    feed = Feed(place.uri, "predictions")
    assert (feed.end(), feed.given()) == (1, 2)
