"""What every REST door does before and after its own work: admit the caller, read its headers and body, send the reply."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.admission import Admission, Holding
from gateway.errors import GatewayError, MediaTypeUnsupported, RequestMalformed
from gateway.keys.doorkeeper import Doorkeeper, Visitor, credential_of
from gateway.keys.scopes import Scope
from gateway.request import InferReply
from gateway.rest.bodies import OFF_LOOP_BYTES, compress, read_body
from gateway.rest.headers import Caller, read_headers, reply_headers
from gateway.rest.refusals import respond
from gateway.settings import Settings
from models.errors import ModelsError

JSON: Final = ("content-type", "application/json")


Refused = Callable[[str, Exception], None]
"""Counts a request that could not be read, by its endpoint (empty: none is known): `gateway.request.Corridor.refused`."""
T = TypeVar("T")
WATCH_AFTER_S: Final = 0.005
"""From when on it is watched whether a caller is still there: most answers leave before, and watching costs 20 µs."""


class Entrance:
    """Shared by the doors of one app."""

    def __init__(
        self, settings: Settings, doorkeeper: Doorkeeper, refused: Refused, admission: Admission | None = None
    ) -> None:
        """`admission` counts the bodies that arrive; None: nobody else's are counted with them."""
        self._limits = limits = settings.limits
        self._admission = admission or Admission(limits.inflight_max, limits.inflight_bytes_max)
        self._doorkeeper = doorkeeper
        self._refused = refused

    def recognise(self, request: Request, scope: Scope) -> None:
        """Lets pass whoever may do this to any endpoint at all. Raises Unauthenticated or NotAllowed."""
        self._doorkeeper.recognise(_visitor(request), scope)

    def admit(self, request: Request, scope: Scope, endpoint: str | None = None) -> bool:
        """Whether the caller has a key. `endpoint` None: whichever it may. Raises Unauthenticated, NotAllowed or Overloaded."""
        return self._doorkeeper.admit(_visitor(request), scope, endpoint)

    def may(self, request: Request, scope: Scope, endpoint: str) -> bool:
        """Whether a caller who was admitted may do this to an endpoint that the body or a list names."""
        return self._doorkeeper.may(_visitor(request), scope, endpoint)

    def name(self, request: Request) -> str:
        """Whose key an admitted caller showed, for what is written down about it."""
        return self._doorkeeper.name(_visitor(request))

    def caller(self, request: Request) -> Caller:
        """The headers' fields."""
        return read_headers(request.headers.items())

    async def decoded(
        self,
        request: Request,
        decode: Callable[..., T],
        *arguments: object,
        binary: bool = False,
        is_light: bool = False,
        own_max: int | None = None,
    ) -> T:
        """What `decode` makes of the body and the arguments; on a thread where that is large, unless it `is_light` at any size.

        The body is within the bounds of its kind, or within the route's own, and counted as held until it is decoded.
        """
        limits = self._limits
        bytes_max = limits.body_bytes_binary_max if binary else limits.body_bytes_json_max
        if own_max is not None:
            bytes_max = min(own_max, limits.body_bytes_binary_max)
        with Holding(self._admission) as holding:
            body = await read_body(request, holding, bytes_max=bytes_max, seconds_max=limits.body_s)
            if len(body) > OFF_LOOP_BYTES and not is_light:
                return await asyncio.to_thread(decode, body, *arguments)
            return decode(body, *arguments)

    @contextmanager
    def reading(self, endpoint: str = "") -> Iterator[None]:
        """Around all that a door refuses before the corridor sees it, so that it is counted; whom the doorkeeper refuses, that counts."""
        try:
            yield
        except (GatewayError, ModelsError) as error:
            self._refused(endpoint, error)
            raise


async def unless_gone(request: Request, answering: Awaitable[T]) -> T:
    """The answer, given up when the caller leaves before it: a model runs for nobody. Raises ClientDisconnect then.

    For requests whose body has been read: all that the server may still say of them is that they are gone.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = _Watch(request, task)
    timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, watch.begin)
    try:
        return await answering
    except asyncio.CancelledError:
        if watch.has_seen_it_go and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels a task when the caller of its request has gone. A task of its own, and so begun only for answers that take a while."""

    __slots__ = ("_request", "_task", "_watching", "has_seen_it_go")

    def __init__(self, request: Request, task: "asyncio.Task[Any]") -> None:
        self._request = request
        self._task = task
        self._watching: asyncio.Task[None] | None = None
        self.has_seen_it_go = False

    def begin(self) -> None:
        self._watching = asyncio.create_task(self._run())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _run(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.has_seen_it_go = True
        self._task.cancel()


def _visitor(request: Request) -> Visitor:
    headers = request.headers
    return Visitor(
        credential=credential_of(headers.get("authorization"), headers.get("x-api-key")),
        peer=request.client.host if request.client else None,
    )


def only_json(request: Request) -> None:
    """For calls that mind the media type; none at all is taken for JSON. Raises MediaTypeUnsupported."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeUnsupported("wanted Content-Type: application/json")


def json_reply(document: object, *, status: int = 200) -> Response:
    """A document as JSON, never compressed: aiohttp asks for gzip unbidden, and NVIDIA's client over it unpacks only predictions."""
    return respond(status, [JSON], orjson.dumps(document))


def infer_reply(request: Request, reply: InferReply, headers: list[tuple[str, str]], body: bytes) -> Response:
    """A prediction, with who answered in the headers, compressed where the caller asked for that."""
    more, body = compress(body, request.headers.get("accept-encoding"))
    return respond(200, [*headers, *reply_headers(reply), *more], body)


def whole_number(text: str | None, name: str) -> int | None:
    """A header that holds a length. Raises RequestMalformed."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise RequestMalformed(f"{name}: wanted a whole number of bytes")
    return int(text)
