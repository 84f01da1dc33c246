"""The converter's process: its end is noticed however it comes, and it is alone."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from models.convert.isolation import convert
from models.convert.job import RESULT_FILE, Request
from models.errors import StagingRefused
from tests.kit.processes import is_running
from tests.kit.registered import doubled
from tests.kit.supervised import eventually


class Stored:
    """Opening it evaluates `code`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def request(folder: Path, code: str, **more: Any) -> Request:
    (folder / "MLmodel").write_text("flavors:\n  sklearn: {pickled_model: model.pkl, serialization_format: pickle}\n")
    (folder / "model.pkl").write_bytes(pickle.dumps(Stored(code)))
    return Request(source=str(folder), into=str(folder), name="stored", trust_pickle=("stored",), **more)


def refusal(folder: Path, code: str, **more: Any) -> StagingRefused:
    with pytest.raises(StagingRefused) as refused:
        convert(request(folder, code, **more))
    return refused.value


def test_a_result_comes_back_typed_and_its_file_is_gone(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(doubled().SerializeToString())

    result = convert(Request(source=str(folder), into=str(folder), name="doubled"))

    assert str(result.signature.outputs[0]) == "y: FP32 [-1, 2]"
    assert not (folder / RESULT_FILE).exists()


def test_a_process_that_dies_is_told_with_its_status(folder: Path) -> None:
    refused = refusal(folder, "__import__('os').kill(__import__('os').getpid(), 9)")

    assert refused.code == "conversion_died"
    assert "status -9" in refused.message


def test_an_exit_without_a_result_is_no_success(folder: Path) -> None:
    assert refusal(folder, "__import__('os')._exit(0)").code == "conversion_died"


def test_a_forged_result_is_not_believed(folder: Path) -> None:
    forged = f"open({str(folder / RESULT_FILE)!r}, 'w').write('{{}}'), __import__('os')._exit(0)"

    assert refusal(folder, f"[{forged}]").code == "conversion_died"


def test_memory_has_an_end(folder: Path) -> None:
    refused = refusal(folder, "bytearray(1 << 33)", memory_bytes_max=4 << 30)

    assert refused.code == "memory_exceeded"


def test_processor_time_has_an_end(folder: Path) -> None:
    refused = refusal(folder, "[0 for _ in iter(int, 1)]", cpu_s_max=2)

    assert refused.code == "conversion_died"


def test_what_it_started_ends_with_it(folder: Path, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    code = f"open({str(started)!r}, 'w').write(str(__import__('subprocess').Popen(['sleep', '600']).pid))"

    refusal(folder, code)

    eventually(
        lambda: not is_running(int(started.read_text()))
    )  # it has been killed, and ends when it next gets a core


def test_a_models_own_exception_is_a_refusal(folder: Path) -> None:
    refused = refusal(folder, "1 / 0")

    assert refused.code == "conversion_failed"
    assert "ZeroDivisionError" in refused.message
