"""A real MLflow registry in SQLite with one small model of each flavor, logged fast: without inferring requirements."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper

ROWS = 300


def people() -> pd.DataFrame:
    """Whole, floating and text columns; the same each time."""
    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "age": random.integers(18, 80, ROWS),
            "income": random.normal(2000.0, 900.0, ROWS),
            "city": random.choice(["Bern", "Genève", "Zürich"], ROWS),
        }
    )


def answers(rows: pd.DataFrame) -> Any:
    return np.where((rows["age"] > 40) ^ (rows["city"] == "Bern"), "yes", "no")


def pipeline() -> Any:
    """A scikit-learn pipeline with text columns and trees."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income"]), ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    return make_pipeline(columns, RandomForestClassifier(12, random_state=0)).fit(people(), answers(people()))


def numbers() -> pd.DataFrame:
    return people()[["age", "income"]].astype(float)


def is_yes() -> Any:
    return (answers(people()) == "yes").astype(int)


def doubled(name: str = "x") -> onnx.ModelProto:
    """`y = x + x`, FP32 [-1, 2]."""
    node = helper.make_node("Add", [name, name], ["y"])
    graph = helper.make_graph(
        [node],
        "doubled",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def log_all(folder: Path) -> str:
    """Logs and registers `pipeline`, `boosted` (XGBoost), `light` (LightGBM) and `doubled` (ONNX); answers the registry's URI."""
    import lightgbm
    import mlflow
    import xgboost

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("kit", artifact_location=(folder / "runs").as_uri()))

    def infer(rows: Any, answers: Any) -> Any:
        # MLflow advises against whole-number columns by a warning, and takes it for a failure where warnings are errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mlflow.models.infer_signature(rows, answers)

    rows, truth = numbers(), is_yes()
    plain = {"name": "model", "pip_requirements": []}
    forest = pipeline()
    mlflow.sklearn.log_model(
        forest,
        signature=infer(people(), forest.predict(people())),
        input_example=people()[:5],
        registered_model_name="pipeline",
        skops_trusted_types=["sklearn.tree._tree.Tree", "numpy.dtype"],
        **plain,
    )
    boosted = xgboost.XGBClassifier(n_estimators=8, max_depth=3).fit(rows, truth)
    mlflow.xgboost.log_model(
        boosted, signature=infer(rows, boosted.predict(rows)), registered_model_name="boosted", **plain
    )
    light = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1).fit(rows, truth)
    mlflow.lightgbm.log_model(light, signature=infer(rows, light.predict(rows)), registered_model_name="light", **plain)
    example = np.zeros((2, 2), np.float32)
    with mlflow.start_run():
        mlflow.onnx.log_model(doubled(), signature=infer(example, example), registered_model_name="doubled", **plain)
    return uri
