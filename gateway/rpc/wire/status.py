"""gRPC's answers as HTTP/2 field sections: the opening of a success, trailers, and refusals (gRPC over HTTP2, "Responses")."""

from base64 import b64encode
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from gateway.rpc.wire.headers import STATUS_200, write_fields

CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""Names of the status codes; the place is the number."""
ACCEPTED_ENCODINGS: Final = b"identity,deflate,gzip"
_NUMBERS: Final = {name: b"%d" % number for number, name in enumerate(CODES)}
_MESSAGE_BYTES_MAX: Final = 2048
_UNQUOTED: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

Metadata = Iterable[tuple[str, str | bytes]]


class CallFault(Exception):
    """What the transport of gRPC refuses, before any handler: a status code's name and words for the caller.

    `http_status` other than 200 is for what is no gRPC request at all.
    """

    def __init__(self, code: str, message: str, http_status: int = 200, metadata: Metadata = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status
        self.metadata = metadata


OPENING: Final = STATUS_200 + write_fields([(b"content-type", b"application/grpc")])
"""How every answer that carries messages begins."""
OK_TRAILERS: Final = write_fields([(b"grpc-status", b"0")])


def refusal(fault: CallFault) -> bytes:
    """Trailers only: an answer without any message. Says also which encodings are taken, where an encoding may be the trouble."""
    start = OPENING
    if fault.http_status != 200:
        start = write_fields([(b":status", b"%d" % fault.http_status), (b"content-type", b"application/grpc")])
    elif fault.code == "UNIMPLEMENTED":
        start += write_fields([(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)])
    return start + trailers(fault)


def write_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Keys in lower case; values of keys that end in `-bin` in base64 (without padding), others as printable ASCII."""
    pairs = []
    for name, value in metadata:
        key = name.lower()
        if key.endswith("-bin"):
            text = b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
        else:
            text = (value if isinstance(value, str) else value.decode("latin-1")).encode("ascii", "replace")
            text = bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in text).strip()
        pairs.append((key.encode("ascii", "replace"), text))
    return pairs


def trailers(end: CallFault) -> bytes:
    """The field section that ends a call; with the code OK it is no fault."""
    pairs = [(b"grpc-status", _NUMBERS[end.code])]
    if end.message:
        pairs.append((b"grpc-message", quote(end.message[:_MESSAGE_BYTES_MAX], safe=_UNQUOTED).encode()))
    return write_fields(pairs + write_metadata(end.metadata))
