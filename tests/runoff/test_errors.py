import pytest

from runoff.errors import GatewayUnreachable, RequestRefused, RunoffError


def test_both_troubles_are_caught_as_one():
    assert issubclass(GatewayUnreachable, RunoffError)
    assert issubclass(RequestRefused, RunoffError)


def test_a_refusal_is_read_as_its_message_and_a_line_for_each_problem():
    problems = [
        {"path": "variants[0].model", "code": "model_unknown", "message": "no such model", "remedy": "publish it"},
        {"path": "", "code": "route_invalid", "message": "too large"},
        {"path": "salt", "code": "salt_invalid"},
    ]
    error = RequestRefused(422, "route_invalid", "the route has 3 problems", problems)
    assert str(error).splitlines() == [
        "the route has 3 problems",
        "  variants[0].model: no such model; publish it",
        "  too large",
        "  salt: salt_invalid",
    ]
    assert (error.status, error.code, error.message) == (422, "route_invalid", "the route has 3 problems")


def test_what_a_refusal_carries_is_not_changed_with_the_list_it_was_made_of():
    problems = [{"message": "one"}]
    error = RequestRefused(409, "revision_failed", "failed", problems)
    problems.append({"message": "two"})
    assert error.problems == ({"message": "one"},)


@pytest.mark.parametrize("problems", [(), []])
def test_without_problems_it_is_one_line(problems):
    assert (
        str(RequestRefused(404, "endpoint_unknown", "there is no endpoint 'x'", problems)) == "there is no endpoint 'x'"
    )
