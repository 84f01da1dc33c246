"""The client of MLflow's scoring protocol, against servers that behave and do not, and against MLflow's own."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.runtime.remote_mlflow import MlflowModel, decode, encode
from models.runtime.target import Access, BodyTooLarge, InputRefused, RemoteFailed, RemoteRefused
from tests.kit import registered
from tests.kit.asgi_server import listening
from tests.kit.remote_server import Handler, failing, saying, serving

LOOPBACK = ("127.0.0.1",)
COLUMNS = [
    ("age", np.array([[41], [17]], np.int64)),
    ("income", np.array([[1.5], [np.nan]])),
    ("city", np.array([["Bern"], ["Genève"]], dtype=object)),
]
TENSOR = [("x", np.array([[1.5, -2.0], [0.5, 4.0]], np.float32))]


@asynccontextmanager
async def client(url: str, **fields: Any) -> AsyncIterator[MlflowModel]:
    remote = MlflowModel(url, "m", Access(**({"allow": LOOPBACK} | fields)))
    try:
        yield remote
    finally:
        await remote.close()


def test_columns_go_as_a_data_frame_and_what_is_not_finite_as_null() -> None:
    assert json.loads(encode(COLUMNS)) == {
        "dataframe_split": {"columns": ["age", "income", "city"], "data": [[41, 1.5, "Bern"], [17, None, "Genève"]]}
    }


def test_tensors_go_by_name_or_bare() -> None:
    assert json.loads(encode(TENSOR)) == {"inputs": {"x": [[1.5, -2.0], [0.5, 4.0]]}}
    assert json.loads(encode(TENSOR, is_bare=True)) == {"inputs": [[1.5, -2.0], [0.5, 4.0]]}


@pytest.mark.parametrize(
    ("predictions", "outputs"),
    [
        ([1, 0], {"": [1, 0]}),
        (["yes", "no"], {"": ["yes", "no"]}),
        ([[0.1, 0.9], [0.8, 0.2]], {"": [[0.1, 0.9], [0.8, 0.2]]}),
        ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], {"a": [1, 2], "b": ["x", "y"]}),
        ({"y": [[1.0], [2.0]]}, {"y": [[1.0], [2.0]]}),
        (["yes", None], {"": ["yes", ""]}),
    ],
)
def test_every_form_of_predictions_is_read(predictions: object, outputs: dict[str, object]) -> None:
    answer = decode(json.dumps({"predictions": predictions, "prediction_id": "1"}).encode(), "3")
    assert {name: array.tolist() for name, array in answer.outputs} == outputs
    assert (answer.version, answer.is_prediction) == ("3", True)


def test_null_among_numbers_is_nan() -> None:
    ((_, array),) = decode(b'{"predictions": [1, null]}').outputs
    np.testing.assert_array_equal(array, [1.0, np.nan])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[1]",
        b'{"predictions": 5}',
        b'{"predictions": [[1, 2], [3]]}',
        b'{"predictions": [{"a": 1}, {"b": 1}]}',
        b'{"predictions": {"y": [[1], 2]}}',
        b'{"predictions": ' + b"[" * 5000,
        b'{"predictions": ' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
async def test_garbage_is_a_failure_and_never_another_exception(body: bytes) -> None:
    with serving(saying(body)) as server:
        async with client(server.url) as remote:
            with pytest.raises(RemoteFailed):
                await remote.infer(COLUMNS, body_bytes_max=1 << 20)


async def test_a_tensor_refused_by_name_is_tried_bare_once_and_then_sent_as_it_was_taken() -> None:
    def picky(handler: Handler) -> None:
        inputs = json.loads(handler.body)["inputs"]
        if isinstance(inputs, dict) or inputs[0][0] == 666:
            handler.reply(400, b'{"error_code": "BAD_REQUEST"}')
        else:
            handler.reply(200, json.dumps({"predictions": [row[0] for row in inputs]}).encode())

    with serving(picky) as server:
        async with client(server.url) as remote:
            for _ in range(3):
                answer = await remote.infer(TENSOR, body_bytes_max=1 << 20)
                assert answer.outputs[0][1].tolist() == [1.5, 0.5]
            assert len(server.calls) == 4
            with pytest.raises(InputRefused):
                await remote.infer([("x", np.full((1, 2), 666, np.float32))], body_bytes_max=1 << 20)
            assert len(server.calls) == 5


async def test_a_call_names_its_model_carries_the_token_and_reads_the_version_of_who_answered() -> None:
    with serving(saying(b'{"predictions": [1, 0]}', X_Runoff_Model="phishing/12")) as server:
        async with client(f"{server.url}/base/", token="secret") as remote:
            answer = await remote.infer(COLUMNS, body_bytes_max=1 << 20, headers={"x-of-this-call": "1"})
    headers, _ = server.calls[0]
    assert (headers["authorization"], headers["x-of-this-call"]) == ("Bearer secret", "1")
    assert headers["x-runoff-endpoint"] == "m"
    assert answer.version == "12"


async def test_refusals_and_bounds_are_those_of_every_remote() -> None:
    with pytest.raises(RemoteRefused):
        MlflowModel("http://example.org", "m", Access(allow=LOOPBACK))
    with serving(failing(307, Location="http://127.0.0.1:1/invocations")) as server:
        async with client(server.url) as remote:
            with pytest.raises(RemoteFailed, match="307"):
                await remote.infer(COLUMNS, body_bytes_max=1 << 20)
            with pytest.raises(BodyTooLarge):
                await remote.infer(COLUMNS, body_bytes_max=20)
        assert len(server.calls) == 1


# What MLflow, its web framework and pandas warn about each other is not under test.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_mlflows_own_server_takes_every_form_that_is_sent(tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server
    from sklearn.linear_model import LinearRegression

    infer = mlflow.models.infer_signature
    people, numbers = registered.people(), registered.numbers().to_numpy()
    forest, line = registered.pipeline(), LinearRegression().fit(numbers, registered.is_yes())
    example = np.zeros((2, 2), np.float32)
    trusted = {"skops_trusted_types": ["sklearn.tree._tree.Tree", "numpy.dtype"]}
    mlflow.sklearn.save_model(
        forest, str(tmp_path / "frame"), signature=infer(people, forest.predict(people)), pip_requirements=[], **trusted
    )
    mlflow.sklearn.save_model(
        line, str(tmp_path / "bare"), signature=infer(numbers, line.predict(numbers)), pip_requirements=[]
    )
    mlflow.onnx.save_model(
        registered.doubled(),
        str(tmp_path / "named"),
        signature=infer({"x": example}, {"y": example}),
        pip_requirements=[],
    )
    frame = [(name, people[[name]].to_numpy()) for name in people.columns]
    frame = [(name, array if array.dtype != np.int32 else array.astype(np.int64)) for name, array in frame]
    tensor = np.array([[1.5, -2.0], [0.5, 4.0]], np.float32)
    wanted = {
        "frame": (frame, forest.predict(people)),
        "bare": ([("x", numbers)], line.predict(numbers)),
        "named": ([("x", tensor)], tensor * 2),
    }
    for name, (inputs, predictions) in wanted.items():
        app = scoring_server.init(mlflow.pyfunc.load_model(str(tmp_path / name)))
        async with listening(app) as url, client(url, timeout_s=30.0) as remote:
            for _ in range(2):
                answer = await remote.infer(inputs, body_bytes_max=1 << 20)
        ((_, array),) = answer.outputs
        if array.dtype == object:
            assert array.tolist() == list(predictions)
        else:
            np.testing.assert_allclose(array, predictions, rtol=1e-6)
