"""Pipelines as people build them: converted, and equal to the original on every made row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier, XGBRegressor

from models.convert import parity, sklearn, steps
from models.convert.form import Converted
from models.convert.mlmodel import Mlmodel
from models.convert.rows import generate
from models.errors import StagingRefused
from models.signature import TensorSpec
from models.staged import Certificate

ROWS = 250
NUMBERS = ["age", "income"]
TEXTS = ["city", "plan"]
TYPES = {"int64": "INT64", "float64": "FP64", "float32": "FP32", "object": "BYTES", "bool": "BOOL"}


def people() -> pd.DataFrame:
    random = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, ROWS),
            "income": random.normal(0.0, 1000.0, ROWS),
            "city": random.choice(["A", "B", "C"], ROWS),
            "plan": random.choice(["x", "y"], ROWS),
        }
    )
    frame.loc[::9, "income"] = np.nan
    return frame


FRAME = people()
WHOLE = FRAME.fillna({"income": 0.0})
TWO = ((FRAME["age"] > 40) ^ (FRAME["city"] == "B")).astype(int).to_numpy()
THREE = np.digitize(WHOLE["income"], [-300.0, 300.0])
VALUE = (WHOLE["income"] * 2 + WHOLE["age"]).to_numpy()


def by_column(numbers: Any, texts: Any) -> ColumnTransformer:
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("texts", texts, TEXTS)])


def one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore")


def converted(estimator: Any, rows: Any, truth: Any, predict_fn: str = "predict") -> Converted:
    estimator.fit(rows, truth)
    if isinstance(rows, pd.DataFrame):
        inputs = tuple(TensorSpec(name=name, datatype=TYPES[str(rows[name].dtype)], shape=(-1, 1)) for name in rows)
    else:
        inputs = (TensorSpec(name="input", datatype="FP64", shape=(-1, rows.shape[1])),)
    model = Mlmodel(
        folder=Path(),
        flavor="sklearn",
        configuration={},
        predict_fn=predict_fn,
        inputs=inputs,
        columns=isinstance(rows, pd.DataFrame),
    )
    return sklearn.convert(model, estimator)


def certificate(made: Converted, form: int = 0) -> Certificate:
    signature = made.signature
    sample = generate(
        signature.inputs,
        columns=signature.columns,
        example={},
        recorded={},
        thresholds=made.thresholds,
        categories=made.categories,
    )
    assert made.original is not None
    expected = parity.expect(made.original, sample)
    content = made.forms[form].build().SerializeToString()
    return parity.certify(content, signature, sample, expected, tolerance=parity.Tolerance(), original="")


IMPUTED = make_pipeline(SimpleImputer(), StandardScaler())
PIPELINES = {
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), WHOLE[NUMBERS], TWO),
    "logistic on a tensor": (
        make_pipeline(StandardScaler(), LogisticRegression()),
        WHOLE[NUMBERS].to_numpy(float),
        THREE,
    ),
    "text labels": (LogisticRegression(), WHOLE[NUMBERS], np.where(TWO, "yes", "no")),
    "boolean labels": (RandomForestClassifier(5, random_state=0), WHOLE[NUMBERS], TWO == 1),
    "float labels": (LogisticRegression(), WHOLE[NUMBERS], TWO * 1.0),
    "float32 columns": (
        make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
        WHOLE[NUMBERS].astype("float32"),
        TWO,
    ),
    "scaled forest": (make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)), WHOLE[NUMBERS], TWO),
    "scaled xgboost": (make_pipeline(RobustScaler(), XGBClassifier(n_estimators=10)), WHOLE[NUMBERS], THREE),
    "scaled lightgbm": (
        make_pipeline(MinMaxScaler(), LGBMClassifier(n_estimators=10, verbose=-1)),
        WHOLE[NUMBERS],
        THREE,
    ),
    "columns logistic": (make_pipeline(by_column(IMPUTED, one_hot()), LogisticRegression()), FRAME, TWO),
    "columns forest": (
        make_pipeline(by_column(IMPUTED, one_hot()), RandomForestClassifier(20, random_state=0)),
        FRAME,
        TWO,
    ),
    "columns xgboost": (make_pipeline(by_column("passthrough", one_hot()), XGBClassifier(n_estimators=10)), FRAME, TWO),
    "columns regression": (make_pipeline(by_column(IMPUTED, one_hot()), XGBRegressor(n_estimators=10)), FRAME, VALUE),
    "imputed texts": (
        make_pipeline(
            by_column(IMPUTED, make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot())), LogisticRegression()
        ),
        FRAME,
        TWO,
    ),
    "ordinal": (
        make_pipeline(
            by_column(StandardScaler(), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
            LGBMClassifier(n_estimators=10, verbose=-1),
        ),
        WHOLE,
        TWO,
    ),
    "encoded whole numbers": (
        make_pipeline(
            ColumnTransformer([("a", one_hot(), ["age"]), ("b", StandardScaler(), ["income"])]), LogisticRegression()
        ),
        WHOLE,
        TWO,
    ),
    "texts only": (make_pipeline(one_hot(), LogisticRegression()), WHOLE[TEXTS], TWO),
    "words": (
        make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "city")]), LogisticRegression()),
        WHOLE[["city"]].replace({"A": "good day", "B": "bad day", "C": "so so"}),
        TWO,
    ),
    "components": (make_pipeline(StandardScaler(), PCA(1), LogisticRegression()), WHOLE[NUMBERS], TWO),
    "union": (
        make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(1))]), LogisticRegression()),
        WHOLE[NUMBERS],
        TWO,
    ),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier()), WHOLE[NUMBERS], TWO),
    "network": (
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=400, tol=0.1, random_state=0)),
        WHOLE[NUMBERS],
        TWO,
    ),
    "calibrated": (
        CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), method="isotonic"),
        WHOLE[NUMBERS],
        TWO,
    ),
    "voting": (
        VotingClassifier(
            [("a", LogisticRegression()), ("b", RandomForestClassifier(5, random_state=0))], voting="soft"
        ),
        WHOLE[NUMBERS],
        TWO,
    ),
    "labels without scores": (make_pipeline(StandardScaler(), SVC()), WHOLE[NUMBERS], TWO),
    "searched": (
        GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [1.0, 2.0]}),
        WHOLE[NUMBERS],
        VALUE,
    ),
    "two values": (LinearRegression(), WHOLE[NUMBERS], np.c_[VALUE, VALUE * 2]),
    "two values of a forest": (RandomForestRegressor(5, random_state=0), WHOLE[NUMBERS], np.c_[VALUE, VALUE * 2]),
}


# skl2onnx reads what scikit-learn 1.9 deprecates of support vector machines.
@pytest.mark.filterwarnings("ignore:Attribute `prob:FutureWarning")
@pytest.mark.parametrize("name", PIPELINES)
def test_the_exact_form_answers_as_the_original(name: str) -> None:
    made = converted(*PIPELINES[name])

    given = certificate(made)

    assert given.labels_equal
    assert given.rows > 800
    assert given.tolerance_absolute == 1e-5


@pytest.mark.parametrize(
    "estimator",
    [LinearSVC(), make_pipeline(KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), LogisticRegression())],
)
def test_a_step_without_a_double_form_is_served_in_float32_when_that_is_equal(estimator: Any) -> None:
    made = converted(make_pipeline(StandardScaler(), estimator), WHOLE[NUMBERS], TWO)

    assert [form.name for form in made.forms] == ["pipeline in FP64", "pipeline in FP32"]
    assert certificate(made, form=1).rows > 800


def test_columns_may_have_any_name() -> None:
    names = {"age": "hours per-week", "income": "X", "city": "é:1 (cm)", "plan": "input"}
    numbers, texts = [names[name] for name in NUMBERS], [names[name] for name in TEXTS]
    columns = ColumnTransformer([("numbers", IMPUTED, numbers), ("texts", one_hot(), texts)])

    made = converted(
        make_pipeline(columns, RandomForestClassifier(10, random_state=0)), FRAME.rename(columns=names), TWO
    )

    assert certificate(made).rows > 800
    assert [spec.name for spec in made.signature.inputs] == list(names.values())


def test_a_step_that_no_converter_knows_is_refused_by_the_build() -> None:
    made = converted(make_pipeline(FunctionTransformer(np.sign), Ridge()), WHOLE[NUMBERS], VALUE)

    with pytest.raises(RuntimeError, match="FunctionTransformer"):
        made.forms[0].build()


def test_probabilities_are_the_answer_where_the_model_was_logged_so() -> None:
    made = converted(LogisticRegression(), WHOLE[NUMBERS], TWO, "predict_proba")

    assert made.answer.scoring_outputs == ("probabilities",)
    assert made.answer.scoring_form == "matrix"


def test_another_predict_function_is_refused() -> None:
    with pytest.raises(StagingRefused, match="predict_log_proba"):
        converted(LogisticRegression(), WHOLE[NUMBERS], TWO, "predict_log_proba")


def test_labels_keep_their_type_and_values_are_double() -> None:
    types = {
        name: converted(*PIPELINES[name]).signature.outputs[0].datatype
        for name in ("text labels", "boolean labels", "float labels", "columns regression")
    }

    assert types == {
        "text labels": "BYTES",
        "boolean labels": "BOOL",
        "float labels": "FP64",
        "columns regression": "FP64",
    }


def test_thresholds_are_taken_back_through_what_can_be_undone() -> None:
    plain = RandomForestClassifier(5, random_state=0).fit(WHOLE[NUMBERS], TWO)
    scaled = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(WHOLE[NUMBERS], TWO)
    mixed = make_pipeline(by_column(IMPUTED, one_hot()), RandomForestClassifier(5, random_state=0)).fit(FRAME, TWO)

    for model, names in ((plain, NUMBERS), (scaled, NUMBERS), (mixed, NUMBERS + TEXTS)):
        inputs = tuple(TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in names)
        found = steps.thresholds(model, inputs)
        assert set(found) == set(NUMBERS)
        assert 18 <= found["age"].min() <= found["age"].max() <= 80
