"""One feature service and the thread that asks its store: requests that come while it is asked are answered together by the next question."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from gateway.features.frames import Answered, Ask, Describe, Described, Failed, Feature, Found, FoundColumn, Key
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

WAITING_MAX: Final = 4096
ROWS_MAX: Final = 1024
"""Rows of one question to the store, beyond those of its first request."""
REOPEN_S: Final = 2.0
"""How long a repository that could not be opened is left alone."""
_ALONE_S: Final = 0.5
"""A question that failed within this time is asked again request by request: one of them may be the cause. A store that is down fails later."""

Send = Callable[[Answered], None]


class ServiceAbsent(Exception):
    """The repository has no such service; the message has those that there are."""


class Services(Protocol):
    """A feature store, for one thread; raises whatever its parts raise, and ServiceAbsent."""

    def describe(self, service: str) -> tuple[tuple[Key, ...], tuple[Feature, ...], tuple[str, ...]]:
        """Join keys, features, and what on-demand views want of a request, as of now."""
        ...

    def read(self, service: str, keys: dict[str, list[Any]]) -> dict[str, FoundColumn]:
        """Every feature by its full name, row by row."""
        ...


class Waiting(NamedTuple):
    """A question and where its answer goes."""

    asked: Ask | Describe
    send: Send


class Lane:
    """Belongs to the event loop; `open_store` and the store it makes belong to the lane's thread."""

    def __init__(self, service: str, open_store: Callable[[], Services]) -> None:
        self._service = service
        self._open_store = open_store
        self._waiting: deque[Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._store: Services | None = None
        self._is_warm = False
        """Whether it was ever read: the first time connects, imports, and takes a hundred times as long."""
        self._closed_until = 0.0
        self._trouble = ""
        self._running: asyncio.Task[None] | None = None
        self._asked_at: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the store has been asked by now; 0 while it is not."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    def put(self, asked: Ask | Describe, send: Send) -> None:
        """Takes a question; answers at once when too many wait."""
        if len(self._waiting) >= WAITING_MAX:
            send(Failed(asked.id, "overloaded", f"{WAITING_MAX} requests wait for the feature store"))
            return
        self._waiting.append(Waiting(asked, send))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    def close(self) -> None:
        """What is under way is given up."""
        if self._running is not None:
            self._running.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._cut()
            if batch:
                self._asked_at = time.monotonic()
                answers = await loop.run_in_executor(self._thread, self._answers, batch)
                self._asked_at = None
                for waiting, answer in zip(batch, answers, strict=True):
                    waiting.send(answer)

    def _cut(self) -> list[Waiting]:
        """The next questions that go together; those whose callers have given up are left out."""
        batch: list[Waiting] = []
        rows, now_ns = 0, time.monotonic_ns()
        while self._waiting:
            asked = self._waiting[0].asked
            if isinstance(asked, Describe):
                return batch or [self._waiting.popleft()]
            count = len(next(iter(asked.keys.values()), ()))
            if batch and rows + count > ROWS_MAX:
                break
            waiting = self._waiting.popleft()
            if asked.deadline_ns > now_ns:
                batch.append(waiting)
                rows += count
        return batch

    # Everything below runs on the lane's thread.

    def _answers(self, batch: list[Waiting]) -> list[Answered]:
        asked = [waiting.asked for waiting in batch]
        try:
            store = self._opened()
        except Exception as error:  # noqa: BLE001  # a repository is code of others: whatever is wrong with it is told
            return [Failed(one.id, "unavailable", str(error)) for one in asked]
        first = asked[0]
        if isinstance(first, Describe):
            return [self._described(store, first)]
        asks = [one for one in asked if isinstance(one, Ask)]
        started = time.monotonic()
        try:
            return list(self._read(store, asks))
        except Exception as error:  # noqa: BLE001  # stores raise what their clients raise
            if len(asks) > 1 and time.monotonic() - started < _ALONE_S:
                return [self._alone(store, ask) for ask in asks]
            return [self._failed(ask, error) for ask in asks]

    def _opened(self) -> Services:
        if self._store is None:
            now = time.monotonic()
            if now < self._closed_until:
                raise ConnectionError(self._trouble)
            try:
                self._store = self._open_store()
            except Exception as error:
                self._closed_until, self._trouble = now + REOPEN_S, f"{type(error).__name__}: {error}"
                log.warning("feature_repo_unreadable", service=self._service, problem=self._trouble)
                raise ConnectionError(self._trouble) from error
        return self._store

    def _described(self, store: Services, asked: Describe) -> Answered:
        try:
            told = Described(asked.id, *store.describe(asked.service))
            if not self._is_warm:
                self._is_warm = True
                with suppress(Exception):  # whatever it is, requests will meet it and be told
                    store.read(asked.service, {key.name: ["" if key.datatype == "BYTES" else 0] for key in told.keys})
            return told
        except ServiceAbsent as error:
            return Failed(asked.id, "unknown", str(error))
        except Exception as error:  # noqa: BLE001  # see above
            return Failed(asked.id, "unavailable", f"{type(error).__name__}: {error}")

    def _read(self, store: Services, asks: list[Ask]) -> list[Answered]:
        """One question for all; its rows cut apart again."""
        if len(asks) == 1:
            return [Found(asks[0].id, store.read(self._service, asks[0].keys))]
        keys = {name: [value for ask in asks for value in ask.keys[name]] for name in asks[0].keys}
        columns = store.read(self._service, keys)
        answers: list[Answered] = []
        start = 0
        for ask in asks:
            stop = start + len(next(iter(ask.keys.values())))
            cut = {
                name: FoundColumn(column.values[start:stop], column.times_unix_s[start:stop])
                for name, column in columns.items()
            }
            answers.append(Found(ask.id, cut))
            start = stop
        return answers

    def _alone(self, store: Services, ask: Ask) -> Answered:
        try:
            return self._read(store, [ask])[0]
        except Exception as error:  # noqa: BLE001  # see above
            return self._failed(ask, error)

    def _failed(self, ask: Ask, error: Exception) -> Answered:
        """Only the kind of trouble is told: messages of stores may hold keys, which are the caller's."""
        log.warning("feature_lookup_failed", service=self._service, problem=type(error).__name__)
        return Failed(ask.id, "unavailable", f"the feature store failed: {type(error).__name__}")
