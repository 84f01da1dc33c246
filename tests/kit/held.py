"""A model whose runs go on, on a thread, until the test lets them end."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from models.catalog import LoadedModel
from models.errors import ModelFailed
from models.runtime.onnx import Stop
from models.staged import StagedModel
from tests.kit.plane import Plane


class Held:
    """The model's session: a run begins, and ends when it is let go; with an error where `is_broken`."""

    def __init__(self, session: Any, *, is_broken: bool = False) -> None:
        self._session = session
        self._is_broken = is_broken
        self._began, self._may_end = threading.Event(), threading.Event()

    def run(self, inputs: Sequence[Any], names: list[str], stop: Stop | None = None) -> list[Any]:
        self._began.set()
        assert self._may_end.wait(30)
        if self._is_broken:
            raise ModelFailed("the model failed on this input")
        return self._session.run(inputs, names, stop)  # type: ignore[no-any-return]

    async def begun(self) -> None:
        """Until a run has begun."""
        assert await asyncio.to_thread(self._began.wait, 30)

    def let_go(self) -> None:
        """Runs end, also those that begin from now on."""
        self._may_end.set()


def hold(plane: Plane, staged: StagedModel, *, is_broken: bool = False) -> tuple[LoadedModel, Held]:
    """From now on the model runs on a thread, several rows at once, for as long as the test wants."""
    model = plane.catalog.get(staged.digest)
    assert model is not None
    model._curve, model.rows_max = [0.5] * len(model._curve), 64
    held = Held(model.session, is_broken=is_broken)
    model.session = held  # type: ignore[assignment]
    return model, held


async def settled(plane: Plane, model: LoadedModel) -> None:
    """Until nothing is in flight, and no run holds the model."""
    for _ in range(2000):
        if not model.leases and not plane.data.inflight:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{model.leases} leases, {plane.data.inflight} in flight")
