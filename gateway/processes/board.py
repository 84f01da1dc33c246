"""What the children said last, and what follows from it: who is ready, what control must know. Pure: no pipe, no clock, no process."""

import msgspec

from gateway.pipe import Line

_RELAYED = ("warm", "failed", "active")


class Worker(msgspec.Struct):
    """One living worker by its own words. `endpoints` is what its last beat said; `problems` names endpoints that it could not load."""

    writer: str
    is_listening: bool = False
    endpoints: dict[str, bool] = {}
    problems: set[str] = set()
    said: dict[tuple[str, str], Line] = {}


class Readiness(msgspec.Struct, frozen=True):
    """The body of `/readyz`. `endpoints` that are false are not served by any worker."""

    ready: bool
    draining: bool
    endpoints: dict[str, bool]
    workers: dict[str, bool]


class Board:
    """The supervisor's picture of its workers."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._exited: list[str] = []
        self.is_draining = False

    def born(self, process: str, writer: str) -> None:
        """A worker was started."""
        self._workers[process] = Worker(writer)

    def died(self, process: str) -> None:
        """It is gone, and with it all that it said."""
        worker = self._workers.pop(process, None)
        if worker is not None:
            self._exited.append(worker.writer)

    def hear(self, process: str, line: Line) -> Line | None:
        """Takes in a worker's line; answers what control must be told of it, None: nothing."""
        worker = self._workers.get(process)
        if worker is None:
            return None
        match line.get("event"):
            case "ready":
                worker.is_listening = True
            case "beat":
                worker.endpoints = dict(line.get("endpoints", {}))
                worker.problems &= worker.endpoints.keys()
            case "failed":
                worker.problems.add(line["endpoint"])
            case "active":
                worker.problems.discard(line["endpoint"])
        if line.get("event") not in _RELAYED:
            return None
        told = line | {"worker": worker.writer}
        worker.said[line["event"], line["endpoint"]] = told
        return told

    def roster(self) -> Line:
        """The line of who listens and who is gone since the last roster."""
        exited, self._exited = self._exited, []
        live = [worker.writer for worker in self._workers.values() if worker.is_listening]
        return {"event": "workers", "live": live, "exited": exited}

    def retold(self) -> list[Line]:
        """The newest line of each kind, worker and endpoint: what a control process that was restarted has missed."""
        return [line for worker in self._workers.values() for line in worker.said.values()]

    def readiness(self) -> Readiness:
        """Ready: not draining, some worker listens, and every endpoint is warm in one that does.

        An endpoint that could not be loaded makes only itself unready, unless no endpoint at all is warm: then nobody could be answered.
        """
        listening = [worker for worker in self._workers.values() if worker.is_listening]
        names = sorted({name for worker in listening for name in worker.endpoints})
        endpoints = {name: any(worker.endpoints.get(name, False) for worker in listening) for name in names}
        broken = {name for worker in listening for name in worker.problems}
        is_served = not endpoints or (
            any(endpoints.values()) and all(is_warm or name in broken for name, is_warm in endpoints.items())
        )
        return Readiness(
            ready=bool(listening) and is_served and not self.is_draining,
            draining=self.is_draining,
            endpoints=endpoints,
            workers={process: worker.is_listening for process, worker in self._workers.items()},
        )
