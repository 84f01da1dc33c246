"""A model that was tuned anew gets a second session while it serves, and the tickets that hold it never notice."""

import asyncio
from contextlib import suppress
from pathlib import Path

import numpy as np

from gateway.retuning import retune
from models import profiles
from models.catalog import Catalog
from models.runtime.onnx import VERSION
from models.staged import Profile
from tests.kit.staged import stage_linear


async def test_a_new_profile_is_taken_up_while_the_model_serves(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    before = model.session
    profiles.write(
        tmp_path / staged.digest,
        Profile(processor=profiles.processor(), onnxruntime=VERSION, seconds_by_rows={1: 1e-5}, rows_max=7),
    )
    watching = asyncio.create_task(retune(catalog, look_s=0.01))
    async with asyncio.timeout(20):
        while model.session is before:  # noqa: ASYNC110 - the catalog tells nobody
            await asyncio.sleep(0.01)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert catalog.get(staged.digest) is model
    label, _ = model.run([np.array([[1, 2]], np.float32)])
    assert label.tolist() == [1]
