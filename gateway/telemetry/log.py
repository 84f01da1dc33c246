"""Logs: one JSON object a line, from our own named events and from every library that uses `logging`, alike.

The standard library and orjson rather than structlog: importing that costs 190 ms and 216 modules (it pulls in rich) in each process,
and what we use of it is the one formatter below.
"""

import logging
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Literal

import orjson

from gateway.telemetry.counters import CounterPage

Level = Literal["debug", "info", "warning", "error"]

REPEATS_PER_S: Final = 20
"""Lines a second of one event of one logger; the rest are counted in `runoff_log_lines_dropped_total`."""
_FILE_BYTES: Final = 10 << 20
_FILES_KEPT: Final = 3
_EVENTS_WATCHED: Final = 1_024


class EventLog:
    """Named events of one module: `log.info("model_warmed", endpoint=…, revision=…)`. Never put a caller's data in a field."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: object) -> None:
        """`error` adds its stack trace, for what nobody expected."""
        self._emit(logging.ERROR, event, fields, error)

    def _emit(self, level: int, event: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=error, extra={"runoff_fields": fields})


class JsonLines(logging.Formatter):
    """`at`, `level`, `process`, `logger`, `event`, then the event's fields; a library's line is the event `log` with a `message`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "runoff_fields", None)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "at": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
        }
        line |= {"event": "log", "message": record.getMessage()} if fields is None else {"event": record.msg, **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Repeats(logging.Filter):
    """Lets through the first lines a second of each event, and counts the others."""

    def __init__(self, page: CounterPage | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._second = 0
        self._seen: dict[tuple[str, str], int] = {}
        self._page = page
        self._dropped = page.counter("runoff_log_lines_dropped_total") if page else 0

    def filter(self, record: logging.LogRecord) -> bool:
        kept: bool | None = getattr(record, "runoff_kept", None)
        if kept is None:  # else another handler has asked for this line before
            kept = record.runoff_kept = self._is_kept(record)
        return kept

    def _is_kept(self, record: logging.LogRecord) -> bool:
        second = int(self._clock())
        if second != self._second or len(self._seen) >= _EVENTS_WATCHED:
            self._second, self._seen = second, {}
        key = (record.name, record.msg if isinstance(record.msg, str) else record.levelname)
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen > REPEATS_PER_S and self._page is not None:
            self._page.cells[self._dropped] += 1
        return seen <= REPEATS_PER_S


def configure(process: str, level: Level, *, folder: Path | None = None, page: CounterPage | None = None) -> None:
    """Sends all logging of this process to standard error and, with a folder, to `<process>.jsonl` in it (4 × 10 MB at most).

    Called once, first, by the main of each process.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{process}.jsonl"
        path.touch(mode=0o600)
        handlers.append(RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8"))
    repeats = Repeats(page)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        handler.setFormatter(JsonLines(process))
        handler.addFilter(repeats)
        root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
