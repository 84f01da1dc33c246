import pytest

from gateway.shadow.chain import HOPS_MAX, onward

A, B, C = (digit * 16 for digit in "abc")


def test_a_callers_own_row_names_who_sends_it_first() -> None:
    assert onward(None, A) == A


def test_every_gateway_on_the_way_adds_itself() -> None:
    assert onward(A, B) == f"{A},{B}"
    assert onward(f"{A}, {B}", C) == f"{A},{B},{C}"  # as a proxy may have joined two fields


def test_a_row_that_has_been_here_goes_no_further() -> None:
    assert onward(A, A) is None
    assert onward(f"{A},{B}", A) is None


def test_a_row_ends_after_so_many_gateways_even_if_each_is_new() -> None:
    chain, hops = None, 0
    while (chain := onward(chain, f"{hops:016x}")) is not None:
        hops += 1
    assert hops == HOPS_MAX


@pytest.mark.parametrize("chain", ["", "1", "x" * 16, f"{A},", f"{A}\r\nX-Other: 1", f"{A} {B}", A.upper()])
def test_a_chain_that_nobody_can_read_goes_no_further(chain: str) -> None:
    assert onward(chain, C) is None
