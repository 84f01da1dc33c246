"""The lake on a real S3 store (SeaweedFS), set up by the environment alone."""

import datetime as dt
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow import fs

from gateway.evidence.dataset import Question, dataset
from gateway.evidence.query import Queries
from gateway.streams.ingest import ingest
from gateway.streams.table import CommitFailed, LakeTable
from tests.kit.s3 import s3
from tests.kit.spooled import Place, label, labels, predictions, request

pytestmark = [pytest.mark.conformance, pytest.mark.slow]
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket's address; the variables that reach it are set for the module."""
    with s3(tmp_path_factory.mktemp("s3")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield "s3://lake"


def test_records_are_stored_asked_and_tidied_up(bucket, tmp_path):
    place = Place(tmp_path)
    place.uri = f"{bucket}/runoff"
    place.store(predictions([request(n) for n in range(50)], [0.9] * 50), labels(*[label(n, 1) for n in range(30)]))
    place.store(predictions([request(n) for n in range(50, 60)], [0.9] * 10), writer="worker-2")
    made = dataset(Queries(place.uri), Question(endpoint="phishing"))
    assert (made.rows.num_rows, made.lineage["predictions"]) == (30, 60)
    lake = place.lake()
    lake.compact(0)
    assert DeltaTable(f"{place.uri}/predictions").to_pyarrow_dataset().count_rows() == 60


def test_files_are_ingested_from_and_into_it_once(bucket, tmp_path):
    uri = f"{bucket}/ingested"
    system, path = fs.FileSystem.from_uri(f"{bucket}/inbox/x.json")
    with system.open_output_stream(path) as file:
        file.write(b'[{"a": 5}]')
    states = [one.state for _ in range(2) for one in ingest(uri, f"{bucket}/inbox", NOW)]
    assert states == ["added", "known"]


def test_writers_at_once_lose_nothing_and_double_nothing(bucket):
    """What a conditional put is for."""
    schema = pa.schema([("writer", pa.int64()), ("n", pa.int64())])
    LakeTable(f"{bucket}/race", schema, ())

    def write(writer):
        table = LakeTable(f"{bucket}/race", schema, ())
        for n in range(6):
            while table.committed(f"w{writer}") <= n:
                try:
                    table.append(pa.table({"writer": [writer], "n": [n]}), {f"w{writer}": n + 1})
                except CommitFailed:
                    table.reload()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = DeltaTable(f"{bucket}/race").to_pyarrow_dataset().to_table().to_pylist()
    assert sorted((row["writer"], row["n"]) for row in rows) == [(writer, n) for writer in range(3) for n in range(6)]
