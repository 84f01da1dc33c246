import datetime as dt

import pyarrow as pa
import pytest

from gateway.streams.table import LakeTable
from gateway.streams.table_view import TableView

SCHEMA = pa.schema(
    [("endpoint", pa.string()), ("date", pa.date32()), ("prediction_id", pa.string()), ("sequence", pa.int64())]
)
MONDAY, TUESDAY = dt.date(2026, 11, 2), dt.date(2026, 11, 3)


class Pair:
    """A table and a view of it."""

    def __init__(self, folder):
        self.uri = str(folder / "table")
        self.view = TableView(self.uri)
        self.commits = 0

    def add(self, endpoint, day, ids, sequence=0):
        table = LakeTable(self.uri, SCHEMA, ("endpoint", "date"))
        self.commits += 1
        size = len(ids)
        columns = [[endpoint] * size, [day] * size, ids, list(range(sequence, sequence + size))]
        table.append(pa.table(columns, schema=SCHEMA), {"w": self.commits})

    def files(self, *span, **only):
        """Which files may hold what is asked for, as pairs of endpoint and day."""
        self.view.newest()
        folders = [path.split("/")[:2] for path in self.view.files_of(*span, **only)]
        return sorted((folders[0].split("=")[1], folders[1].split("=")[1]) for folders in folders)


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def test_a_table_that_is_not_there_has_nothing_and_is_seen_once_it_is(pair):
    assert pair.view.newest() is None
    assert pair.view.dataset() is None
    assert (pair.view.files_of(), pair.view.spans("sequence"), pair.view.rows_by_day("a")) == ([], [], {})
    assert (pair.view.committed("w"), pair.view.schema) == (0, pa.schema([]))
    pair.add("a", MONDAY, ["1"])
    version = pair.view.newest()
    assert pair.view.dataset()[0] == version
    assert (pair.view.committed("w"), pair.view.committed("nobody")) == (1, 0)
    assert pair.view.schema.names == SCHEMA.names


def test_a_look_at_the_same_version_makes_no_data_set_again(pair):
    pair.add("a", MONDAY, ["1"])
    before = pair.view.dataset()
    assert pair.view.dataset() is before
    pair.add("a", TUESDAY, ["2"])
    after = pair.view.dataset()
    assert after[0] > before[0]
    assert after[1].count_rows() == 2


def test_the_log_tells_rows_by_day_and_the_spans_of_files(pair):
    pair.add("a", MONDAY, ["1", "2"], sequence=1)
    pair.add("a", MONDAY, ["3"], sequence=3)
    pair.add("a", TUESDAY, ["4"], sequence=4)
    pair.add("b", TUESDAY, ["5"], sequence=5)
    assert pair.view.rows_by_day("a") == {MONDAY: 3, TUESDAY: 1}
    assert pair.view.rows_by_day("c") == {}
    assert sorted(pair.view.spans("sequence")) == [(1, 2), (3, 3), (4, 4), (5, 5)]


def test_files_are_passed_over_only_where_the_log_says_that_nothing_asked_for_is_in_them(pair):
    pair.add("a", MONDAY, ["10", "19"])
    pair.add("a", TUESDAY, ["20", "29"])
    pair.add("b", TUESDAY, ["15"])
    pair.add(None, TUESDAY, [None])
    everything = pair.files()
    assert len(everything) == 4
    nobody = next(one for one in everything if one[0].startswith("__"))
    assert pair.files("15", "15") == sorted([("a", "2026-11-02"), ("b", "2026-11-03"), nobody])
    assert pair.files("18") == sorted([("a", "2026-11-02"), ("a", "2026-11-03"), nobody])
    assert pair.files(None, "10") == sorted([("a", "2026-11-02"), nobody])
    assert pair.files(endpoint="a") == sorted([("a", "2026-11-02"), ("a", "2026-11-03"), nobody])
    assert pair.files(since=TUESDAY, endpoint="b") == sorted([("b", "2026-11-03"), nobody])


def test_ids_that_the_log_cuts_short_are_compared_as_far_as_they_are_told(pair):
    long = "x" * 100
    pair.add("a", MONDAY, [long + "1", long + "9"])
    assert pair.files(long + "5", long + "5") == [("a", "2026-11-02")]
    assert pair.files("y") == []
