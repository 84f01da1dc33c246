from datetime import UTC, datetime

import pytest

from routing.errors import Problem
from routing.fields import Fields


def read(document: object, **unbuilt: frozenset[str] | None) -> tuple[Fields, list[Problem]]:
    problems: list[Problem] = []
    return Fields(document, "", problems, unbuilt), problems


def test_an_unknown_key_is_reported_with_the_nearest_known_one():
    fields, problems = read({"wieght": 1})
    fields.number("weight", 0, 0, 1)

    fields.close()

    assert [(problem.path, problem.code, problem.remedy) for problem in problems] == [
        ("wieght", "unknown_key", "did you mean 'weight'?")
    ]


def test_reading_goes_on_after_a_problem():
    fields, problems = read({"a": 3, "b": "x", "c": [1], "d": "soon"})

    fields.text("a"), fields.whole("b", 1, 0, 9), fields.texts("c"), fields.duration_s("d"), fields.text("e")

    assert [(problem.path, problem.code) for problem in problems] == [
        ("a", "wrong_type"),
        ("b", "wrong_type"),
        ("c[0]", "wrong_type"),
        ("d", "duration_invalid"),
        ("e", "missing"),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_durations_are_a_number_and_a_unit(text, seconds):
    fields, problems = read({"for": text})

    assert fields.duration_s("for") == seconds
    assert not problems


@pytest.mark.parametrize("text", ["", "10", "m", "1.5h", "-3d", "0s", "10 m", "9999999999w", "1h30m", 600])
def test_other_durations_are_refused(text):
    fields, problems = read({"for": text})

    fields.duration_s("for")

    assert [problem.code for problem in problems] == ["duration_invalid"]


@pytest.mark.parametrize(
    "value",
    [
        "2026-12-31T00:00:00Z",
        "2026-12-31t01:00:00+01:00",
        "2026-12-31T00:00:00.999Z",
        datetime(2026, 12, 31, tzinfo=UTC),
    ],
)
def test_instants_are_rfc_3339_or_what_yaml_makes_of_it(value):
    fields, problems = read({"until": value})

    assert fields.instant_unix_s("until") == 1_798_675_200
    assert not problems


@pytest.mark.parametrize(
    "value",
    [
        "2026-12-31",
        "2026-12-31T00:00:00",
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "20261231T000000Z",
        5,
        datetime(2026, 1, 1),  # noqa: DTZ001  what YAML makes of an instant without an offset
    ],
)
def test_other_instants_are_refused(value):
    fields, problems = read({"until": value})

    assert fields.instant_unix_s("until") is None
    assert [problem.code for problem in problems] == ["instant_invalid"]


def test_what_is_not_built_is_refused_by_key_or_by_value():
    fields, problems = read({"steps": [], "protocol": "v3", "other": "v3"}, steps=None, protocol=frozenset({"v3"}))

    fields.texts("steps"), fields.text("protocol"), fields.text("other")

    assert [(problem.path, problem.code) for problem in problems] == [
        ("steps", "not_built_yet"),
        ("protocol", "not_built_yet"),
    ]


def test_booleans_are_no_numbers_and_nan_is_out_of_range():
    fields, problems = read({"a": True, "b": float("nan"), "c": True})

    fields.number("a", 0, 0, 1), fields.number("b", 0, 0, 1), fields.whole("c", 0, 0, 1)

    assert [problem.code for problem in problems] == ["wrong_type", "out_of_range", "wrong_type"]
