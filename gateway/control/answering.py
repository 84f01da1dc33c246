"""What workers ask of control: to load, which is a revision like any other, authored by the key that asked; to note which keys were used."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.control.changes import Author, Changes, EndpointAbsent
from gateway.control.fleet import Fleet
from gateway.control.reconcile import WARM_UP_S, Reconciler
from gateway.state.keys import KeyTable
from gateway.telemetry.log import EventLog
from routing.errors import Problem, RouteInvalid

OPEN_MAX: Final = 8
_SERVING_S: Final = 10.0
REASON: Final = "asked for over the repository extension"

log = EventLog(__name__)


class Answering:
    """Answers one question at a time each, a few at once; `wait_s`: how long a load may take to be live."""

    def __init__(
        self, changes: Changes, reconciler: Reconciler, fleet: Fleet, keys: KeyTable, *, wait_s: float = WARM_UP_S
    ) -> None:
        self._changes = changes
        self._reconciler = reconciler
        self._fleet = fleet
        self._keys = keys
        self._wait_s = wait_s
        self._open = 0

    async def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """`{"state": "live"}`, or `{"code", "error"}`. Never raises."""
        if self._open >= OPEN_MAX:
            return {"code": "busy", "error": f"{self._open} loads are under way already"}
        self._open += 1
        try:
            match question:
                case {"load": {"endpoint": str(endpoint), "author": str(author), "pins": pins}}:
                    return await self._load(endpoint, pins, author)
                case {"keys_used": [*ids]}:
                    self._keys.used(str(key_id) for key_id in ids)
                    return {"state": "noted"}
                case _:
                    return {"code": "unknown_question", "error": "control does not know this question"}
        except Exception as error:  # noqa: BLE001  # a worker waits for the answer, whatever went wrong
            log.error("question_broke", error=error)
            return {"code": "internal", "error": "internal error; the log of control has the details"}
        finally:
            self._open -= 1

    async def _load(self, endpoint: str, pins: list[str] | None, author: str) -> dict[str, Any]:
        try:
            revision = self._changes.load(endpoint, pins=pins, author=Author(author, REASON))
        except EndpointAbsent as error:
            return {"code": "endpoint_unknown", "error": str(error)}
        except RouteInvalid as error:
            return {"code": "load_refused", "error": _text(error.problems)}
        ended = await self._reconciler.finished(revision.number, self._wait_s)
        match ended.state:
            case "live":
                await self._fleet.serving(ended.number, _SERVING_S)
                return {"state": "live", "revision": ended.number}
            case "failed":
                return {"code": "load_refused", "error": f"revision {ended.number}: {_text(ended.problems)}"}
            case "superseded":
                return {"code": "load_refused", "error": f"revision {ended.number} was overtaken by a newer one"}
            case _:
                return {"code": "late", "error": f"revision {ended.number} is {ended.state} still; it goes on"}


def _text(problems: tuple[Problem, ...]) -> str:
    return "; ".join(str(problem) for problem in problems)
