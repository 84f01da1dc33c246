import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.streams.parquet import write_parquet


def test_a_file_carries_facts_about_itself(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, pa.table({"x": [1, 2]}), {"runoff.lineage": b"{}"})
    found = parquet.read_table(path)
    assert found["x"].to_pylist() == [1, 2]
    assert found.schema.metadata[b"runoff.lineage"] == b"{}"


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "rows.parquet").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_parquet(tmp_path / "rows.parquet", pa.table({"x": [1]}), {})
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
