"""The bench on real sessions of ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import InputInvalid, StagingRefused
from models.staged import Setting
from models.tuning.bench import SessionBench
from tests.kit.staged import stage_dense, stage_linear

PLAIN = Setting()


def made(folder: Path, rows: np.ndarray, **fields: bool) -> SessionBench:
    staged = stage_linear(folder, **fields)
    return SessionBench(folder / staged.digest / staged.file, staged.signature, [rows])


def test_a_run_takes_time_with_any_batch_of_the_samples(tmp_path: Path) -> None:
    bench = made(tmp_path, np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    assert bench.load(PLAIN) > 0
    assert all(bench.run(PLAIN, rows) > 0 for rows in (1, 2, 64))


def test_several_runs_at_once_share_a_session(tmp_path: Path) -> None:
    bench = made(tmp_path, np.ones((4, 2), np.float32))
    two = Setting(runs=2)
    bench.load(two)
    assert bench.run(two, 8) > 0


def test_rows_that_the_model_refuses_are_its_error_and_not_a_time(tmp_path: Path) -> None:
    bench = made(tmp_path, np.array([[666, 1]], np.float32), check_row=True)
    bench.load(PLAIN)
    with pytest.raises(InputInvalid):
        bench.run(PLAIN, 1)


def test_the_memory_of_a_session_holds_its_weights(tmp_path: Path) -> None:
    staged = stage_dense(tmp_path, width=1024, layers=2)  # 8 MB
    bench = SessionBench(tmp_path / staged.digest / staged.file, staged.signature, [np.ones((1, 1024), np.float32)])
    assert 8_000_000 < bench.memory_bytes(PLAIN, 8) < 64_000_000


def test_a_twin_that_there_is_not_is_refused_with_the_reason(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    bench = SessionBench(tmp_path / staged.digest / staged.file, staged.signature, [], no_twin="labels differ")
    with pytest.raises(StagingRefused, match="labels differ"):
        bench.load(Setting(form="int8"))
