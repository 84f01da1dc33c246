"""One connection without a socket: any bytes at all, and what is left of them afterwards."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.rpc.wire.reply import Pieces
from gateway.settings import Limits
from gateway.ticket import Ticket
from tests.kit import http2
from tests.kit.grpc_wire import SESSION, START, Caller, WireDoor, fields, framed, infer
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

LIMITS = Limits(body_bytes_binary_max=100_000, body_bytes_json_max=50_000, header_bytes_max=4096)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[WireDoor]:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)})
    yield WireDoor(plane, LIMITS)
    plane.close()


async def test_a_session_is_answered_call_by_call(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START)
    for part in SESSION:
        caller.say(part)
    for stream in (1, 3, 5, 7, 9, 11):
        await caller.ended(stream)
    status = {number: dict(answer.fields[-1])["grpc-status"] for number, answer in caller.answers.items()}
    assert status == {1: "0", 3: "0", 5: "0", 7: "0", 9: "13", 11: "0"}
    assert len(caller.messages(7)) == 2
    assert not caller.open_streams
    caller.leave()


def _mutate(sent: bytearray, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(sent) - 1))
    match data.draw(st.integers(0, 3)):
        case 0:
            sent[place] ^= 1 << data.draw(st.integers(0, 7))
        case 1:
            del sent[place : place + data.draw(st.integers(1, 20))]
        case 2:
            sent[place:place] = data.draw(st.binary(max_size=12))
        case _:
            settings_ = [http2.settings((4, 0)), http2.settings((4, 70_000))]
            sent[place:place] = data.draw(st.sampled_from([http2.rst_stream(3), http2.window_update(7, 9), *settings_]))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_is_received_nothing_is_raised_and_nothing_is_left(
    door: WireDoor, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    caplog.set_level(logging.ERROR)
    sent = bytearray(b"".join(data.draw(st.permutations(SESSION))))
    for _ in range(data.draw(st.integers(0, 8))):
        _mutate(sent, data)
    steps = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=20))
    caller = door.connect()
    caller.say(START)
    at = turn = 0
    while at < len(sent) and not caller.transport.is_closed:
        step = steps[turn % len(steps)]
        caller.say(bytes(sent[at : at + step]))
        at, turn = at + step, turn + 1
        if step % 2:
            await asyncio.sleep(0)
        assert door.shared.held_bytes <= 500_000
    await door.settle()
    caller.sweep(31.0)
    caller.sweep(200.0)
    caller.leave()
    await door.settle(is_over=True)
    assert caller.frames
    assert [record.message for record in caplog.records if record.name.startswith("gateway.rpc.wire")] == []
    assert (door.shared.held_bytes, door.shared.unsent.bytes) == (0, 0)
    assert (door.plane.data.inflight, caller.lingering) == (0, 0)
    assert not door.shared.connections


async def test_a_hot_call_leaves_nothing_to_the_collector(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.call(1, infer(), fields("ModelInfer")))
    await door.settle()
    gc.collect()
    gc.disable()
    try:
        for stream in range(3, 203, 2):
            caller.say(http2.call(stream, infer(), fields("ModelInfer")))
            await asyncio.sleep(0)
        assert not door.plane.data.inflight
        assert gc.collect() < 10
    finally:
        gc.enable()
    caller.leave()


async def test_only_so_many_handlers_run_at_once_in_a_process(door: WireDoor) -> None:
    door.shared.limits = Limits(inflight_max=2)
    caller = door.connect()
    caller.say(START, *(http2.headers(stream, fields=fields("ModelStreamInfer")) for stream in (1, 3, 5)))
    assert caller.status(5)["grpc-status"] == "8"
    assert len(door.shared.tasks) == 2
    caller.leave()
    await door.settle(is_over=True)


async def test_calls_that_were_cancelled_keep_their_place_until_they_are_over(door: WireDoor) -> None:
    """Rapid reset with work behind it: what still runs counts, also when its stream is gone."""
    door.shared.bounds = type(door.shared.bounds)(streams_max=4)
    caller = door.connect()
    caller.say(START, *(http2.call(n, infer(), fields("ModelInfer")) + http2.rst_stream(n) for n in range(1, 20, 2)))
    assert caller.lingering == 4
    assert [answer.reset for answer in caller.answers.values()] == [7] * 6
    await door.settle()
    assert caller.lingering == 0
    caller.leave()


async def test_a_reader_that_does_not_keep_up_is_neither_read_nor_sent_more_data(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.call(1, infer(), fields("ModelInfer")))
    caller.protocol.pause_writing()
    assert caller.transport.is_paused
    await door.settle()
    assert not caller.answers[1].body
    caller.protocol.resume_writing()
    assert not caller.transport.is_paused
    assert caller.answers[1].is_ended
    assert len(caller.messages(1)) == 1
    caller.leave()


async def test_a_connection_that_does_not_close_is_cut(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(b"GET / HTTP/1.1\r\n\r\n")
    assert caller.transport.is_closed
    now_s = time.monotonic()
    caller.protocol.sweep(now_s + 9.0)
    assert not caller.transport.is_aborted
    caller.protocol.sweep(now_s + 11.0)
    assert caller.transport.is_aborted
    caller.leave()


async def test_too_many_half_messages_in_the_process_are_refused(door: WireDoor) -> None:
    door.shared.held_bytes_max = 5000
    caller = door.connect()
    half = [
        http2.headers(n, fields=fields("ModelInfer")) + http2.frame(http2.DATA, 0, n, infer(400)[:2000])
        for n in (1, 3, 5)
    ]
    caller.say(START, *half)
    assert caller.status(5)["grpc-status"] == "8"
    assert door.shared.held_bytes < 5000
    caller.leave()
    assert door.shared.held_bytes == 0


async def test_while_too_many_answers_are_not_taken_no_more_calls_are(door: WireDoor) -> None:
    door.shared.unsent_bytes_max = 10_000
    slow, other = door.connect(), door.connect()
    calls = [http2.call(n, infer(400), fields("ModelInfer")) for n in (1, 3)]
    slow.say(START, http2.settings((4, 0)), *calls)
    await door.settle()
    assert door.shared.unsent.bytes > 10_000
    other.say(START, http2.call(1, infer(), fields("ModelInfer")))
    assert other.status(1)["grpc-status"] == "8"
    slow.say(http2.window_update(1, 100_000))
    other.say(http2.call(3, infer(), fields("ModelInfer")))
    await door.settle()
    assert other.status(3)["grpc-status"] == "0"
    for caller in (slow, other):
        caller.leave()
    assert door.shared.unsent.bytes == 0


async def test_a_body_that_came_too_slowly_is_refused_and_forgotten(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.headers(1, fields=fields("ModelInfer")), http2.frame(http2.DATA, 0, 1, infer(400)[:2000]))
    caller.say(http2.headers(3, fields=fields("ModelInfer")))
    caller.sweep(29.0)
    assert not caller.answers
    caller.sweep(31.0)
    assert [caller.status(stream)["grpc-status"] for stream in (1, 3)] == ["4", "4"]
    assert door.shared.held_bytes == 0
    caller.leave()


async def test_an_answer_that_is_not_taken_is_dropped(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.settings((4, 10)), http2.call(1, infer(), fields("ModelInfer")))
    await door.settle()
    assert caller.open_streams
    caller.sweep(31.0)
    assert caller.answers[1].reset == 8
    assert not caller.open_streams
    caller.leave()


async def test_our_own_mistake_ends_one_connection_and_is_logged(
    door: WireDoor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = door.connect()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(caller.protocol, "requested", broken)
    caller.say(START, http2.headers(1, fields=fields("ModelInfer")))
    (goaway,) = [one for one in caller.frames if one.kind == http2.GOAWAY]
    assert http2.code_of(goaway) == 2
    assert caller.transport.is_closed
    assert "connection_failed" in caplog.text
    caller.leave()


async def test_floods_are_counted_by_what_they_were(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.frame(http2.PING, payload=bytes(8)) * 2000)
    assert caller.transport.is_closed
    totals = door.plane.totals()
    assert totals.value("runoff_refused_total", endpoint="", reason="http2_enhance_your_calm") == 1
    caller.leave()


REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


async def unheard(door: WireDoor) -> Caller:
    """A caller whose stream 1 is answered to its end, which waits for a window, while its request goes on."""
    caller = door.connect()
    asked = framed(b"\x3a\x00")  # list_services
    head = http2.headers(1, fields=fields(REFLECTION, ("grpc-timeout", "50m")))
    caller.say(START, http2.settings((4, 0)), head, http2.frame(http2.DATA, 0, 1, asked))
    async with asyncio.timeout(30):
        while door.shared.tasks:  # noqa: ASYNC110 - the deadline is what is waited for
            await asyncio.sleep(0.01)
    assert caller.open_streams == 1
    return caller


@pytest.mark.parametrize("flags", [0, http2.END_STREAM])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_is_said_to_a_call_that_is_answered_already_is_not_kept(
    door: WireDoor, *, flags: int, is_whole: bool
) -> None:
    caller = await unheard(door)
    message = framed(bytes(5000))
    caller.say(http2.frame(http2.DATA, flags, 1, message if is_whole else message[:-1]))
    assert (door.shared.held_bytes, len(door.shared.tasks)) == (0, 0)
    caller.say(http2.window_update(1, 100_000))
    assert caller.status(1)["grpc-status"] == "4"
    assert not caller.open_streams
    caller.leave()
    assert door.shared.held_bytes == 0


async def test_what_is_said_to_a_call_that_was_refused_behind_its_answers_is_not_kept(door: WireDoor) -> None:
    caller = door.connect()
    caller.say(START, http2.settings((4, 0)), http2.headers(1, fields=fields("ModelStreamInfer")))
    caller.say(http2.frame(http2.DATA, 0, 1, infer()))
    async with asyncio.timeout(30):
        while not door.shared.unsent.bytes:  # noqa: ASYNC110 - turns are what is waited for
            await asyncio.sleep(0)
    caller.say(http2.frame(http2.DATA, 0, 1, b"\x07"), http2.frame(http2.DATA, 0, 1, bytes(4)))  # no such flag
    caller.say(http2.frame(http2.DATA, 0, 1, infer(20)[:200]))
    assert door.shared.held_bytes == 0
    await door.settle(is_over=True)
    caller.say(http2.window_update(1, 100_000))
    assert caller.status(1)["grpc-status"] == "13"
    assert not caller.open_streams
    caller.leave()


async def test_an_answer_whose_end_is_not_taken_is_dropped_while_its_request_goes_on(door: WireDoor) -> None:
    caller = await unheard(door)
    before = len(caller.frames)
    caller.sweep(31.0)
    assert [(one.kind, http2.code_of(one)) for one in caller.frames[before:]] == [(http2.RST_STREAM, 8)]
    assert not caller.open_streams
    caller.leave()


async def test_an_answer_that_moves_behind_the_window_of_the_connection_is_not_dropped(door: WireDoor) -> None:
    """A steady download: each time the connection's window takes a part of it and is closed again."""
    caller = door.connect()
    caller.say(START, http2.settings((4, 1 << 20)), http2.call(1, infer(8000), fields("ModelInfer")))
    await door.settle()
    waited_s = 0.0
    while door.shared.unsent.bytes:
        caller.sweep(25.0)
        waited_s += 25.0
        assert caller.answers[1].reset is None
        caller.protocol._http.receive(http2.window_update(0, 10_000), caller.protocol._http.now_s)
        caller.protocol.flush()
    assert waited_s > 100.0
    assert caller.answers[1].is_ended
    caller.leave()


async def test_an_answer_that_cannot_be_written_is_internal_and_costs_nobody_else_theirs(
    door: WireDoor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = door.connect()
    written = door.shared.replies.pieces

    def pieces(ticket: Ticket, wanted: tuple[str, ...] | None, wire_id: str | None) -> Pieces:
        if wire_id == "bad":
            raise ZeroDivisionError("secret")
        return written(ticket, wanted, wire_id)

    monkeypatch.setattr(door.shared.replies, "pieces", pieces)
    caller.say(START, *(http2.call(n, infer(id=i), fields("ModelInfer")) for n, i in ((1, "bad"), (3, "good"))))
    await door.settle()
    status = caller.status(1)
    assert (status["grpc-status"], caller.status(3)["grpc-status"]) == ("13", "0")
    assert "secret" not in status["grpc-message"]
    assert status["x-prediction-id"]
    assert "secret" in caplog.text
    assert not caller.open_streams
    caller.leave()
