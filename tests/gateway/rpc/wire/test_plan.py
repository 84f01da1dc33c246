import pytest

from gateway.errors import RequestMalformed
from gateway.rpc.wire.headers import Head
from gateway.rpc.wire.plan import INFER, Plan, peer_of
from gateway.rpc.wire.status import CallFault

BASE = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": INFER.encode(),
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}


def plan(*more: tuple[bytes, bytes], **changed: bytes) -> Plan:
    fields = {**BASE, **{b":" + name.encode(): value for name, value in changed.items()}}
    return Plan(Head([*fields.items(), *more]), "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600.0), (b"2M", 120.0), (b"99999999S", 99999999.0), (b"5m", 0.005), (b"7u", 7e-6), (b"0n", 0.0)],
)
def test_timeouts_have_units(text: bytes, seconds: float) -> None:
    assert plan((b"grpc-timeout", text)).timeout_s == seconds


@pytest.mark.parametrize("text", [b"", b"5", b"m", b"-5m", b"5 m", b"123456789m", b"5x", b"1.5S", "５S".encode()])
def test_other_timeouts_are_refused(text: bytes) -> None:
    with pytest.raises(CallFault, match="grpc-timeout"):
        plan((b"grpc-timeout", text))


@pytest.mark.parametrize("text", [b"application/grpc", b"application/grpc+proto", b"Application/gRPC; charset=utf-8"])
def test_grpc_in_its_forms_is_taken(text: bytes) -> None:
    assert Plan(Head([*{**BASE, b"content-type": text}.items()]), None).is_infer


@pytest.mark.parametrize(
    "text", [b"application/json", b"application/grpc-web", b"application/grpc+json", b"", b"x application/grpc"]
)
def test_what_is_no_grpc_gets_415(text: bytes) -> None:
    with pytest.raises(CallFault) as caught:
        Plan(Head([*{**BASE, b"content-type": text}.items()]), None)
    assert caught.value.http_status == 415


def test_only_post_calls() -> None:
    with pytest.raises(CallFault) as caught:
        plan(method=b"GET")
    assert caught.value.http_status == 405


def test_encodings_that_nobody_here_knows_are_refused() -> None:
    assert plan((b"grpc-encoding", b"gzip")).encoding == "gzip"
    with pytest.raises(CallFault) as caught:
        plan((b"grpc-encoding", b"snappy"))
    assert caught.value.code == "UNIMPLEMENTED"


def test_handlers_see_metadata_and_not_the_transport() -> None:
    made = plan((b"x-a", b"1"), (b"x-a", b"2"), (b"b-bin", b"AP8"), (b"grpc-timeout", b"1S"), (b"user-agent", b"u"))
    assert made.metadata == [("x-a", "1"), ("x-a", "2"), ("b-bin", b"\0\xff"), ("user-agent", "u")]


@pytest.mark.parametrize(
    ("sent", "values"),
    [(b"AP8", [b"\0\xff"]), (b"AP8=", [b"\0\xff"]), (b"AP8,AQ==, Ag", [b"\0\xff", b"\1", b"\2"]), (b"", [b""])],
)
def test_binary_metadata_has_padding_or_none_and_several_values_behind_commas(sent: bytes, values: list[bytes]) -> None:
    assert plan((b"b-bin", sent)).metadata == [("b-bin", value) for value in values]


@pytest.mark.parametrize("text", [b"*", b"AP8,*", b"A"])
def test_base64_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(CallFault, match="base64"):
        plan((b"b-bin", text))


def test_the_fields_of_inference_are_read_as_over_rest() -> None:
    made = plan(
        (b"x-request-id", b"r-1"),
        (b"x-runoff-variant", b"v"),
        (b"x-runoff-timeout-ms", b"20"),
        (b"authorization", b"Bearer k"),
    )
    caller = made.caller
    assert caller is not None
    assert (caller.request_id, caller.variant, caller.timeout_s) == ("r-1", "v", 0.02)
    assert "authorization" not in caller.headers
    assert (made.visitor.credential, made.visitor.peer) == ("k", "127.0.0.1")
    with pytest.raises(RequestMalformed):
        plan((b"x-runoff-timeout-ms", b"soon"))


def test_a_request_id_that_does_not_fit_is_noted_as_dropped() -> None:
    assert plan((b"x-request-id", b"a b")).has_bad_request_id
    assert not plan((b"x-request-id", b"ab")).has_bad_request_id
    assert not plan().has_bad_request_id


def test_other_methods_are_not_read_as_inference() -> None:
    assert plan(path=b"/a/b").caller is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (("10.0.0.1", 80), ("10.0.0.1", "ipv4:10.0.0.1:80")),
        (("::1", 443, 0, 0), ("::1", "ipv6:%5B::1%5D:443")),
        ("", (None, "unix:")),
        (None, (None, "unix:")),
    ],
)
def test_a_peer_has_grpcs_name_and_an_address_where_it_has_one(name, wanted):
    assert peer_of(name) == wanted
