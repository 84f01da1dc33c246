import numpy as np
import pytest

from gateway.demo import flights
from gateway.demo.flights import INPUTS, recent_delay, still_waiting

HOUR = 3600.0


@pytest.fixture(scope="module")
def january():
    return flights.load(until_month=1)


def test_every_input_has_a_column_and_strings_and_whole_numbers_are_never_missing(january) -> None:
    assert set(INPUTS) <= set(january.columns)
    assert not january[[*flights.STRINGS, *flights.WHOLE]].isna().any().any()


def test_flights_come_in_the_order_of_their_scheduled_departure(january) -> None:
    assert january["due_unix_s"].is_monotonic_increasing


def test_a_cancelled_flight_has_neither_a_landing_nor_a_truth(january) -> None:
    never = january["landed_unix_s"].isna()
    assert never.any()
    assert (january["late"].isna() == never).all()


def test_request_ids_name_each_flight_once_and_fit_the_header(january) -> None:
    assert january["request_id"].is_unique
    assert january["request_id"].str.fullmatch(r"[A-Za-z0-9._:-]{1,128}").all()


def test_a_delay_counts_only_once_the_flight_has_left() -> None:
    due = np.array([0.0, HOUR, 2 * HOUR])
    delay = np.array([90.0, 0.0, 0.0])
    assert np.isnan(recent_delay(due, delay)[1]), "the first has not left yet when the second is due"
    assert recent_delay(due, delay)[2] == pytest.approx(45.0)


def test_an_early_departure_does_not_count_for_itself() -> None:
    assert np.isnan(recent_delay(np.array([HOUR]), np.array([-5.0]))[0])


def test_a_flight_waits_until_it_leaves_and_a_cancelled_one_for_three_hours() -> None:
    due = np.array([0.0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR])
    delay = np.array([90.0, np.nan, 0.0, 0.0, 0.0])
    assert still_waiting(due, delay).tolist() == [0, 1, 1, 1, 1]


def test_nothing_that_happens_later_changes_what_is_known_at_the_gate() -> None:
    """Another future: whoever has not left by now leaves at another time; flights due by now must look the same."""
    random = np.random.default_rng(3)
    due = np.sort(random.uniform(0, 24 * HOUR, 400)).round(-1)
    delay = np.where(random.random(400) < 0.05, np.nan, random.normal(10, 30, 400).round())
    at = 200
    now = due[at]
    has_left = due + 60 * np.nan_to_num(delay, nan=np.inf) < now
    another = np.where(has_left, delay, (now - due) / 60 + random.uniform(1, 300, 400))
    known = due <= now
    np.testing.assert_array_equal(still_waiting(due, delay)[at], still_waiting(due, another)[at])
    np.testing.assert_array_equal(recent_delay(due, delay)[at], recent_delay(due, another)[at])
    assert (another[known & ~has_left] != delay[known & ~has_left]).all()
