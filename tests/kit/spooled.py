"""Blocks as workers and the shadow process spool them, for whoever reads the spool: small, deterministic, with ids made from numbers."""

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from gateway.spool.segment import SegmentWriter
from gateway.streams.lake import Lake, Tally
from gateway.streams.letters import DeadLetters
from models.signature import Answer
from routing.records import (
    Block,
    Column,
    LabelBlock,
    LabelRow,
    PredictionBlock,
    RequestRow,
    SensitiveBlock,
    ShadowBlock,
    ShadowRow,
)

START_UNIX_US = 1_790_000_000_000_000
BINARY = Answer(kind="classification", label_output="label", score_output="probabilities", classes=(0, 1))
VARIANTS = ("champion", "challenger")


def pid(number: int) -> bytes:
    """A UUIDv7 of the start instant plus `number` milliseconds."""
    stamp = (START_UNIX_US // 1000 + number).to_bytes(6, "big")
    return stamp + b"\x70\x00\x80\x00" + number.to_bytes(6, "big")


def pid_text(number: int) -> str:
    return str(uuid.UUID(bytes=pid(number)))


def request(
    number: int, *, rows: int = 1, assigned: int = 0, answered: int | None = None, **fields: object
) -> RequestRow:
    status = 200 if answered is None or answered >= 0 else 500
    plain = {
        "prediction_id": pid(number),
        "rows": rows,
        "received_unix_us": START_UNIX_US + number * 1000,
        "assigned": assigned,
        "answered": assigned if answered is None else answered,
        "assigned_by": 0,
        "bucket": number % 65536,
        "propensity": 0.5,
        "protocol": 0,
        "status": status,
        "queue_us": 5,
        "compute_us": 100,
        "total_us": 200,
        "batch_rows": rows,
    }
    return RequestRow(**{**plain, **fields})


def predictions(
    requests: Sequence[RequestRow],
    scores: Sequence[float] | None = None,
    *,
    inputs: Sequence[Column] | None = None,
    endpoint: str = "phishing",
    version: str = "1",
    **fields: object,
) -> PredictionBlock:
    """A block of a binary classifier; `scores` are probabilities of class 1, None for a failure. One FP32 input `x` by default."""
    rows = sum(row.rows for row in requests)
    x = Column("x", "FP32", (1,), np.arange(rows, dtype="<f4").tobytes())
    outputs = []
    if scores is not None:
        p = np.asarray(scores, "<f4")
        outputs = [
            Column("label", "INT64", (), (p >= 0.5).astype("<i8").tobytes()),
            Column("probabilities", "FP32", (2,), np.column_stack([1 - p, p]).astype("<f4").tobytes()),
        ]
    return PredictionBlock(
        endpoint,
        7,
        VARIANTS,
        "phishing",
        version,
        "d1",
        list(requests),
        [x] if inputs is None else list(inputs),
        outputs,
        **fields,
    )


def apart(
    numbers: Sequence[int], values: Sequence[str], *, rows: Sequence[int] | None = None, endpoint: str = "phishing"
) -> SensitiveBlock:
    """The attribute `sex` of some predictions, kept apart; a value a row."""
    at = [START_UNIX_US + n * 1000 for n in numbers]
    column = Column("sex", "BYTES", (1,), list(values))
    return SensitiveBlock(endpoint, [pid(n) for n in numbers], list(rows or [1] * len(numbers)), at, [column])


def shadows(
    numbers: Sequence[int],
    live: Sequence[str | None],
    mirror: Sequence[str | None],
    *,
    units: Sequence[str | None] | None = None,
    outcome: str = "recorded",
    live_scores: Sequence[float | None] | None = None,
    scores: Sequence[float | None] | None = None,
    name: str = "candidate",
    endpoint: str = "phishing",
    experiment: bool = True,
) -> ShadowBlock:
    """One row a request; labels of production and candidate side by side."""
    unit = [None] * len(numbers) if units is None else units
    rows = [
        ShadowRow(pid(n), 1, START_UNIX_US + n * 1000, 0, u, experiment, outcome, 50, 1, 900)
        for n, u in zip(numbers, unit, strict=True)
    ]
    nothing: list[float | None] = [None] * len(numbers)
    return ShadowBlock(
        endpoint,
        7,
        VARIANTS,
        name,
        "phishing",
        "2",
        "phishing",
        "1",
        rows,
        list(mirror),
        list(scores or nothing),
        list(live),
        list(live_scores or nothing),
        [],
        "worker-1",
        numbers[0] + 1,
    )


def label(number: int | None, value: object, *, received: int = 0, **fields: object) -> LabelRow:
    """A label of prediction `number`, received `received` seconds after the start."""
    plain = {
        "prediction_id": None if number is None else pid(number),
        "endpoint": None,
        "request_id": None,
        "row": None,
        "label": value,
        "at_unix_us": None,
        "received_unix_us": START_UNIX_US + received * 1_000_000,
    }
    return LabelRow(**{**plain, **fields})


def labels(*rows: LabelRow) -> LabelBlock:
    return LabelBlock(list(rows))


def encode(*blocks: Block) -> list[bytes]:
    return [msgspec.msgpack.encode(block) for block in blocks]


class Place:
    """A state directory with a spool and a lake in it."""

    def __init__(self, folder: Path, answer: Answer | None = BINARY) -> None:
        self.spool = folder / "spool"
        self.uri = str(folder / "lake")
        self.letters = DeadLetters(folder / "letters", f"{self.uri}/dead_letters")
        self.answer = answer
        self.tally = Tally()

    def writer(self, name: str = "worker-1", **options: int) -> SegmentWriter:
        return SegmentWriter(self.spool / name, **{"bytes_max": 1 << 30, **options})

    def lake(self) -> Lake:
        return Lake(
            self.uri,
            self.spool,
            answers=lambda _: self.answer,
            letters=self.letters,
            clock=time.monotonic,
            clock_us=lambda: time.time_ns() // 1000,
            tally=self.tally,
        )

    def store(self, *blocks: Block, writer: str = "worker-1") -> None:
        """Spools the blocks with a writer of its own and brings them to the lake."""
        spool = self.writer(writer)
        spool.append(encode(*blocks))
        spool.close()
        lake = self.lake()
        while lake.read():
            assert lake.commit(), lake.failure
        assert lake.commit(), lake.failure
        lake.fold(everything=True)
        lake.close()
