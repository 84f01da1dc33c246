"""What gRPC reads in the head of a request, once for all requests that repeat the head (gRPC over HTTP2, "Requests")."""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from typing import Any, Final
from urllib.parse import quote

from gateway.keys.doorkeeper import Visitor, credential_of
from gateway.rest.headers import Caller, read_headers
from gateway.rpc.wire.headers import Head
from gateway.rpc.wire.messages import ENCODINGS
from gateway.rpc.wire.status import CallFault

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?", re.IGNORECASE)
_OF_TRANSPORT: Final = frozenset({b"te", b"content-type", b"content-length", b"host"})

MetadataPair = tuple[str, str | bytes]


class Plan:
    """A valid head. `timeout_s` is grpc-timeout, None without one; `metadata` is what handlers see.

    `caller` holds the fields that inference reads; reading them may itself be refused, which is left to the call.
    """

    __slots__ = ("caller", "encoding", "has_bad_request_id", "is_infer", "metadata", "path", "timeout_s", "visitor")

    def __init__(self, head: Head, peer: str | None) -> None:
        """Raises CallFault."""
        self.path = head.path.decode("latin-1")
        self.is_infer = self.path == INFER
        self.encoding = "identity"
        self.timeout_s: float | None = None
        self.metadata: list[MetadataPair] = []
        content_type = None
        for name, value in head.fields:
            if name == b"content-type":
                content_type = value
            elif name == b"grpc-timeout":
                self.timeout_s = _timeout_s(value)
            elif name == b"grpc-encoding":
                self.encoding = value.decode("latin-1")
            elif name[:1] != b":" and name not in _OF_TRANSPORT and not name.startswith(b"grpc-"):
                self.metadata += _pairs(name, value)
        if head.method != b"POST":
            raise CallFault("INTERNAL", "gRPC calls are POST", 405)
        if content_type is None or _CONTENT_TYPE.fullmatch(content_type) is None:
            raise CallFault("INTERNAL", "content-type: wanted application/grpc", 415)
        if head.is_oversized:
            raise CallFault("RESOURCE_EXHAUSTED", "the metadata of this call is larger than this server takes")
        if self.encoding not in ENCODINGS:
            raise CallFault("UNIMPLEMENTED", f"grpc-encoding '{self.encoding[:32]}' is not taken here")
        texts = [(name, value) for name, value in self.metadata if isinstance(value, str)]
        shown = dict(texts)
        self.visitor = Visitor(credential=credential_of(shown.get("authorization"), shown.get("x-api-key")), peer=peer)
        self.caller: Caller | None = read_headers(texts) if self.is_infer else None
        self.has_bad_request_id = self.caller is not None and self.caller.request_id is None and "x-request-id" in shown


def _timeout_s(value: bytes) -> float:
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise CallFault("INVALID_ARGUMENT", "grpc-timeout: wanted up to eight digits and one of H, M, S, m, u, n")
    return int(found[1]) * _UNITS_S[found[2]]


def _pairs(name: bytes, value: bytes) -> list[MetadataPair]:
    """A field as metadata. What is binary comes in base64, with or without padding, several values perhaps behind commas."""
    key = name.decode("latin-1")
    if not key.endswith("-bin"):
        return [(key, value.decode("latin-1"))]
    try:
        texts = [text.strip() for text in value.split(b",")]
        return [(key, b64decode(text + b"=" * (-len(text) % 4), validate=True)) for text in texts]
    except BadBase64:
        raise CallFault("INTERNAL", f"metadata '{key[:64]}': wanted base64") from None


def peer_of(name: Any) -> tuple[str | None, str]:
    """The address of the caller, and gRPC's name of it; no address for a Unix socket."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None, "unix:"
    host, port = str(name[0]), int(name[1])
    if ":" in host:
        return host, f"ipv6:{quote(f'[{host}]', safe=':')}:{port}"
    return host, f"ipv4:{host}:{port}"
