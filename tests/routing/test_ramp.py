import pytest

from routing.errors import RouteInvalid
from routing.ramp import dead_ends, disturbance, weights_at
from routing.traffic import Step
from routing.validate import validate
from tests.routing.documents import route, two

STEPS = (
    Step(weights=(("challenger", 1.0),), for_s=60),
    Step(weights=(("challenger", 10.0), ("champion", 90.0)), for_s=60),
)
SAME = {"versions_before": {"champion": "m/1"}, "versions_after": {"champion": "m/1"}}


def test_steps_add_up():
    assert weights_at(STEPS, 0) == {"challenger": 1}
    assert weights_at(STEPS, 1) == {"challenger": 10, "champion": 90}


def test_a_step_after_which_nobody_has_a_weight_is_found():
    away = (*STEPS, Step(weights=(("challenger", 0.0),), for_s=60), Step(weights=(("champion", 0.0),), for_s=60))
    assert dead_ends([("champion", 1), ("challenger", 0)], away) == [3]


def test_a_change_of_weights_or_versions_disturbs_and_nothing_else_does():
    before, after = route(two()), route(two(champion=50))
    assert disturbance(before, after, **SAME) == "the weights were changed"
    assert disturbance(before, route(two(explain=True)), **SAME) is None
    moved = disturbance(before, before, versions_before={"champion": "m/1"}, versions_after={"champion": "m/2"})
    assert moved == "the version of champion was changed"
    mirrored = disturbance(before, before, versions_before={"shadow": "m/1"}, versions_after={"shadow": "m/2"})
    assert mirrored is None


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([{"weights": {}, "for": "1h"}], ("steps[0].weights", "missing")),
        ([{"weights": {"nobody": 1}, "for": "1h"}], ("steps[0].weights.nobody", "variant_unknown")),
        ([{"weights": {"champion": 0, "challenger": 0}, "for": "1h"}], ("steps[0].weights", "weights_all_zero")),
        ([{"weights": {"champion": -1}, "for": "1h"}], ("steps[0].weights.champion", "out_of_range")),
        ([{"weights": {"champion": 1}}], ("steps[0].for", "missing")),
        ([{"weights": {"champion": 1}, "for": "soon"}], ("steps[0].for", "duration_invalid")),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(steps, problem):
    with pytest.raises(RouteInvalid) as refused:
        validate(two(steps=steps))
    assert problem in [(one.path, one.code) for one in refused.value.problems]
