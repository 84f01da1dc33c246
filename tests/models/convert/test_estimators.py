"""Trees of every family, beside every threshold: the ONNX form goes the way the library goes."""

from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn import ensemble, linear_model, tree

from models.convert import estimators, sklearn_trees
from models.convert import lightgbm as lightgbm_room
from models.convert import xgboost as xgboost_room
from models.convert.graph import Graph
from models.convert.heads import Head
from models.convert.parity import session
from models.convert.trees import Forest
from models.errors import StagingRefused
from models.signature import TensorSpec

FEATURES = 4


def world(*, missing: bool = False) -> tuple[Any, Any, Any]:
    """Rows, three classes, and a value."""
    random = np.random.default_rng(3)
    rows = random.normal(size=(300, FEATURES))
    classes = np.digitize(rows[:, 0] + rows[:, 1] ** 2, [0.0, 1.0])
    value = np.abs(rows[:, 0] * 100 + rows[:, 2]) + 1
    if missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    return rows, classes, value


def beside_thresholds(forest: Forest, rows: Any) -> Any:
    """Rows in which one feature is a threshold or its neighbour, as double and as float32."""
    random = np.random.default_rng(5)
    made = [rows]
    for feature, all_values in forest.thresholds().items():
        values = all_values[:: max(1, len(all_values) // 20)]
        narrow = values.astype(np.float32)
        for at in (
            values,
            np.nextafter(values, np.inf),
            np.nextafter(values, -np.inf),
            narrow,
            np.nextafter(narrow, np.float32(np.inf)),
            np.nextafter(narrow, np.float32(-np.inf)),
        ):
            drawn = rows[random.integers(0, len(rows), len(at))].copy()
            drawn[:, feature] = at
            made.append(drawn)
    return np.concatenate(made)


def run(forest: Forest, head: Head, rows: Any) -> list[Any]:
    graph = Graph()
    sums = forest.emit(graph, "x")
    inputs = [TensorSpec(name="x", datatype="FP64", shape=(-1, FEATURES))]
    if head.classes is None:
        graph.op("Identity", head.scores(graph, sums), into="value")
        outputs = [TensorSpec(name="value", datatype="FP32", shape=(-1, -1))]
    else:
        label, probabilities = head.label_and_probabilities(graph, sums)
        graph.op("Identity", label, into="label")
        graph.op("Identity", probabilities, into="probabilities")
        kind = "BYTES" if head.classes.dtype.kind == "U" else "INT64"
        outputs = [
            TensorSpec(name="label", datatype=kind, shape=(-1,)),
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, -1)),
        ]
    return list(session(graph.model(inputs, outputs).SerializeToString()).run(None, {"x": rows}))


CLASSIFIERS = [
    tree.DecisionTreeClassifier(random_state=0),
    ensemble.RandomForestClassifier(10, random_state=0),
    ensemble.ExtraTreesClassifier(10, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=10),
    ensemble.HistGradientBoostingClassifier(max_iter=10),
    xgboost.XGBClassifier(n_estimators=10),
    xgboost.XGBClassifier(n_estimators=10, booster="dart", rate_drop=0.3),
    xgboost.XGBRFClassifier(n_estimators=10),
    lightgbm.LGBMClassifier(n_estimators=10, verbose=-1),
    lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, objective="multiclassova"),
    lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
]
REGRESSORS = [
    tree.ExtraTreeRegressor(random_state=0),
    ensemble.RandomForestRegressor(10, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10),
    ensemble.HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
    xgboost.XGBRegressor(n_estimators=10),
    xgboost.XGBRegressor(n_estimators=10, objective="count:poisson"),
    lightgbm.LGBMRegressor(n_estimators=10, verbose=-1),
    lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, reg_sqrt=True),
    lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, objective="tweedie"),
]


def named(model: Any) -> str:
    return type(model).__name__


def reloaded(model: Any) -> Any:
    """LightGBM keeps infinite thresholds in memory that its own text form cuts to 1e300; stored models have only the text."""
    if isinstance(model, lightgbm.LGBMModel):
        model._Booster = lightgbm.Booster(model_str=model.booster_.model_to_string())
    return model


CASES = [
    (model, classes)
    for model in CLASSIFIERS
    for classes in ("two", "three", "texts")
    # XGBoost takes whole numbers from zero only; one-versus-all is for several classes.
    if not (classes == "texts" and isinstance(model, xgboost.XGBModel))
    and not (classes != "three" and getattr(model, "objective", None) == "multiclassova")
]


@pytest.mark.parametrize(
    ("model", "classes"), CASES, ids=lambda value: value if isinstance(value, str) else named(value)
)
def test_a_classifiers_labels_are_equal_beside_every_threshold(model: Any, classes: str) -> None:
    rows, truth, _ = world(missing=not isinstance(model, ensemble.GradientBoostingClassifier))
    truth = (
        truth
        if classes == "three"
        else np.array(["no", "yes"])[(truth > 0) * 1]
        if classes == "texts"
        else (truth > 0) * 1
    )
    model = reloaded(model.fit(rows, truth))
    forest, head = estimators.forest_of(model)
    rows = beside_thresholds(forest, rows)

    label, probabilities = run(forest, head, rows)

    assert label.tolist() == model.predict(rows).tolist()
    assert np.abs(probabilities - model.predict_proba(rows)).max() < 1e-6


@pytest.mark.parametrize("model", REGRESSORS, ids=named)
def test_a_regressors_values_are_equal_beside_every_threshold(model: Any) -> None:
    rows, _, value = world(missing=not isinstance(model, ensemble.GradientBoostingRegressor))
    model = reloaded(model.fit(rows, value))
    forest, head = estimators.forest_of(model)
    rows = beside_thresholds(forest, rows)

    (predicted,) = run(forest, head, rows)

    wanted = model.predict(rows)
    assert (np.abs(predicted[:, 0] - wanted) / np.abs(wanted)).max() < 2e-6


def test_a_rule_of_scikit_learn_holds_where_the_sum_is_exactly_zero() -> None:
    rows = np.array([[0.0] * FEATURES, [1.0] * FEATURES])
    forest = Forest(features=FEATURES, targets=1, base=(0.0,))
    forest.leaf((0, 0), {0: 0.0})
    head = Head(link="sigmoid", classes=np.array([0, 1]))

    assert run(forest, head, rows)[0].tolist() == [0, 0]
    assert run(forest, replace(head, binary_label="sum >= 0"), rows)[0].tolist() == [1, 1]


def test_categories_of_lightgbm_are_sets_and_cut_to_whole_numbers() -> None:
    random = np.random.default_rng(1)
    rows, _, _ = world()
    rows[:, 3] = random.integers(0, 12, len(rows))
    truth = (np.isin(rows[:, 3], [1, 4, 7]) ^ (rows[:, 0] > 0)).astype(int)
    model = reloaded(
        lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, min_data_per_group=5).fit(
            rows, truth, categorical_feature=[3]
        )
    )
    forest, head = lightgbm_room.forest_of(model.booster_)
    asked = np.concatenate([rows, rows + 0.5, -rows, np.where(np.arange(FEATURES) == 3, np.nan, rows), rows + 1000.0])

    label, _ = run(forest, replace(head, classes=model.classes_), asked)

    assert forest.mode.count("BRANCH_EQ") > 3
    assert label.tolist() == model.predict(asked).tolist()


def test_early_stopping_is_respected() -> None:
    rows, truth, _ = world()
    model = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2).fit(
        rows[:200], truth[:200], eval_set=[(rows[200:], truth[200:])], verbose=False
    )

    label, probabilities = run(*estimators.forest_of(model), rows)

    assert model.best_iteration < 39
    assert label.tolist() == model.predict(rows).tolist()
    assert np.abs(probabilities - model.predict_proba(rows)).max() < 1e-6


def test_what_has_no_exact_form_is_refused_with_a_remedy() -> None:
    rows, truth, value = world()
    linear = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1, linear_tree=True).fit(rows, value)
    flat = xgboost.XGBRegressor(n_estimators=2, booster="gblinear").fit(rows, value)
    started = ensemble.GradientBoostingRegressor(n_estimators=2, init=linear_model.Ridge()).fit(rows, value)
    both = ensemble.RandomForestClassifier(2).fit(rows, np.c_[truth, truth])

    for refused in (
        lambda: lightgbm_room.forest_of(linear.booster_),
        lambda: xgboost_room.forest_of(flat.get_booster()),
        lambda: sklearn_trees.forest_of(started),
        lambda: sklearn_trees.forest_of(both),
    ):
        with pytest.raises(StagingRefused) as trouble:
            refused()
        assert trouble.value.code == "trees_unsupported"
        assert trouble.value.remedy
