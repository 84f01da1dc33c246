"""The threads that run what is too slow for the event loop. ONNX Runtime lets go of the interpreter lock while it computes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class ComputePool:
    """A few threads, `size` at most. What is queued is bounded by the callers: one batch a model at a time."""

    def __init__(self, size: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="compute")

    def submit(self, work: Callable[[], None]) -> None:
        """Runs `work` on a thread; `work` handles its own errors and hands its result over itself."""
        self._threads.submit(work)

    def close(self) -> None:
        """Waits for what runs."""
        self._threads.shutdown(wait=True)
