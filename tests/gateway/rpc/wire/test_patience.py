import pytest

from gateway.rpc.wire import patience
from gateway.rpc.wire.frames import Code, ConnectionFault
from gateway.rpc.wire.patience import POINTS_A_SECOND, POINTS_MAX, Patience


def test_the_purse_is_empty_after_its_points_and_says_why() -> None:
    purse = Patience(0.0)
    for _ in range(POINTS_MAX // patience.RESET):
        purse.charge(patience.RESET, 0.0, "RST_STREAM frames")
    with pytest.raises(ConnectionFault) as caught:
        purse.charge(patience.RESET, 0.0, "RST_STREAM frames")
    assert (caught.value.code, caught.value.reason) == (Code.ENHANCE_YOUR_CALM, "RST_STREAM frames")


def test_time_refills_it_up_to_its_size() -> None:
    purse = Patience(0.0)
    purse.charge(POINTS_MAX, 0.0, "")
    purse.charge(POINTS_A_SECOND, 1.0, "")
    purse.charge(POINTS_MAX, 1e6, "")
    with pytest.raises(ConnectionFault):
        purse.charge(POINTS_MAX, 1e6, "")


def test_work_pays_for_what_comes_with_it() -> None:
    purse = Patience(0.0)
    for _ in range(POINTS_MAX):
        purse.charge(patience.RESET + patience.SMALL, 0.0, "")
        purse.refund(patience.ANSWERED)
    assert purse.left <= POINTS_MAX + patience.ANSWERED
