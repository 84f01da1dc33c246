"""Logs: one JSON object a line, from our own named events and from every library that uses `logging`, alike. The room of structlog.

Both go through the same handlers: structlog hands its events to the standard library, whose lines come out by structlog's formatter.
"""

import logging
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.telemetry.counters import CounterPage
from gateway.telemetry.redaction import redacted

Level = Literal["debug", "info", "warning", "error"]

REPEATS_PER_S: Final = 20
"""Lines a second of one event of one logger; the rest are counted in `runoff_log_lines_dropped_total`."""
_FILE_BYTES: Final = 10 << 20
_FILES_KEPT: Final = 3
_EVENTS_WATCHED: Final = 1_024
_TALKATIVE: Final = ("hpack", "httpcore")
"""Libraries that tell at `debug` what went over the wire, every header of it: they are never heard below `warning`."""


class EventLog:
    """Named events of one module: `log.info("model_warmed", endpoint=…, revision=…)`. Never put a caller's data in a field."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def debug(self, event: str, **fields: object) -> None:
        self._logger.debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        self._logger.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self._logger.warning(event, **fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: object) -> None:
        """`error` adds its stack trace, for what nobody expected."""
        self._logger.error(event, exc_info=error, **fields)


def json_lines(process: str) -> logging.Formatter:
    """`at`, `level`, `process`, `logger`, `event`, then the event's fields; a library's line is the event `log` with a `message`."""

    def headed(_logger: WrappedLogger, _name: str, line: EventDict) -> EventDict:
        record: logging.LogRecord = line.pop("_record")
        is_ours = line.pop("_from_structlog")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head: EventDict = {
            "at": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": process,
            "logger": record.name,
        }
        if not is_ours:
            line = {"event": "log", "message": line.pop("event"), **line}
        if line.get("exc_info") is None:
            line.pop("exc_info", None)
        head.update(line)
        return head

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow=())],
        processors=[headed, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)],
    )


def _dumps(line: object, **_: object) -> str:
    return redacted(orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


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
        event = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        key = (record.name, event if isinstance(event, str) else record.levelname)
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
        handler.setFormatter(json_lines(process))
        handler.addFilter(repeats)
        root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
