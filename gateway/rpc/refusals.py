"""How an error leaves over gRPC: its status by the one table, its reason, code and prediction id in the trailing metadata."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

import grpc

from gateway.errors import INTERNAL, Wire, translate
from gateway.rest.headers import error_headers

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]
_LOG: Final = logging.getLogger(__name__)


def guarded(
    handler: Callable[[Request, Context], Awaitable[Response]],
) -> Callable[[Request, Context], Awaitable[Response]]:
    """The handler, with every error turned into a status: nothing crosses the wire unmapped."""

    async def answer(request: Request, context: Context) -> Response:
        try:
            return await handler(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the last line before the wire: what is unknown becomes a bare INTERNAL
            await refuse(context, error)

    return answer


async def refuse(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the status of the error."""
    wire = wire_of(error)
    await context.abort(grpc.StatusCode[wire.grpc], wire.message, trailing_metadata(wire, error))
    raise AssertionError("abort returns never") from None


def wire_of(error: Exception) -> Wire:
    """The wire form of an error; what nobody expected is logged here, because the caller learns nothing of it."""
    wire = translate(error)
    if wire is INTERNAL:
        _LOG.error("request_failed", exc_info=error)
    return wire


def trailing_metadata(wire: Wire, error: Exception) -> tuple[tuple[str, str], ...]:
    """What REST says in headers, and the stable code, which there stands in the body."""
    return (("x-runoff-code", wire.code), *error_headers(wire, error))
