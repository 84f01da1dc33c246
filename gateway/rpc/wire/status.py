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

    def __init__(self, code: str, message: str, http_status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status


OPENING: Final = STATUS_200 + write_fields([(b"content-type", b"application/grpc")])
"""How every answer that carries messages begins."""
OK_TRAILERS: Final = write_fields([(b"grpc-status", b"0")])


def trailers(code: str, message: str = "", metadata: Metadata = ()) -> bytes:
    """The field section that ends a call."""
    return write_fields(_ending(code, message, metadata))


def refusal(code: str, message: str, metadata: Metadata = (), http_status: int = 200) -> bytes:
    """Trailers only: an answer without any message. Says also which encodings are taken, where an encoding was the trouble."""
    start = OPENING
    if http_status != 200:
        start = write_fields([(b":status", b"%d" % http_status), (b"content-type", b"application/grpc")])
    elif code == "UNIMPLEMENTED":
        start += write_fields([(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)])
    return start + write_fields(_ending(code, message, metadata))


def write_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Keys in lower case; values of keys that end in `-bin` in base64 (without padding), others as printable ASCII."""
    pairs = []
    for key, value in metadata:
        if key.endswith("-bin"):
            text = b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
        else:
            text = (value if isinstance(value, str) else value.decode("latin-1")).encode("ascii", "replace")
            text = bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in text).strip()
        pairs.append((key.lower().encode("ascii", "replace"), text))
    return pairs


def _ending(code: str, message: str, metadata: Metadata) -> list[tuple[bytes, bytes]]:
    pairs = [(b"grpc-status", _NUMBERS[code])]
    if message:
        pairs.append((b"grpc-message", quote(message[:_MESSAGE_BYTES_MAX], safe=_UNQUOTED).encode()))
    return pairs + write_metadata(metadata)
