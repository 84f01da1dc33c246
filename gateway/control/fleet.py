"""What control knows of the other processes: who is live, and what each said about each revision."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from routing.errors import Problem

_REVISIONS_KEPT: Final = 256
_LINES_KEPT: Final = 1024


class Answers(msgspec.Struct, kw_only=True):
    """What workers said about one revision: who is warm, who serves it, and why others cannot (by worker)."""

    warm: set[str] = msgspec.field(default_factory=set)
    active: set[str] = msgspec.field(default_factory=set)
    failed: dict[str, str] = msgspec.field(default_factory=dict)


class Fleet:
    """Fed by the supervisor's lines through `hear`; one event loop. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live: frozenset[str] | None = None
        self._answers: OrderedDict[int, Answers] = OrderedDict()
        self._lines: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._changed = asyncio.Event()

    @property
    def live(self) -> frozenset[str]:
        """Writer ids of the workers that listen."""
        return self._live or frozenset()

    def hear(self, line: Mapping[str, Any]) -> None:
        """Takes one line of the supervisor. Unknown events are kept for `runtime` only, so that either side may be newer."""
        event, worker = str(line.get("event", "")), str(line.get("worker", ""))
        if event == "workers":
            self._live = frozenset(str(name) for name in line.get("live", ()))
        elif event in {"warm", "active", "failed"} and worker and isinstance(line.get("revision"), int):
            answers = self._of(line["revision"])
            if event == "failed":
                answers.failed[worker] = str(line.get("problem", "no reason given"))
            else:
                answers.failed.pop(worker, None)
                answers.warm.add(worker)
                if event == "active":
                    answers.active.add(worker)
        self._keep(event, worker, line)
        self.wake()

    async def known(self, timeout_s: float) -> bool:
        """Waits until the supervisor has said who is live; False when it did not within `timeout_s`."""
        return await self._until(lambda: self._live is not None, self._clock() + timeout_s)

    async def warm(self, revision: int, timeout_s: float, is_wanted: Callable[[], bool]) -> list[Problem]:
        """Waits until every live worker is warm for `revision`; empty when all are, or when nobody is live.

        Who dies meanwhile is not waited for, and whoever comes later loads what is live first. Ends early, empty, when the
        revision is not wanted any more; the caller finds out at its next step. The first failure ends the wait.
        """
        answers = self._of(revision)

        def is_over() -> bool:
            return bool(answers.failed.keys() & self.live) or self.live <= answers.warm or not is_wanted()

        in_time = await self._until(is_over, self._clock() + timeout_s)
        failed = sorted((worker, problem) for worker, problem in answers.failed.items() if worker in self.live)
        if failed:
            worker, problem = failed[0]
            return [
                Problem("", "warm_up_failed", f"{len(failed)} of {len(self.live)} workers: {problem} ({worker[:15]})")
            ]
        if not in_time:
            late = len(self.live - answers.warm)
            text = f"{late} of {len(self.live)} workers were not warm after {timeout_s:g} s"
            return [Problem("", "warm_up_late", text, "look at the workers' log, then apply the route again")]
        return []

    async def serving(self, revision: int, timeout_s: float) -> bool:
        """Waits until every live worker answers with `revision`, or has said that it cannot; False when some had not by then."""
        answers = self._of(revision)
        return await self._until(lambda: self.live <= answers.active | answers.failed.keys(), self._clock() + timeout_s)

    def answers(self, revision: int) -> Answers:
        """A copy of what was said about a revision."""
        found = self._answers.get(revision, Answers())
        return Answers(warm=set(found.warm), active=set(found.active), failed=dict(found.failed))

    def runtime(self) -> dict[str, Any]:
        """The newest line of each kind from each process, and who is live, for the admin API."""
        return {"workers": sorted(self.live), "lines": list(self._lines.values())}

    def wake(self) -> None:
        """Makes waiters look again, after something outside this object changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _of(self, revision: int) -> Answers:
        if revision not in self._answers:
            self._answers[revision] = Answers()
            while len(self._answers) > _REVISIONS_KEPT:
                self._answers.popitem(last=False)
        return self._answers[revision]

    def _keep(self, event: str, worker: str, line: Mapping[str, Any]) -> None:
        key = f"{event} {worker} {line.get('endpoint', '')}"
        self._lines[key] = dict(line)
        self._lines.move_to_end(key)
        while len(self._lines) > _LINES_KEPT:
            self._lines.popitem(last=False)

    async def _until(self, is_over: Callable[[], bool], deadline: float) -> bool:
        while not is_over():
            changed = self._changed
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await changed.wait()
            except TimeoutError:
                return is_over()
        return True
