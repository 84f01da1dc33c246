"""Reading goes on only when nothing stands against it, in whatever order the two pauses come and go."""

from itertools import product
from typing import Any

from gateway.rest.flow import Flow


class Transport:
    def __init__(self) -> None:
        self.is_reading = True
        self.is_closed = False
        self.unsent = 0

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_closed
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unsent


async def test_reading_goes_on_only_when_neither_was_paused() -> None:
    calls = ("pause_reading", "resume_reading", "pause_writing", "resume_writing")
    for order in product(calls, repeat=5):
        transport: Any = Transport()
        flow = Flow(transport)
        for call in order:
            getattr(flow, call)()
            assert transport.is_reading == (not flow.is_stopped), order


async def test_nothing_is_read_on_from_a_connection_that_ends() -> None:
    transport: Any = Transport()
    flow = Flow(transport)
    flow.pause_writing()
    transport.is_closed = True
    flow.resume_writing()
    assert not transport.is_reading


async def test_a_caller_is_stuck_from_when_the_last_byte_moved() -> None:
    transport: Any = Transport()
    flow = Flow(transport)
    stuck = []
    for now, unsent in enumerate((0, 0, 9, 9, 9, 8, 8, 0)):
        transport.unsent = unsent
        stuck.append(flow.stuck_s(now))
    assert stuck == [0, 0, 0, 1, 2, 0, 1, 0]
