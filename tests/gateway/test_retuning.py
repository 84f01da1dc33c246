"""A model that was tuned anew gets a second session while it serves, and the tickets that hold it never notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.retuning import retune
from models import profiles
from models.catalog import Catalog
from models.runtime.onnx import VERSION
from models.staged import Profile, StagedModel
from tests.kit.staged import stage_linear


def tune(artifacts: Path, staged: StagedModel) -> None:
    profiles.write(
        artifacts / staged.digest,
        Profile(processor=profiles.processor(), onnxruntime=VERSION, seconds_by_rows={1: 1e-5}, rows_max=7),
    )


@asynccontextmanager
async def watching(catalog: Catalog) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(retune(catalog, look_s=0.01))
    yield task
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_new_profile_is_taken_up_while_the_model_serves(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    before = model.session
    tune(tmp_path, staged)
    async with watching(catalog), asyncio.timeout(30):
        while model.session is before:  # noqa: ASYNC110 - the catalog tells nobody
            await asyncio.sleep(0.01)
    assert catalog.get(staged.digest) is model
    label, _ = model.run([np.array([[1, 2]], np.float32)])
    assert label.tolist() == [1]


async def test_whatever_is_wrong_with_what_was_tuned_the_old_session_goes_on_and_the_worker_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    before = model.session
    msgspec.structs.replace(staged, samples_file="samples.npz").write(tmp_path / staged.digest)
    (tmp_path / staged.digest / "samples.npz").write_bytes(b"no archive")
    tune(tmp_path, staged)
    async with watching(catalog) as task, asyncio.timeout(30):
        while "model_not_retuned" not in caplog.text:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert not task.done()
    assert model.session is before
