"""The body of a call cut into messages: five bytes of prefix, then the message (gRPC over HTTP2, "Length-Prefixed-Message")."""

import zlib
from typing import Final

from gateway.rpc.wire.status import CallFault

PREFIX_BYTES: Final = 5
_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS: Final = frozenset({"identity", *_WINDOW_BITS})
_ALIGNMENT: Final = 16

Message = bytes | memoryview


class MessageCutter:
    """Gathers messages out of the pieces in which they come. Memory follows what has come, not what a prefix promises.

    A message in several pieces ends at a multiple of 16 in its buffer, so that a tensor at its end, which is where protobuf puts
    raw contents, can be read in place.
    """

    __slots__ = (
        "_bytes_max",
        "_encoding",
        "_inflated_bytes_max",
        "_is_compressed",
        "_left",
        "_message",
        "_pad",
        "_prefix",
        "half_bytes",
    )

    def __init__(self, bytes_max: int, inflated_bytes_max: int, encoding: str) -> None:
        """`inflated_bytes_max` bounds compressed messages before and after: inflating one holds the event loop (some 4 ms a MiB)."""
        self._bytes_max = bytes_max
        self._inflated_bytes_max = min(inflated_bytes_max, bytes_max)
        self._encoding = encoding
        self._prefix = bytearray()
        self._message: bytearray | None = None
        self._pad = self._left = 0
        self._is_compressed = False
        self.half_bytes = 0
        """What is here of a message that is not all here."""

    @property
    def missing_bytes(self) -> int:
        """What is still to come of the message that is half here."""
        return self._left if self._message is not None else 0

    @property
    def is_between(self) -> bool:
        """Whether no message is half here."""
        return self._message is None and not self._prefix

    def cut(self, data: bytes, start: int, stop: int) -> list[Message]:
        """The messages that `data[start:stop]` completes. Raises CallFault."""
        done: list[Message] = []
        while start < stop:
            message = self._message
            if message is None:
                taken = min(PREFIX_BYTES - len(self._prefix), stop - start)
                self._prefix += data[start : start + taken]
                start += taken
                if len(self._prefix) < PREFIX_BYTES:
                    break
                length = self._begin()
                if length <= stop - start:
                    done.append(self._plain(data[start : start + length]))
                    start += length
                    continue
                self._left = length
                self._pad = -length % _ALIGNMENT
                message = self._message = bytearray(self._pad)
            taken = min(self._left, stop - start)
            message += memoryview(data)[start : start + taken]
            start += taken
            self._left -= taken
            self.half_bytes += taken
            if not self._left:
                self._message = None
                self.half_bytes = 0
                done.append(self._plain(memoryview(message)[self._pad :]))
        return done

    def _begin(self) -> int:
        """Reads a complete prefix: the length of the message that follows."""
        flag, length = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
        self._prefix.clear()
        if flag > 1:
            raise CallFault("INTERNAL", "the compressed flag of a message is 0 or 1")
        if flag and self._encoding == "identity":
            raise CallFault("INTERNAL", "a compressed message, and no grpc-encoding that says how")
        bytes_max = self._inflated_bytes_max if flag else self._bytes_max
        if length > bytes_max:
            raise too_large(length, bytes_max)
        self._is_compressed = bool(flag)
        return length

    def _plain(self, message: Message) -> Message:
        return inflate(message, self._encoding, self._inflated_bytes_max) if self._is_compressed else message


def inflate(message: Message, encoding: str, bytes_max: int) -> bytes:
    """Never makes more than `bytes_max` bytes. Raises CallFault."""
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = inflater.decompress(message, bytes_max + 1)
    except zlib.error:
        raise CallFault("INTERNAL", f"a message that is not {encoding}") from None
    if len(plain) > bytes_max:
        raise too_large(len(plain), bytes_max, "after decompression at least ")
    if not inflater.eof or inflater.unused_data:  # what follows the end is nobody's: grpcio refuses it as well
        raise CallFault("INTERNAL", f"a message that does not end where its {encoding} does")
    return plain


def too_large(length: int, bytes_max: int, what: str = "") -> CallFault:
    return CallFault("RESOURCE_EXHAUSTED", f"a message of {what}{length} bytes, at most {bytes_max}")


def prefixed(message: bytes) -> bytes:
    """A message as it is sent, never compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def is_whole(data: bytes, start: int, stop: int, bytes_max: int) -> bool:
    """Whether `data[start:stop]` is one message, neither compressed nor too large, and nothing else."""
    size = stop - start - PREFIX_BYTES
    return 0 <= size <= bytes_max and not data[start] and int.from_bytes(data[start + 1 : start + 5], "big") == size
