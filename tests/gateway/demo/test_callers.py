import struct

import pytest

from gateway.demo import callers
from gateway.demo.callers import GrpcCaller, LabelPoster, MlflowCaller, V2Caller
from gateway.demo.flights import INPUTS

VALUES = ("UA", "EWR", "IAH", 315, 1, 0, 1400.0, *(float("nan") for _ in INPUTS[7:]))


def test_strings_travel_with_their_length_and_numbers_little_endian() -> None:
    assert callers._raw("UA", "BYTES") == b"\x02\x00\x00\x00UA"
    assert callers._raw(315, "INT64") == struct.pack("<q", 315)
    assert callers._raw(1.5, "FP64") == struct.pack("<d", 1.5)


def test_nan_is_null_in_json() -> None:
    assert callers._null_for_nan(float("nan")) is None
    assert callers._null_for_nan("NaN") == "NaN"
    assert callers._null_for_nan(0) == 0


@pytest.mark.parametrize("kind", [V2Caller, MlflowCaller])
async def test_nobody_listening_is_an_answer_and_no_exception(kind: type[V2Caller] | type[MlflowCaller]) -> None:
    caller = kind("http://127.0.0.1:9", 1)
    answer = await caller.ask(VALUES, "N1/2013-07-01", "UA1.EWR.20130701T0900Z")
    await caller.close()
    assert (answer.status, answer.label) == (0, -1)
    assert "no connection" in answer.problem


async def test_nobody_listening_is_an_answer_over_grpc_too() -> None:
    caller = GrpcCaller("127.0.0.1:9")
    answer = await caller.ask(VALUES, "", "UA1.EWR.20130701T0900Z")
    await caller.close()
    assert answer.status == -14, "UNAVAILABLE"


async def test_labels_that_nobody_takes_count_as_none() -> None:
    poster = LabelPoster("http://127.0.0.1:9")
    assert await poster.post([("p", 1)]) == 0
    await poster.close()
