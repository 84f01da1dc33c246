import numpy as np
import pandas as pd

from gateway.demo.flights import INPUTS, NUMBERS, STRINGS
from gateway.demo.models import RECIPES


def test_no_model_needs_an_input_that_the_champion_does_not_take() -> None:
    champion, *others = RECIPES
    assert champion.alias == "champion"
    assert champion.columns == INPUTS
    assert all(set(other.columns) <= set(champion.columns) for other in others)


def test_no_model_has_seen_the_month_that_is_replayed() -> None:
    assert max(recipe.until_month for recipe in RECIPES) < 7


def test_every_model_takes_missing_numbers_and_unknown_strings() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({name: random.random(200) for name in NUMBERS} | {name: ["AA", "BB"] * 100 for name in STRINGS})
    rows[list(NUMBERS[3:])] = rows[list(NUMBERS[3:])].mask(random.random((200, len(NUMBERS) - 3)) < 0.1)
    late = (random.random(200) < 0.3).astype(int)
    unknown = rows.head(3).assign(carrier="ZZ")
    for recipe in RECIPES:
        fitted = recipe.build().fit(rows[list(recipe.columns)], late)
        assert np.isfinite(fitted.predict_proba(unknown[list(recipe.columns)])).all()


def test_a_model_learns_only_from_its_months_and_only_from_flights_that_landed() -> None:
    flights = pd.DataFrame({"month": [1, 3, 4, 2], "late": [0.0, 1.0, 1.0, np.nan]})
    assert RECIPES[0].rows(flights, 10).index.tolist() == [0, 1]
    assert len(RECIPES[1].rows(flights, 2)) == 2
