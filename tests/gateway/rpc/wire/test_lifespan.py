from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.frames import Code
from gateway.rpc.wire.lifespan import Lifespan
from gateway.rpc.wire.outflow import Ledger, Outflow
from tests.kit import http2


def life(**bounds: float) -> tuple[Lifespan, Outflow]:
    out = Outflow(Ledger())
    made = Lifespan(Bounds(**bounds), out, 100.0)  # type: ignore[arg-type]
    made.has_acknowledged = True
    return made, out


def code(made: Lifespan, now_s: float, *, is_idle: bool = False) -> Code | None:
    fault = made.trouble(now_s, is_idle=is_idle)
    return None if fault is None else fault.code


def test_a_sign_of_life_is_asked_for_once_and_any_is_good_enough() -> None:
    made, out = life(alive_s=60.0)
    assert [code(made, now) for now in (159.0, 161.0, 170.0)] == [None] * 3
    assert [one.kind for one in http2.read(b"".join(out.ready))] == [http2.PING]
    made.heard_s = 171.0
    assert [code(made, now) for now in (180.0, 232.0)] == [None, None]
    assert len(out.ready) == 2
    assert code(made, 252.0) is Code.NO_ERROR


def test_idleness_counts_from_the_end_of_the_last_stream() -> None:
    made, _ = life(idle_s=75.0)
    made.idle_since_s = 150.0
    assert (code(made, 224.0, is_idle=True), code(made, 226.0, is_idle=True)) == (None, Code.NO_ERROR)


def test_settings_are_to_be_acknowledged_whatever_else_happens() -> None:
    made, _ = life(settings_s=20.0)
    made.has_acknowledged = False
    made.heard_s = 121.0
    assert (code(made, 119.0), code(made, 121.0)) == (None, Code.SETTINGS_TIMEOUT)


def test_leave_is_taken_in_two_steps_each_once() -> None:
    made, out = life()
    for _ in range(2):
        made.drain(100.0)
    assert not made.has_drained(b"12345678")
    assert made.has_drained(b"draining")
    assert (made.is_announcement_due(100.9), made.is_announcement_due(101.1), made.is_done()) == (False, True, False)
    for last_id in (7, 9):
        made.announce_last(last_id)
    assert made.is_done()
    assert made.final_id == 7
    assert [one.kind for one in http2.read(b"".join(out.ready))] == [http2.GOAWAY, http2.PING, http2.GOAWAY]
