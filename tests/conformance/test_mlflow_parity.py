"""The same model, the same body: MLflow's own scoring app beside ours. Statuses, error codes and predictions must agree.

What differs on purpose stands in the last tests, each with its reason.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from gateway.rest.app import build
from gateway.settings import Settings
from models.artifacts import Artifacts
from models.errors import ModelsError
from models.ref import parse_ref
from models.registry.local import LocalRegistry
from models.staging import stage
from tests.kit import registered
from tests.kit.onnx_models import MadeModel
from tests.kit.small_corridor import ListSink, SmallCorridor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore"
    ),  # MLflow, its web framework and pandas warn about each other; theirs is not under test
]
TABLES = ("pipeline", "boosted", "light", "regressor", "booster")
TENSORS = ("doubled", "matrix")


def save_all(folder: Path) -> dict[str, Path]:
    """One folder a flavor, as `mlflow models serve` would take it."""
    import lightgbm
    import mlflow
    import xgboost
    from sklearn.linear_model import LinearRegression

    people, rows, truth = registered.people(), registered.numbers(), registered.is_yes()
    infer = mlflow.models.infer_signature
    forest = registered.pipeline()
    boosted = xgboost.XGBClassifier(n_estimators=8, max_depth=3).fit(rows, truth)
    light = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1).fit(rows, truth)
    regressor = LinearRegression().fit(rows, truth)
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, truth), num_boost_round=5)
    two = LinearRegression().fit(rows.to_numpy(), np.stack([truth, truth * 2.0], axis=1))
    example = np.zeros((2, 2), np.float32)
    trusted = {"skops_trusted_types": ["sklearn.tree._tree.Tree", "numpy.dtype"]}
    saves: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
        "pipeline": (mlflow.sklearn, forest, infer(people, forest.predict(people)), trusted),
        "boosted": (mlflow.xgboost, boosted, infer(rows, boosted.predict(rows)), {}),
        "light": (mlflow.lightgbm, light, infer(rows, light.predict(rows)), {}),
        "regressor": (mlflow.sklearn, regressor, infer(rows, regressor.predict(rows)), {}),
        "booster": (mlflow.xgboost, booster, infer(rows, boosted.predict_proba(rows)[:, 1]), {}),
        "doubled": (mlflow.onnx, registered.doubled(), infer(example, example), {}),
        "matrix": (mlflow.sklearn, two, infer(rows.to_numpy(), two.predict(rows.to_numpy())), {}),
    }
    paths = {}
    for name, (flavor, model, signature, more) in saves.items():
        paths[name] = folder / name
        flavor.save_model(model, path=str(paths[name]), signature=signature, pip_requirements=[], **more)
    return paths


class Pair:
    """Both apps for every model, and one call to each."""

    def __init__(self, folder: Path) -> None:
        import mlflow.pyfunc
        from mlflow.pyfunc import scoring_server

        paths = save_all(folder)
        artifacts, registry = Artifacts(folder / "artifacts"), LocalRegistry()
        endpoints = {}
        self.refused: dict[str, str] = {}
        self.theirs: dict[str, Any] = {}
        for name, path in paths.items():
            self.theirs[name] = scoring_server.init(mlflow.pyfunc.load_model(str(path)))
            try:
                staged = stage(parse_ref(str(path)), registry, artifacts)
            except ModelsError as error:  # which kinds can be staged is staging's to test; here it is a reason to skip
                self.refused[name] = str(error)
                continue
            model = (artifacts.path(staged.digest) / staged.file).read_bytes()
            endpoints[name] = {"1": MadeModel(model, staged.signature, staged.answer)}
        self.ours = build(SmallCorridor(endpoints), ListSink(), Settings(state_dir=str(folder)))

    async def post(self, name: str, content: bytes, content_type: str) -> tuple[httpx.Response, httpx.Response]:
        """Their reply and ours."""
        if name in self.refused:
            pytest.skip(f"{name} is not staged: {self.refused[name]}")
        headers = {"content-type": content_type}
        replies = []
        for app, path in ((self.theirs[name], "/invocations"), (self.ours, f"/endpoints/{name}/invocations")):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                replies.append(await client.post(path, content=content, headers=headers))
        return replies[0], replies[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(variable, "true")
    return Pair(tmp_path_factory.mktemp("parity"))


def same(theirs: Any, ours: Any) -> bool:
    """Types, nesting and order exactly; floats within what conversion certifies. Their NaN is our null."""
    if isinstance(theirs, float):
        if math.isnan(theirs):
            return ours is None
        return isinstance(ours, float) and math.isclose(theirs, ours, rel_tol=1e-4, abs_tol=1e-5)
    if type(theirs) is not type(ours):
        return False
    if isinstance(theirs, list):
        return len(theirs) == len(ours) and all(map(same, theirs, ours))
    if isinstance(theirs, dict):
        return list(theirs) == list(ours) and all(same(theirs[name], ours[name]) for name in theirs)
    return bool(theirs == ours)


async def agree(pair: Pair, name: str, content: Any, content_type: str = "application/json") -> None:
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    theirs, ours = await pair.post(name, sent, content_type)
    assert ours.status_code == theirs.status_code, f"theirs: {theirs.text[:500]}\nours: {ours.text[:500]}"
    if theirs.status_code == 200:
        document = ours.json()
        assert document.pop("prediction_id")
        assert same(theirs.json(), document), f"theirs: {theirs.text[:500]}\nours: {ours.text[:500]}"
    elif theirs.headers["content-type"].startswith("application/json"):
        assert ours.json()["error_code"] == theirs.json()["error_code"], f"{theirs.text[:300]}\n{ours.text[:300]}"


def frame(name: str, rows: int = 4) -> pd.DataFrame:
    return (registered.people() if name == "pipeline" else registered.numbers())[:rows]


FORMS = {
    "split": lambda table: {"dataframe_split": table.to_dict(orient="split")},
    "split without index": lambda table: {
        "dataframe_split": {"columns": list(table), "data": table.to_numpy().tolist()}
    },
    "records": lambda table: {"dataframe_records": table.to_dict(orient="records")},
    "instances of records": lambda table: {"instances": table.to_dict(orient="records")},
    "instances by column": lambda table: {"instances": table.to_dict(orient="list")},
    "inputs by column": lambda table: {"inputs": table.to_dict(orient="list")},
    "inputs of records": lambda table: {"inputs": table.to_dict(orient="records")},
    "one row of scalars": lambda table: {"inputs": table.to_dict(orient="records")[0]},
    "shuffled columns": lambda table: {"dataframe_split": table[list(table)[::-1]].to_dict(orient="split")},
    "an extra column": lambda table: {"dataframe_records": table.assign(zz="extra").to_dict(orient="records")},
    "params": lambda table: {"dataframe_split": table.to_dict(orient="split"), "params": {"a": 1}},
    "another key": lambda table: {"dataframe_split": table.to_dict(orient="split"), "client_request_id": "c"},
    "values without names": lambda table: {"inputs": table.to_numpy().tolist()},
    "a missing column": lambda table: {"dataframe_split": table.drop(columns="age").to_dict(orient="split")},
    "numbers as text": lambda table: {"dataframe_records": table.astype(str).to_dict(orient="records")},
    "a word for a number": lambda table: {"dataframe_records": table.assign(age="abc").to_dict(orient="records")},
    "a frame as a list": lambda table: {"dataframe_split": table.to_numpy().tolist()},
    "a record": lambda table: {"dataframe_records": table.to_dict(orient="records")[0]},
    "split with a wrong key": lambda table: {"dataframe_split": {**table.to_dict(orient="split"), "other": 1}},
    "unequal columns": lambda table: {"inputs": {**table.to_dict(orient="list"), "age": [1]}},
    "nothing": lambda table: {},
    "instances of unequal columns": lambda table: {"instances": {**table.to_dict(orient="list"), "age": [1]}},
    "both": lambda table: {"inputs": table.to_dict(orient="list"), "dataframe_records": []},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TABLES)
async def test_every_form_of_a_table(pair, name, form):
    await agree(pair, name, FORMS[form](frame(name)))


@pytest.mark.parametrize("name", TABLES)
async def test_csv(pair, name):
    for index in (True, False):
        await agree(pair, name, frame(name).to_csv(index=index).encode(), "text/csv")
    await agree(pair, name, b"age\n1\n", "text/csv")
    await agree(pair, name, b"age,income,city\nx,1,Bern\n", "text/csv")


@pytest.mark.parametrize("name", ["boosted", "light"])
async def test_null_in_a_floating_column_is_nan(pair, name):
    await agree(pair, name, {"dataframe_split": {"columns": ["age", "income"], "data": [[None, 1.0], [30, None]]}})
    await agree(pair, name, {"dataframe_records": [{"age": 30, "income": 5}, {"income": 7.5}]})


@pytest.mark.parametrize("value", [30, 30.0, 30.9, "30", True, None, "30.5", [1], {"a": 1}])
async def test_a_value_in_an_integer_column(pair, value):
    body = {"columns": ["age", "income", "city"], "data": [[value, 2000.0, "Bern"]]}
    await agree(pair, "pipeline", {"dataframe_split": body})


@pytest.mark.parametrize("value", [5, 5.5, "5.5", True, False])
async def test_a_value_in_a_floating_column(pair, value):
    for form in ("dataframe_records", "instances", "inputs"):
        await agree(pair, "boosted", {form: [{"age": value, "income": 1}]})


async def test_an_unknown_word_in_a_text_column(pair):
    await agree(pair, "pipeline", {"dataframe_records": [{"age": 30, "income": 1.0, "city": "Atlantis"}]})
    for form in ("instances", "inputs"):
        await agree(pair, "pipeline", {form: [{"age": 30, "income": 1.0, "city": 5}]})


TENSOR_FORMS = {
    "inputs": {"inputs": [[1, 2.5], [3, 4]]},
    "instances": {"instances": [[1, 2.5], [3, 4]]},
    "a frame": {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.5], [3.0, 4.0]]}},
    "records": {"dataframe_records": [{"a": 1.5, "b": 2.5}]},
    "a flat row": {"inputs": [1.0, 2.5]},
    "too wide": {"inputs": [[1, 2, 3]]},
    "ragged": {"inputs": [[1, 2], [3]]},
    "words": {"inputs": [["a", "b"]]},
    "deep": {"inputs": [[[1, 2]]]},
    "a scalar": {"inputs": 5},
}


@pytest.mark.parametrize("form", TENSOR_FORMS)
@pytest.mark.parametrize("name", TENSORS)
async def test_every_form_of_a_tensor(pair, name, form):
    await agree(pair, name, TENSOR_FORMS[form])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"5", b'"text"', b"null", b"\xff", b'{"inputs"}'])
async def test_bodies_that_are_no_request(pair, content):
    await agree(pair, "boosted", content)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/json; charset=latin-1",
        "application/json; charset=UTF-8",
        "application/json; a=b",
        "x",
    ],
)
async def test_media_types(pair, content_type):
    await agree(pair, "boosted", {"dataframe_records": [{"age": 30, "income": 5}]}, content_type)


@pytest.mark.parametrize("name", ["pipeline", "light", "regressor"])
async def test_no_rows_are_refused(pair, name):
    """XGBoost alone answers `[]`; here a prediction is of something, whatever the kind of model."""
    await agree(pair, name, {"dataframe_split": frame(name)[:0].to_dict(orient="split")})


async def test_bare_nan_is_refused_where_mlflow_reads_it(pair):
    """JSON has no NaN; most parsers of other languages refuse such a body too. The message names null."""
    theirs, ours = await pair.post("boosted", b'{"dataframe_records": [{"age": NaN, "income": 1}]}', "application/json")
    assert (theirs.status_code, ours.status_code) == (200, 400)
    assert "null" in ours.json()["message"]


async def test_an_integer_that_mlflow_wraps_is_refused(pair):
    """pandas' cast turns 2**63 into a negative number in silence; a wrong answer helps nobody."""
    _, ours = await pair.post(
        "pipeline",
        json.dumps({"dataframe_records": [{"age": 2**63, "income": 1.0, "city": "Bern"}]}).encode(),
        "application/json",
    )
    assert ours.status_code == 400


async def test_no_message_repeats_the_callers_data_or_shows_a_stack_trace(pair):
    body = json.dumps({"dataframe_records": [{"age": "a-secret-value", "income": 1}]}).encode()
    theirs, ours = await pair.post("boosted", body, "application/json")
    assert "a-secret-value" in theirs.text
    assert "a-secret-value" not in ours.text
    assert set(ours.json()) == {"error_code", "message"}
