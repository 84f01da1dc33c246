import datetime as dt
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from gateway.streams.ingest import ingest
from gateway.streams.ingested import expire_ingested
from gateway.streams.table import CommitFailed

DAY = 86_400
START = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "lake" / "ingested" / "customers")


def take(uri, folder, name, days):
    """A file of two rows, ingested so many days after the start; whether it was taken."""
    path = folder / name
    path.write_text(f"id,name\n1,{name}\n2,{name}\n")
    return [one.state for one in ingest(uri, str(path), START + dt.timedelta(days=days))]


def expire(uri, days, kept_s=5 * DAY, vacuum_after_h=6):
    return expire_ingested(uri, kept_s, int((START + dt.timedelta(days=days)).timestamp() * 1e6), vacuum_after_h)


def names(uri):
    return sorted(set(DeltaTable(uri).to_pyarrow_dataset().to_table(columns=["name"])["name"].to_pylist()))


def test_rows_go_when_they_were_ingested_longer_ago_and_no_others(uri, tmp_path):
    for name, days in (("a.csv", 0), ("b.csv", 3), ("c.csv", 4)):
        take(uri, tmp_path, name, days)
    assert [expire(uri, days) for days in (5, 8, 8)] == [0, 2, 0]
    assert names(uri) == ["b.csv", "c.csv"]
    assert expire(uri, 90) == 4
    assert names(uri) == []


def test_a_file_whose_rows_have_gone_is_not_taken_again_and_new_ones_are(uri, tmp_path):
    take(uri, tmp_path, "a.csv", 0)
    assert expire(uri, 9) == 2
    assert take(uri, tmp_path, "a.csv", 9) == ["known"]
    assert take(uri, tmp_path, "b.csv", 9) == ["added"]
    assert names(uri) == ["b.csv"]


def test_what_has_gone_leaves_the_disk(uri, tmp_path):
    take(uri, tmp_path, "a.csv", 0)
    expire(uri, 9, vacuum_after_h=0)
    assert not list(Path(uri).glob("*.parquet"))


def test_texts_of_rows_that_stay_are_compared_as_before(uri, tmp_path):
    """Joined with others first, so that their file is written anew."""
    for name, days in (("a.csv", 0), ("b.csv", 4)):
        take(uri, tmp_path, name, days)
    DeltaTable(uri).optimize.compact()
    assert expire(uri, 8) == 2
    assert DeltaTable(uri).to_pyarrow_dataset().count_rows(filter=pc.field("name") == "b.csv") == 2


def test_a_table_that_is_not_there_has_none_and_one_that_cannot_be_read_is_told(uri, tmp_path):
    assert expire(uri, 9) == 0
    log = Path(uri) / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no log")
    with pytest.raises(CommitFailed):
        expire(uri, 9)
