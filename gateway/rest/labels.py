"""The truth, when it arrives: `POST /v1/labels`, one object or a list, each accepted or rejected for itself, durable before the reply."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import RequestMalformed
from gateway.ids import bytes_of, minted_unix_us
from gateway.request import LabelSink
from gateway.rest.entrance import Entrance, json_reply, only_json
from gateway.rest.headers import request_id_of
from gateway.rest.json_tensors import UNREADABLE, malformed
from gateway.rest.refusals import guarded
from routing.records import LABELS_MAX, LabelRow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SKEW_US: Final = 86_400_000_000
"""How far ahead of our clock an id may have been minted, for a clock that was wrong by a time zone must cost no label."""

Text = Annotated[str, Meta(max_length=1024)]
Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Value = bool | Whole | float | Text


class _Label(Struct, gc=False, forbid_unknown_fields=True):
    label: Value | Annotated[list[Value], Meta(max_length=1000)] | UnsetType | None = UNSET
    prediction_id: str | None = None
    endpoint: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] | None = None
    request_id: str | None = None
    row: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None
    attributes: Annotated[dict[Text, Value | None], Meta(max_length=32)] | None = None


_label: Final = msgspec.json.Decoder(_Label).decode
_list: Final = msgspec.json.Decoder(list[Raw]).decode


class Rejected(Struct, frozen=True):
    """Why one label of a request was not taken. `code` is stable."""

    index: int
    code: str
    message: str


class LabelDoor:
    """`POST /v1/labels`."""

    def __init__(self, sink: LabelSink, entrance: Entrance, clock_unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._sink = sink
        self._entrance = entrance
        self._clock_unix_ns = clock_unix_ns

    def routes(self) -> list[Route]:
        return [Route("/v1/labels", guarded(self.post), methods=["POST"])]

    async def post(self, request: Request) -> Response:
        """202 also when all are rejected: the caller's request was understood, its labels are what is wrong."""
        keyed = self._entrance.admit(request, "label")
        with self._entrance.reading():
            only_json(request)
            received_unix_us = self._clock_unix_ns() // 1000
            read = partial(decode, received_unix_us=received_unix_us, keyed=keyed)
            rows, rejected = await self._entrance.decoded(request, read)
        if keyed:
            rows, rejected = self._only_granted(request, rows, rejected)
        if rows:
            await self._sink.accept(rows)
        document = {"accepted": len(rows), "rejected": msgspec.to_builtins(rejected)}
        return json_reply(document, status=202)

    def _only_granted(
        self, request: Request, rows: list[LabelRow], rejected: list[Rejected]
    ) -> tuple[list[LabelRow], list[Rejected]]:
        """Without the labels that name an endpoint which the key is not for. A prediction id names none: whoever has it got the reply."""
        named = {row.endpoint for row in rows if row.endpoint is not None}
        denied = {endpoint for endpoint in named if not self._entrance.may(request, "label", endpoint)}
        if not denied:
            return rows, rejected
        taken = iter(rows)
        faults = {one.index: one for one in rejected}
        kept = []
        for index in range(len(rows) + len(rejected)):
            if index in faults:
                continue
            row = next(taken)
            if row.endpoint in denied:
                faults[index] = Rejected(
                    index, "not_allowed", f"this key has no scope label for endpoint '{row.endpoint}'"
                )
            else:
                kept.append(row)
        return kept, [faults[index] for index in sorted(faults)]


def decode(body: bytes, received_unix_us: int, *, keyed: bool) -> tuple[list[LabelRow], list[Rejected]]:
    """The labels of a body, in order, and those that are none. Raises RequestMalformed where the body as a whole is not labels."""
    rows: list[LabelRow] = []
    rejected: list[Rejected] = []
    for index, raw in enumerate(_items(body)):
        try:
            row = _row(_label(raw), received_unix_us, keyed=keyed)
        except _Unfit as unfit:
            rejected.append(Rejected(index, unfit.code, str(unfit)))
        except msgspec.ValidationError as error:
            rejected.append(Rejected(index, "label_invalid", str(error)))
        except UNREADABLE as error:
            raise RequestMalformed(f"the body is not JSON: {malformed(body, error)}") from None
        else:
            rows.append(row)
    return rows, rejected


def _items(body: bytes) -> Sequence[bytes | Raw]:
    if body.lstrip()[:1] == b"{":
        return [body]
    try:
        items = _list(body)
    except msgspec.ValidationError:
        raise RequestMalformed("wanted a label object or a list of them") from None
    except UNREADABLE as error:
        raise RequestMalformed(f"the body is not JSON: {malformed(body, error)}") from None
    if len(items) > LABELS_MAX:
        raise RequestMalformed(f"wanted at most {LABELS_MAX} labels, got {len(items)}")
    return items


def _row(label: _Label, received_unix_us: int, *, keyed: bool) -> LabelRow:
    if isinstance(label.label, UnsetType):
        raise _Unfit("label_missing", "wanted 'label'; null retracts")
    prediction_id: bytes | None = None
    endpoint = request_id = None
    if label.prediction_id is not None:
        if label.endpoint is not None or label.request_id is not None:
            raise _Unfit("reference_ambiguous", "wanted prediction_id, or endpoint and request_id, got both")
        prediction_id = _prediction_id(label.prediction_id, received_unix_us)
    elif label.endpoint is None or label.request_id is None:
        raise _Unfit("reference_missing", "wanted prediction_id, or endpoint and request_id")
    else:
        endpoint, request_id = label.endpoint, request_id_of(label.request_id)
        if request_id is None:
            raise _Unfit("request_id_invalid", "request_id: wanted at most 128 of [A-Za-z0-9._:-]")
    return LabelRow(
        prediction_id=prediction_id,
        endpoint=endpoint,
        request_id=request_id,
        row=label.row,
        label=label.label,
        at_unix_us=None if label.at is None else (label.at - _EPOCH) // _MICROSECOND,
        received_unix_us=received_unix_us,
        attributes=label.attributes,
        keyed=keyed,
    )


def _prediction_id(text: str, received_unix_us: int) -> bytes:
    """An id that can be of a prediction. What cannot would find none, and by its time would be kept for centuries, waiting for it."""
    found = bytes_of(text)
    if found is None:
        raise _Unfit("prediction_id_invalid", "prediction_id: wanted the UUID of a reply")
    at_unix_us = minted_unix_us(found)
    if at_unix_us is None:
        message = f"prediction_id: wanted the UUID of a reply, which has version 7, got version {text[14]}"
        raise _Unfit("prediction_id_invalid", message)
    ahead_us = at_unix_us - received_unix_us
    if ahead_us > _SKEW_US:
        message = f"prediction_id: wanted one minted at most a day after now, got one of {ahead_us / _SKEW_US:.1f} days after now"
        raise _Unfit("prediction_id_in_future", message)
    return found


class _Unfit(Exception):
    """One label that cannot be taken; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
