"""Stored objects are opened only as far as somebody has answered for them."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from models.convert.mlmodel import Flavor, Mlmodel
from models.convert.opening import open_native, open_object
from models.errors import StagingRefused

TREE = "sklearn.tree._tree.Tree"


class Foreign(LogisticRegression):
    """A type of the model's author."""


def model(folder: Path, flavor: Flavor = "sklearn", **configuration: Any) -> Mlmodel:
    return Mlmodel(
        folder=folder, flavor=flavor, configuration=configuration, predict_fn="predict", inputs=None, columns=False
    )


def opened(folder: Path, stored: Any, listed: list[str], trust_types: tuple[str, ...] = ()) -> Any:
    skops.io.dump(stored, folder / "model.skops")
    described = model(folder, serialization_format="skops", skops_trusted_types=listed)
    return open_object(described, folder / "model.skops", "name", trust_types=trust_types, trust_pickle=())


def fitted(kind: type) -> Any:
    return kind().fit([[0.0], [1.0]], [0, 1])


def test_a_model_of_plain_types_needs_no_trust(folder: Path) -> None:
    assert opened(folder, fitted(LogisticRegression), []).predict([[1.0]]).tolist() == [1]


def test_a_librarys_own_type_must_be_listed_by_the_model(folder: Path) -> None:
    with pytest.raises(StagingRefused, match=TREE) as refused:
        opened(folder, fitted(DecisionTreeClassifier), [])
    assert refused.value.code == "types_untrusted"

    assert opened(folder, fitted(DecisionTreeClassifier), [TREE]).predict([[1.0]]).tolist() == [1]


def test_a_foreign_type_needs_the_setting_and_the_models_own_list_does_not_help(folder: Path) -> None:
    name = f"{Foreign.__module__}.Foreign"

    with pytest.raises(StagingRefused) as refused:
        opened(folder, fitted(Foreign), [name])

    assert f"RUNOFF_TRUST_TYPES={name}" in refused.value.remedy


@pytest.mark.parametrize(
    "listed", ["os.system", "numpy.load", "sklearn.externals.run", "builtins.eval", "numpy.f2py.compile"]
)
def test_functions_and_other_libraries_do_not_pass_for_types(folder: Path, listed: str) -> None:
    from models.convert import opening

    assert not opening._TYPE.fullmatch(listed)


@pytest.mark.parametrize("stored_as", ["pickle", "cloudpickle", None])
@pytest.mark.parametrize(
    ("pattern", "is_opened"), [("fraud", True), ("fra*", True), ("*", True), ("FRAUD", False), ("fr", False)]
)
def test_a_pickle_is_opened_by_name_pattern_only(
    folder: Path, stored_as: str | None, pattern: str, is_opened: bool
) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    described = model(folder, serialization_format=stored_as)

    def open_it() -> Any:
        return open_object(described, folder / "model.pkl", "fraud", trust_types=(), trust_pickle=(pattern,))

    if is_opened:
        assert open_it() == {"a": 1}
    else:
        with pytest.raises(StagingRefused, match="runs code") as refused:
            open_it()
        assert "RUNOFF_TRUST_PICKLE=fraud" in refused.value.remedy


def test_an_unknown_class_of_xgboost_is_not_looked_up(folder: Path) -> None:
    with pytest.raises(StagingRefused, match=r"model class 'os\.system'"):
        open_native(model(folder, "xgboost", model_class="os.system"), folder / "model.ubj")


def test_a_lightgbm_estimator_is_no_native_format(folder: Path) -> None:
    assert open_native(model(folder, "lightgbm", model_class="lightgbm.sklearn.LGBMClassifier"), folder) is None
