import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from deltalake import DeltaTable

from gateway.streams import shore
from tests.kit.spooled import Place, encode, pid_text, predictions, request


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def synced(monkeypatch):
    """The paths that were synced, in order."""
    paths = []
    real = shore.sync

    def sync(path):
        real(path)
        paths.append(Path(path))

    monkeypatch.setattr(shore, "sync", sync)
    return paths


def files(place):
    """Every file of the predictions table, and every folder in it, but for the mark, which is written synced."""
    table = Path(place.uri) / "predictions"
    return {table, *table.rglob("*")} - {table / "_synced.json"}


def spool(place, numbers, writer="worker-1"):
    made = place.writer(writer)
    for number in numbers:
        made.append(encode(predictions([request(number)], [0.5])))
    return made


def test_no_segment_is_deleted_before_all_its_rows_are_synced(place, synced, monkeypatch):
    writer = spool(place, range(3))
    writer.close()
    gone, real = [], Path.unlink

    def unlink(path, missing_ok=False):
        assert files(place) <= set(synced), "a segment goes whose rows are in the page cache only"
        gone.append(path)
        real(path)

    lake = place.lake()
    while lake.read():
        pass
    monkeypatch.setattr(Path, "unlink", unlink)
    assert lake.commit()
    monkeypatch.undo()
    lake.close()
    assert [path.name for path in gone] == ["00000001.seg"]


def test_what_is_not_released_is_not_synced(place, synced):
    writer = spool(place, range(3))
    lake = place.lake()
    lake.read()
    assert lake.commit()
    assert not synced
    lake.close()
    writer.close()


def test_later_commits_sync_their_own_files_only(place, synced):
    place.store(predictions([request(0)], [0.5]))
    lake = place.lake()
    table = lake._tables["predictions"]
    table.sync()
    before = files(place)
    synced.clear()
    spool(place, [1], "worker-2").close()
    while lake.read():
        pass
    assert lake.commit()
    lake.close()
    new = files(place) - before
    assert new
    assert new <= set(synced)
    assert not {path for path in before if path.suffix == ".parquet"} & set(synced)


def test_after_a_restart_all_is_synced_that_a_predecessor_may_have_left_in_the_cache(place, synced):
    place.store(predictions([request(0)], [0.5]))
    synced.clear()
    table = place.lake()._tables["predictions"]
    table.sync()
    assert files(place) <= set(synced)


def test_compaction_deletes_nothing_before_what_replaces_it_is_synced(place, synced, monkeypatch):
    for number in range(5):
        place.store(predictions([request(number)], [0.5]), writer=f"worker-{number}")
    table = place.lake()._tables["predictions"]
    real = DeltaTable.vacuum

    def vacuum(delta, **options):
        (compacted,) = delta.file_uris()
        assert Path(compacted) in synced
        assert any(path.name.endswith(".checkpoint.parquet") for path in synced)
        return real(delta, **options)

    monkeypatch.setattr(DeltaTable, "vacuum", vacuum)
    table.compact(0)
    assert table.files == 1


def test_a_table_in_a_store_has_nothing_to_sync():
    shore.Shore("s3://bucket/lake/predictions").sync(3, lambda: pytest.fail("asked for files"))


def log(place, back=0):
    """The log of the last commit, or of one before it."""
    return sorted((Path(place.uri) / "predictions" / "_delta_log").glob("*.json"))[-1 - back]


def rows(place):
    """The file that the last commit added."""
    (name,) = re.findall(r'"path":"([^"]+)"', log(place).read_text())
    return Path(place.uri) / "predictions" / unquote(name)


def stored(place):
    table = DeltaTable(f"{place.uri}/predictions").to_pyarrow_dataset().to_table()
    return dict(zip(table["sequence"].to_pylist(), table["prediction_id"].to_pylist(), strict=True))


TEARS = {
    "an empty file": lambda place: rows(place).write_bytes(b""),
    "half a file": lambda place: os.truncate(rows(place), 900),
    "a file of zeros": lambda place: rows(place).write_bytes(bytes(rows(place).stat().st_size)),
    "no file": lambda place: rows(place).unlink(),
    "an empty log": lambda place: log(place).write_bytes(b""),
    "half a log": lambda place: os.truncate(log(place), 700),
    "a log of zeros": lambda place: log(place).write_bytes(bytes(4096)),
    "a missing log below the last": lambda place: log(place, 1).unlink(),
    "all of it": lambda place: [path.write_bytes(b"") for path in (rows(place), log(place))],
}


@pytest.mark.parametrize("tear", TEARS)
def test_commits_that_a_power_loss_tore_before_their_sync_come_again_from_the_spool(place, tear):
    place.store(predictions([request(0)], [0.5]))
    writer = spool(place, [], "worker-2")
    lake = place.lake()
    for number in range(1, 4):
        writer.append(encode(predictions([request(number)], [0.5])))
        lake.read()
        assert lake.commit()
    lake.close()
    writer.close()
    before = stored(place)
    TEARS[tear](place)
    again = place.lake()
    while again.read():
        pass
    assert again.commit(), again.failure
    assert not list(place.spool.iterdir()), "and is released after that"
    again.compact(0)
    again.close()
    after = stored(place)
    assert sorted(after.values()) == [pid_text(number) for number in range(4)]
    assert len(after) == 4
    assert all(before[number] == after[number] for number in before.keys() & after.keys()), "a number is given once"
