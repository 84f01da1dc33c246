"""Every error that may reach a caller has its one row in the wire table, and nothing unexpected tells what went wrong."""

import inspect

import pytest

from gateway import errors
from models import errors as models_errors
from routing import errors as routing_errors

ROOTS = {errors.GatewayError, models_errors.ModelsError, routing_errors.RoutingError}
NOT_ON_THE_WIRE = {routing_errors.RouteInvalid, routing_errors.SplitMismatch}
"""The admin API answers these itself, with all their problems."""


def all_errors() -> list[type[Exception]]:
    found = [
        kind
        for module in (errors, models_errors, routing_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    ]
    return [kind for kind in found if kind not in ROOTS | NOT_ON_THE_WIRE]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own(kind: type[Exception]) -> None:
    assert kind in errors._TABLE


def test_refusals_for_lack_of_room_say_when_to_come_back() -> None:
    wire = errors.translate(errors.Overloaded("full", "concurrency", 3))
    assert (wire.status, wire.reason, wire.retry_after_s) == (429, "concurrency", 3)
    wire = errors.translate(errors.NotReady("draining", "draining"))
    assert (wire.status, wire.reason, wire.retry_after_s) == (503, "draining", 1)


def test_what_nobody_expected_is_a_500_without_its_words() -> None:
    wire = errors.translate(KeyError("secret"))
    assert wire.status == 500
    assert "secret" not in wire.message
