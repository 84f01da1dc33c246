"""The lake on a real S3 store (SeaweedFS), set up by the environment alone."""

import datetime as dt
import json
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow import fs, parquet

from gateway.evidence.dataset import Question, dataset
from gateway.evidence.query import Queries
from gateway.streams.ingest import ingest
from gateway.streams.table import CommitFailed, LakeTable
from tests.kit import files
from tests.kit.gateway import Gateway, eventually, route, run
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


def test_a_gateway_keeps_its_lake_there_and_everything_that_asks_it_works(bucket, tmp_path):
    """Predictions, a mirror and labels go in; quality, ledger, one prediction, a data set and forgetting go by the store alone."""
    model, other = files.binary(tmp_path / "model.onnx"), files.binary(tmp_path / "other.onnx", 1, 2, 1, 1)
    lake = f"{bucket}/gateway"
    unit = {"unit": {"header": "x-user"}}
    with Gateway(tmp_path, lake_uri=lake) as gateway:
        gateway.apply(route("phishing", ("champion", model, 1), mirrors={"candidate": other}, **unit))
        ids = []
        for n in range(12):
            reply = gateway.infer("phishing", [[1.0, 2.0, 3.0, n]], headers={"x-user": f"u{n % 3}"})
            ids.append(reply.headers["x-prediction-id"])
        gateway.http.post("/v1/labels", json=[{"prediction_id": key, "label": 1} for key in ids[:9]])
        asked = lambda *command: json.loads(gateway.run(*command, "--json").stdout or "{}")
        by_name = lambda: {one["name"]: one for one in asked("quality", "phishing").get("subjects", ())}
        eventually(lambda: by_name().get("champion", {}).get("labelled") == 9, 60, 0.5)
        eventually(lambda: by_name().get("candidate", {}).get("labelled") == 9, 60, 0.5)
        assert asked("ledger", "phishing")["mirrors"][0]["rows"] == 12
        told = asked("predictions", ids[0])
        assert (len(told["shadows"]), told["labels"][0]["holds"]) == (1, True)
        forgotten = asked("forget", "--unit", "u1", "--reason", "asked to")
        assert (forgotten["deleted"]["predictions"], forgotten["deleted"]["labels"]) == (4, 3)
        assert by_name()["champion"]["n"] == 8
        eventually(lambda: gateway.metric("runoff_sink_lag_seconds", sink="lake") == 0, 30, 0.5)
    done = run(
        "dataset", "phishing", "--config", str(tmp_path / "runoff.toml"), "--out", str(tmp_path / "rows.parquet")
    )
    assert done.returncode == 0, done.stderr
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 6
    assert not (tmp_path / "var" / "lake").exists()
