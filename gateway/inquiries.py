"""Questions that a worker puts to other processes over its pipe: to control, to load models; to its fellow workers, for statistics.

    worker ── ask ──▶ supervisor ── asked ──▶ control, or every worker
           ◀─ asked_of, answer… ──┘ ◀─ answer ──

Bounded in number, size and time: who is not answered in time goes on without. Nothing on a request's path waits for them.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final, Literal

import msgspec

from gateway.errors import DeadlinePassed, EndpointUnknown, LoadRefused, NotReady
from gateway.pipe import Line
from gateway.repository import VersionState
from gateway.statistics import ModelStatistics, Wanted, added

OPEN_MAX: Final = 32
ANSWER_BYTES_MAX: Final = 512 << 10
LOAD_S: Final = 330.0
"""Longer than control gives the workers to warm a revision."""
STATISTICS_S: Final = 5.0
"""Only a worker that hangs takes so long, and that is killed. Before it was 1 s, which a loaded machine can pass: counts went back."""

NOTED_S: Final = 5.0

Addressee = Literal["control", "workers"]


class _Inquiry:
    """One question on its way. `expected` is None until the supervisor has said how many were asked."""

    def __init__(self) -> None:
        self.expected: int | None = None
        self.answers: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self.expected is not None and len(self.answers) >= self.expected


class Inquiries:
    """This process's questions. One event loop; `hear` takes what the supervisor says of them."""

    def __init__(self, tell: Callable[[Line], None]) -> None:
        self._tell = tell
        self._numbers = count(1)
        self._open: dict[int, _Inquiry] = {}

    async def ask(self, addressee: Addressee, question: Mapping[str, Any], timeout_s: float) -> list[dict[str, Any]]:
        """The answers of all that were asked, or of those that answered within `timeout_s`. Raises NotReady when too many are open."""
        if len(self._open) >= OPEN_MAX:
            raise NotReady("too many questions are open between the processes of this gateway", "inquiries")
        number, inquiry = next(self._numbers), _Inquiry()
        self._open[number] = inquiry
        self._tell({"event": "ask", "id": number, "to": addressee, "question": question})
        try:
            async with asyncio.timeout(timeout_s):
                while not inquiry.is_over:
                    await inquiry.changed.wait()
                    inquiry.changed.clear()
        except TimeoutError:
            pass
        finally:
            del self._open[number]
        return inquiry.answers

    async def note_used(self, ids: list[str]) -> bool:
        """Has control write down that these keys were used; False: it did not answer."""
        try:
            return bool(any(await self.ask("control", {"keys_used": ids}, NOTED_S)))
        except NotReady:
            return False

    def hear(self, line: Line) -> None:
        """Takes an `asked_of` or an `answer`; one to a question that is not open any more is left."""
        inquiry = self._open.get(line["id"])
        if inquiry is None:
            return
        if line["command"] == "asked_of":
            inquiry.expected = line["count"]
        else:
            inquiry.answers.append(line["answer"])
        inquiry.changed.set()


def answered(asked: Line, answer: Mapping[str, Any]) -> Line:
    """The line that answers an `asked` line; an answer that is too long for the pipe becomes an empty one."""
    if len(msgspec.json.encode(answer)) > ANSWER_BYTES_MAX:
        answer = {}
    return {"event": "answer", "id": asked["id"], "to": asked["from"], "answer": answer}


class AskedRepository:
    """`gateway.repository.Repository` of a worker: it shows what is loaded here, and has control load."""

    def __init__(self, inquiries: Inquiries, index: Callable[[], list[VersionState]]) -> None:
        self._inquiries = inquiries
        self._index = index

    def index(self) -> list[VersionState]:
        return self._index()

    async def load(self, endpoint: str, pins: tuple[str, ...] | None, author: str) -> None:
        question = {"load": {"endpoint": endpoint, "pins": pins, "author": author}}
        answers = await self._inquiries.ask("control", question, LOAD_S)
        if not answers:
            raise NotReady("the control process does not answer; what is loaded goes on", "control_away")
        match answers[0]:
            case {"state": "live"}:
                return
            case {"code": "endpoint_unknown", "error": str(text)}:
                raise EndpointUnknown(text)
            case {"code": "late", "error": str(text)}:
                raise DeadlinePassed(text)
            case {"code": "busy", "error": str(text)}:
                raise NotReady(text, "control_busy")
            case {"error": str(text)}:
                raise LoadRefused(text)
            case _:
                raise NotReady("the control process gave no answer that is understood here", "control_away")

    async def unload(self, endpoint: str) -> None:
        if all(one.endpoint != endpoint for one in self._index()):
            raise EndpointUnknown(f"unknown model '{endpoint}': no endpoint of this name is served here")
        raise LoadRefused(
            f"'{endpoint}' is in the live revision, which is not unloaded: take it out of the route, or delete the endpoint"
        )


class AskedStatistics:
    """`gateway.statistics.Statistics` over all workers that live; of one that does not answer at once nothing is counted."""

    def __init__(self, inquiries: Inquiries, own: Callable[[str, str], ModelStatistics | None]) -> None:
        self._inquiries = inquiries
        self._own = own

    async def statistics(self, wanted: Wanted) -> list[ModelStatistics]:
        answers = await self._inquiries.ask("workers", {"statistics": list(wanted)}, STATISTICS_S)
        found = [entry for answer in answers for entry in msgspec.convert(answer.get("entries", []), _ENTRIES)]
        return added(wanted, found or self.counted(wanted))

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What this worker has counted, for another that asks; without batch sizes where there are too many of them."""
        entries = self.counted([(endpoint, version) for endpoint, version in question["statistics"]])
        if len(msgspec.json.encode(entries)) > ANSWER_BYTES_MAX // 2:
            entries = [msgspec.structs.replace(entry, batches=()) for entry in entries]
        return {"entries": msgspec.to_builtins(entries)}

    def counted(self, wanted: Wanted) -> list[ModelStatistics]:
        """This worker's own, of versions that have run."""
        return [entry for endpoint, version in wanted if (entry := self._own(endpoint, version)) is not None]


_ENTRIES: Final = list[ModelStatistics]
