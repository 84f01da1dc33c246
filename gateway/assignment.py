"""Room 5 at length: pins, rules, and units from anywhere. What is drawn by weight alone never comes here (`gateway.dataplane`)."""

from typing import Final

from gateway.live import Arm, LiveTable
from gateway.meter import Meter
from gateway.ticket import Ticket
from routing.errors import PinRefused
from routing.records import ASSIGNED_BY

_BY_PIN: Final = ASSIGNED_BY.index("pin")


def assign(ticket: Ticket, table: LiveTable, meter: Meter) -> Arm:
    """Writes into the ticket who answers it and why; the arm that answers. Raises what the caller may not ask for."""
    endpoint = ticket.endpoint
    assignment = endpoint.table.assign(
        ticket.headers,
        ticket.parameters,
        endpoint.columns(ticket.inputs, ticket.lookup),
        ticket.prediction_bytes,
        ticket.pin_variant,
    )
    ticket.arm = endpoint.arms[assignment.arm]
    ticket.assigned_by = assignment.assigned_by
    ticket.bucket = assignment.bucket
    ticket.propensity = assignment.propensity
    ticket.rule = assignment.rule
    ticket.unit = assignment.unit_key
    ticket.experiment = assignment.experiment
    if assignment.unit_missing:
        miss_unit(ticket, meter)
    if ticket.pin_version is not None:
        if not endpoint.route.allow_pin:
            raise PinRefused(endpoint.name, "a version")
        ticket.arm = table.arm_of_version(endpoint, ticket.pin_version)
        ticket.assigned_by, ticket.propensity, ticket.experiment = _BY_PIN, None, False
    ticket.answered = ticket.arm
    return ticket.arm


def miss_unit(ticket: Ticket, meter: Meter) -> None:
    """A request that should name its unit and does not: outside experiments, and counted."""
    ticket.unit_missing, ticket.experiment = True, False
    meter.count("runoff_units_missing_total", {"endpoint": ticket.endpoint.name})
