"""Registers `tumour` in a gateway's own registry: version 1 a linear pipeline, version 2 a forest, aliases champion and challenger.

python docs/examples/first_model.py [tracking uri, default sqlite:///var/mlflow.db]
"""

import sys

import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

mlflow.set_tracking_uri(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///var/mlflow.db")
patients, is_benign = load_breast_cancer(return_X_y=True, as_frame=True)
patients = patients[["mean radius", "mean texture", "mean area"]]

for model in (make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(50, random_state=1)):
    model.fit(patients, is_benign)
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name="tumour",
        signature=mlflow.models.infer_signature(patients, model.predict(patients)),
        input_example=patients[:5],
        pip_requirements=["scikit-learn"],  # otherwise MLflow takes ten seconds to guess them
        skops_trusted_types=[
            "sklearn.tree._tree.Tree"
        ],  # scikit-learn's own trees must be named to be stored without pickle
    )

registry = mlflow.MlflowClient()
versions = sorted(int(found.version) for found in registry.search_model_versions("name = 'tumour'"))
registry.set_registered_model_alias("tumour", "champion", str(versions[-2]))
registry.set_registered_model_alias("tumour", "challenger", str(versions[-1]))
print(f"tumour: champion is version {versions[-2]}, challenger version {versions[-1]}")
