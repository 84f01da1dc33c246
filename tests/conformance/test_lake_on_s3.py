"""The lake on an S3 store, set up by the environment alone: `pip install 'moto[server]'`, and RUNOFF_TEST_MOTO names its moto_server (5.2 or newer)."""

import datetime as dt
import os
import socket
import subprocess
import threading
from contextlib import contextmanager

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow import fs

from gateway.evidence.dataset import Question, dataset
from gateway.evidence.query import Queries
from gateway.streams.ingest import ingest
from gateway.streams.table import CommitFailed, LakeTable
from tests.kit.gateway import eventually
from tests.kit.spooled import Place, label, labels, predictions, request

pytestmark = [pytest.mark.conformance, pytest.mark.slow]
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def bucket():
    """A bucket's address; the variables that reach it are set for the module."""
    program = os.environ.get("RUNOFF_TEST_MOTO")
    if program is None:
        pytest.skip("RUNOFF_TEST_MOTO names no moto_server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    keys |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with stopped(server), pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)

        def made():
            try:
                address = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http", "region": "us-east-1"}
                fs.S3FileSystem(allow_bucket_creation=True, **address).create_dir("lake")
            except OSError:
                return False
            return True

        eventually(made, 60, 0.2)
        yield "s3://lake"


@contextmanager
def stopped(server):
    try:
        yield
    finally:
        server.terminate()
        server.wait()


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
