"""What goes over the socket to the features process and back: MessagePack messages, each behind its length."""

from typing import Any, Final

import msgspec

FRAME_BYTES_MAX: Final = 16 << 20
_LENGTH_BYTES: Final = 4
SOCKET: Final = "features.sock"
"""Below `run/` of the state directory, which nobody else may enter."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Values of a service for some rows: `keys` has one value a row for each join key. Not read after `deadline_ns` (monotonic)."""

    id: int
    service: str
    keys: dict[str, list[Any]]
    deadline_ns: int


class Describe(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """What a service consists of, as its registry has it now. It is also made ready to be asked."""

    id: int
    service: str


class FoundColumn(msgspec.Struct, frozen=True, array_like=True):
    """One feature, row by row: values (None: the store has none), and when each was true (Unix seconds; 0: nobody knows)."""

    values: list[Any]
    times_unix_s: list[float]


class Found(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """The answer to `Ask`: every feature of the service by its full name, `view__feature`."""

    id: int
    columns: dict[str, FoundColumn]


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A join key. `datatype` is None where the wire has none for it; `kind` is Feast's name of its type."""

    name: str
    datatype: str | None
    kind: str


class Feature(msgspec.Struct, frozen=True, array_like=True):
    """A feature of a service. `name` stands alone where no other view of the service has it; `full` is `view__feature`.

    `datatype` is None where no input can have its type; `is_list`: an input has several values a row.
    """

    name: str
    full: str
    view: str
    datatype: str | None
    is_list: bool
    kind: str
    is_online: bool = True


class Described(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """The answer to `Describe`. `requested`: what on-demand views want of a request beside join keys, which nobody gives them here."""

    id: int
    keys: tuple[Key, ...]
    features: tuple[Feature, ...]
    requested: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """No answer. `code`: `unknown` (no such service; the message has those that there are), `unavailable`, `overloaded`."""

    id: int
    code: str
    message: str


Asked = Ask | Describe
Answered = Found | Described | Failed

_encode: Final = msgspec.msgpack.Encoder().encode
read_asked: Final = msgspec.msgpack.Decoder(Asked).decode
read_answered: Final = msgspec.msgpack.Decoder(Answered).decode


class FrameInvalid(Exception):
    """The other side sent what is no frame."""


def framed(message: Asked | Answered) -> bytes:
    """The message behind its length. Raises UnicodeEncodeError for text that is no Unicode, ValueError for what is too large."""
    payload = _encode(message)
    if len(payload) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(payload)} bytes, at most {FRAME_BYTES_MAX}")
    return len(payload).to_bytes(_LENGTH_BYTES, "little") + payload


class Cutter:
    """Cuts a stream into payloads."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def cut(self, data: bytes) -> list[bytes]:
        """The payloads that are whole by now. Raises FrameInvalid for a length beyond the bound."""
        rest = self._rest
        rest += data
        payloads, at = [], 0
        while len(rest) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            length = int.from_bytes(rest[at:start], "little")
            if length > FRAME_BYTES_MAX:
                raise FrameInvalid(f"a frame of {length} bytes, at most {FRAME_BYTES_MAX}")
            if len(rest) < start + length:
                break
            payloads.append(bytes(rest[start : start + length]))
            at = start + length
        del rest[:at]
        return payloads
