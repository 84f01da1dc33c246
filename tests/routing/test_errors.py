from routing.errors import Problem, RouteInvalid


def test_a_refused_route_names_every_problem_with_its_place_and_remedy():
    problems = [
        Problem("champion", "variant_unknown", "no variant is called 'x'", "name another"),
        Problem("", "b", "c"),
    ]

    error = RouteInvalid(problems)

    assert str(error) == "champion: no variant is called 'x'; name another\nc"
    assert error.problems == tuple(problems)
