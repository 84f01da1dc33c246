"""Room 8: what waits for a model, and one run of it for several requests. Who may share it, and what becomes of it when it fails."""

from collections import deque
from collections.abc import Callable

from gateway.ticket import Batch, Ticket
from models.batching import gather
from models.errors import InputInvalid, ModelFailed


class Queue(deque[Ticket]):
    """What waits for one model, in the order in which it runs; `rows` are those of all of it."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0


def run(batch: Batch, clock_ns: Callable[[], int]) -> list[Batch]:
    """Runs a batch, on the loop or on a thread. A batch that fails is halved until the poisoned request stands alone.

    Never raises: what the model did wrong is in `Batch.error`.
    """
    model, tickets = batch.model, batch.tickets
    specs = model.staged.signature.inputs
    batch.started_ns = clock_ns()
    try:
        select = tickets[0].answered.select
        places = range(len(specs)) if select is None else select
        batch.inputs = [
            gather([ticket.inputs[place] for ticket in tickets], spec)
            for place, spec in zip(places, specs, strict=True)
        ]
        batch.outputs = model.run(batch.inputs, batch.stop)
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and it must not reach the loop or batch mates
        batch.finished_ns = clock_ns()
        if len(tickets) > 1 and not (batch.stop is not None and batch.stop.is_asked):
            return [done for half in _halves(batch) for done in run(half, clock_ns)]
        batch.error = (
            error if isinstance(error, (InputInvalid, ModelFailed)) else ModelFailed("the model failed on this input")
        )
        return [batch]
    batch.finished_ns = clock_ns()
    model.observe(batch.rows, (batch.finished_ns - batch.started_ns) / 1e9)
    return [batch]


def fits(first: Ticket, other: Ticket) -> bool:
    """Whether two tickets of one model can share a run: the same selection of inputs, and equal inner dimensions where those are free."""
    if first.answered.select != other.answered.select:
        return False
    if first.is_flat and other.is_flat:
        return True
    if not first.answered.model.staged.signature.is_batched:
        return False
    return all(
        isinstance(a, list) or isinstance(b, list) or a.shape[1:] == b.shape[1:]
        for a, b in zip(first.inputs, other.inputs, strict=True)
    )


def by_endpoint(tickets: list[Ticket]) -> list[list[Ticket]]:
    """Cuts a batch's tickets by endpoint; nearly always there is one."""
    if not tickets:
        return []
    first = tickets[0].endpoint
    for ticket in tickets:
        if ticket.endpoint is not first:
            break
    else:
        return [tickets]
    groups: dict[int, list[Ticket]] = {}
    for ticket in tickets:
        groups.setdefault(id(ticket.endpoint), []).append(ticket)
    return list(groups.values())


def insert_by_priority(queue: deque[Ticket], ticket: Ticket) -> None:
    """Before the first ticket that is less urgent; 1 is highest, 0 (default) stands behind every explicit level."""
    rank = ticket.priority
    if not rank:
        queue.append(ticket)
        return
    for place, other in enumerate(queue):
        if other.priority == 0 or other.priority > rank:
            queue.insert(place, ticket)
            return
    queue.append(ticket)


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch.tickets) // 2
    halves = [
        Batch(batch.model, tickets, sum(ticket.rows for ticket in tickets))
        for tickets in (batch.tickets[:middle], batch.tickets[middle:])
    ]
    for half in halves:
        half.stop = batch.stop
    return halves
