"""The three models of the demo: what each is, what it learns from, and why it is there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway.demo.flights import NUMBERS, STRINGS

if TYPE_CHECKING:
    import pandas as pd

MODEL: Final = "flights"
"""The registered model, and the endpoint."""

CANDIDATE: Final = "candidate"
"""The alias of the model that is only mirrored, and the mirror's name."""

_RARE_ROWS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`alias` is the name in the registry and on the route; it learns from January to `until_month`."""

    alias: Literal["champion", "challenger", "candidate"]
    family: Literal["logistic regression", "gradient boosting"]
    until_month: int
    columns: tuple[str, ...]
    story: str

    @property
    def months(self) -> str:
        return f"January to {('March', 'June')[self.until_month == 6]}"

    @property
    def parameters(self) -> dict[str, str | int | float]:
        """What is logged to MLflow, and what `build` builds from."""
        if self.family == "logistic regression":
            return {"C": 1.0, "max_iter": 300}
        return {
            "n_estimators": 160,
            "max_depth": 5,
            "learning_rate": 0.1,
            "min_child_weight": 30,
            "subsample": 0.8,
            "colsample_bytree": 0.6,
            "random_state": 0,
        }

    def build(self) -> Any:
        """The unfitted estimator."""
        if self.family == "gradient boosting":
            from xgboost import XGBClassifier

            return XGBClassifier(**self.parameters, n_jobs=1)
        from sklearn.compose import make_column_transformer
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        return make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore", min_frequency=_RARE_ROWS), list(STRINGS)),
                (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(NUMBERS)),
            ),
            LogisticRegression(**self.parameters),
        )

    def rows(self, flights: "pd.DataFrame", rows_max: int) -> "pd.DataFrame":
        """The landed flights that it learns from: all of its months, or an even sample of `rows_max`."""
        known = flights[(flights["month"] <= self.until_month) & flights["late"].notna()]
        return known.sample(rows_max, random_state=0).sort_index() if len(known) > rows_max else known


RECIPES: Final = (
    Recipe(
        alias="champion",
        family="logistic regression",
        until_month=3,
        columns=(*STRINGS, *NUMBERS),
        story="in service since spring; all it knows is winter",
    ),
    Recipe(
        alias="challenger",
        family="logistic regression",
        until_month=6,
        columns=(*STRINGS, *NUMBERS),
        story="the same pipeline, trained again with a spring more of data",
    ),
    Recipe(
        alias="candidate",
        family="gradient boosting",
        until_month=6,
        columns=NUMBERS,
        story="another kind of model, on the numbers alone; nobody has let it answer yet",
    ),
)
