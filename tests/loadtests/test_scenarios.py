"""How many callers a scenario has at each moment."""

import pytest

from loadtests.scenarios import SCENARIOS


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("steady", [20, 20, 20, 20, 20]),
        ("ramp", [1, 6, 12, 19, 20]),
        ("spike", [4, 4, 20, 4, 4]),
        ("soak", [10, 10, 10, 10, 10]),
        ("mixed", [20, 20, 20, 20, 20]),
        ("labels", [20, 20, 20, 20, 20]),
    ],
)
def test_callers_come_and_go_as_the_scenario_says(name: str, wanted: list[int]) -> None:
    scenario = SCENARIOS[name]
    assert [scenario.callers(at_s, 100.0, 20) for at_s in (0.0, 25.0, 50.0, 75.0, 99.9)] == wanted
    assert scenario.callers(100.0, 100.0, 20) is None


def test_a_run_never_stands_still() -> None:
    assert all(scenario.callers(0.0, 60.0, 1) == 1 for scenario in SCENARIOS.values())
