from urllib.parse import unquote

import grpc
import pytest
from hpack import Decoder

from gateway.rpc.wire import status
from gateway.rpc.wire.status import CallFault


def read(block: bytes) -> dict[str, str]:
    return dict(Decoder().decode(block))


def test_the_numbers_are_grpcs() -> None:
    assert {one.name: one.value[0] for one in grpc.StatusCode} == {name: n for n, name in enumerate(status.CODES)}


@pytest.mark.parametrize("message", ["plain", "50 % of ä, 'quoted' ~", "two\nlines\r\0", "漢字", ""])
def test_a_message_survives_its_quoting(message: str) -> None:
    fields = read(status.trailers(CallFault("INTERNAL", message)))
    quoted = fields.get("grpc-message", "")
    assert unquote(quoted) == message
    assert all(" " <= character <= "~" for character in quoted)


def test_a_refusal_is_one_section_with_all_that_a_caller_needs() -> None:
    fields = read(status.refusal(CallFault("NOT_FOUND", "no", metadata=(("x-code", "c"), ("Blob-Bin", b"\0\xff")))))
    assert fields == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "no",
        "x-code": "c",
        "blob-bin": "AP8",
    }


def test_what_is_no_grpc_is_told_in_http() -> None:
    assert read(status.refusal(CallFault("INTERNAL", "no", 415)))[":status"] == "415"


def test_an_unknown_encoding_is_told_which_are_known() -> None:
    assert read(status.refusal(CallFault("UNIMPLEMENTED", "no")))["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_metadata_never_breaks_a_field_section() -> None:
    assert status.write_metadata([("x-a", " tab\tnew\nline ü ")]) == [(b"x-a", b"tab?new?line ?")]
