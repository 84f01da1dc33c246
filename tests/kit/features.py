"""A features process in the test's own event loop, over a store that a test can stop, break and slow down."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from gateway.features.client import FeatureClient
from gateway.features.frames import Feature, FoundColumn, Key
from gateway.features.lane import ServiceAbsent
from gateway.features.process import Features

KEYS = (Key("customer_id", "INT64", "INT64"),)
FEATURES = (
    Feature("income", "stats__income", "stats", "FP64", False, "DOUBLE"),
    Feature("segment", "stats__segment", "stats", "BYTES", False, "STRING"),
)


async def becomes(claim: Callable[[], object], within_s: float = 30.0) -> None:
    """Waits until the claim holds, while the loop goes on."""
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110  # a store on a thread of its own has no event for it
            await asyncio.sleep(0.01)


class SmallStore:
    """The service `credit`: `income` is ten times the customer's number, `segment` text; even customers are known. `age_s` old."""

    def __init__(self) -> None:
        self.reads: list[dict[str, list[Any]]] = []
        self.age_s = 0.0
        self.failure: Exception | None = None
        self.poison: int | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def describe(self, service: str) -> tuple[tuple[Key, ...], tuple[Feature, ...], tuple[str, ...]]:
        if service != "credit":
            raise ServiceAbsent("credit")
        return KEYS, FEATURES, ()

    def read(self, service: str, keys: dict[str, list[Any]]) -> dict[str, FoundColumn]:
        assert service == "credit"
        self.reads.append(keys)
        assert self.may_go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        asked = keys["customer_id"]
        if self.poison in asked:
            raise ValueError(f"customer {self.poison} is a canary")
        at = time.time() - self.age_s
        return {
            "stats__income": FoundColumn([10.0 * one if one % 2 == 0 else None for one in asked], [at] * len(asked)),
            "stats__segment": FoundColumn(["known" if one % 2 == 0 else None for one in asked], [at] * len(asked)),
        }

    async def asked(self, times: int = 1) -> None:
        """Waits until it was asked so often."""
        await becomes(lambda: len(self.reads) >= times)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Answers nobody meanwhile."""
        self.may_go_on.clear()
        try:
            yield
        finally:
            self.may_go_on.set()


class FeatureWorld:
    """Process and client on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SmallStore()
        self.opened = 0
        self.process = Features(folder, self._open)
        self.client = FeatureClient(folder)

    def _open(self) -> SmallStore:
        self.opened += 1
        return self.store

    async def __aenter__(self) -> Self:
        await self.process.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.may_go_on.set()
        await self.client.close()
        await self.process.close()
