"""A session of ONNX Runtime: the one room of that library."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnxruntime

from models.errors import ArtifactInvalid, InputInvalid, ModelFailed
from models.staged import Setting
from models.tensors import Array, in_sizes

_INVALID_ARGUMENT: Final = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
_RUN_ERRORS: Final = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.EPFail,
    RuntimeError,
    ValueError,
    TypeError,
)

_LEVELS: Final = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
}

VERSION: Final[str] = onnxruntime.__version__
_POSITION: Final = re.compile(r"Load model from .*? failed:|/\S+:\d+ [^)]*\) ")
"""Before what there is to say: our own file, or a file of the library with a line and the whole declaration of a function."""


class Stop:
    """Ends a run that nobody waits for any more, from another thread: at the next node of its graph, since none is left in the middle."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def now(self) -> None:
        """The run fails, and so does any that begins with this."""
        self.options.terminate = True

    @property
    def is_asked(self) -> bool:
        """Whether it is to end."""
        return bool(self.options.terminate)


class OnnxSession:
    """One loaded model. `run` is safe from several threads and lets go of the interpreter lock while it computes.

    Spinning is off: sessions share cores with the event loops of the workers, and a spinning thread takes the core from the
    next request (PERFORMANCE.md 3, session options: a gain only with an idle second core).
    """

    def __init__(self, path: Path, setting: Setting | None = None) -> None:
        """Loads `path`; raises ArtifactInvalid when ONNX Runtime refuses the file. Without a setting: one thread, the library's own defaults."""
        setting = setting or Setting()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = setting.arena
        options.graph_optimization_level = _LEVELS[setting.optimisation]
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if setting.shares_weights:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (
            Exception
        ) as error:  # the loader raises a dozen unrelated types; all of them mean: this file cannot be served
            raise ArtifactInvalid(f"ONNX Runtime cannot load {path.name}: {words_of(error)}") from error
        self.input_names: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self.size = _size([node.shape for node in nodes]) if self.input_names else None
        """The rows that every run must have, where the file fixes them for all inputs and outputs alike."""

    def run(self, inputs: Sequence[Array], output_names: Sequence[str], stop: Stop | None = None) -> list[Array]:
        """`inputs` in the order of `input_names`; answers in the order of `output_names`. Any number of rows, also where the file fixes it.

        Raises InputInvalid for what only the model could refuse (an inner dimension, an index out of range), else ModelFailed.
        """
        if self.size is not None and len(inputs[0]) != self.size:
            return in_sizes(lambda part: self._run(part, output_names, stop), inputs, self.size)
        return self._run(inputs, output_names, stop)

    def _run(self, inputs: Sequence[Array], output_names: Sequence[str], stop: Stop | None) -> list[Array]:
        fed = dict(zip(self.input_names, inputs, strict=True))
        try:
            outputs: list[Array] = self._session.run(output_names, fed, None if stop is None else stop.options)
        except _INVALID_ARGUMENT as error:
            raise InputInvalid(f"the model refuses this input: {words_of(error)}") from error
        except _RUN_ERRORS as error:
            raise ModelFailed("the model failed on this input") from error
        return outputs


def _size(shapes: Sequence[Sequence[object]]) -> int | None:
    sizes = {shape[0] if shape else None for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def words_of(error: BaseException) -> str:
    """What ONNX Runtime says, without its codes, node names and source positions; one line of at most 300 characters."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    for mark in (" : ", "Status Message: "):
        text = text.rpartition(mark)[2]
    return _POSITION.sub("", text)[:300].strip()
