"""Every public method of NVIDIA's clients, called once with fitting arguments, and what to expect of each.

The four clients (HTTP and gRPC, blocking and asyncio) share names and arguments but for the first few; the list is checked against
what reflection finds, so that a new release of the client cannot bring a method that nobody has looked at.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

import numpy as np

REFUSED: Final = {
    "load_model",
    "unload_model",
    "update_trace_settings",
    "get_trace_settings",
    "update_log_settings",
    "get_log_settings",
    "get_system_shared_memory_status",
    "register_system_shared_memory",
    "unregister_system_shared_memory",
    "get_cuda_shared_memory_status",
    "register_cuda_shared_memory",
    "unregister_cuda_shared_memory",
}
"""Answered with words: they need a key, or are not offered."""

ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    "is_server_live": (),
    "is_server_ready": (),
    "is_model_ready": ("phishing", "2"),
    "get_server_metadata": (),
    "get_model_metadata": ("phishing", "3"),
    "get_model_config": ("phishing",),
    "get_model_repository_index": (),
    "get_inference_statistics": ("phishing", "3"),
    "load_model": ("phishing",),
    "unload_model": ("phishing",),
    "update_trace_settings": ("phishing", {"trace_rate": "1"}),
    "get_trace_settings": ("phishing",),
    "update_log_settings": ({"log_verbose_level": 1},),
    "get_log_settings": (),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("region", "key", 16),
    "unregister_system_shared_memory": ("region",),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("region", b"aGFuZGxl", 0, 16),
    "unregister_cuda_shared_memory": ("region",),
}

NOT_CALLS: Final = {
    "close",
    "register_plugin",
    "unregister_plugin",
    "plugin",
    "generate_request_body",
    "parse_response_body",
    "infer",
    "async_infer",
    "stream_infer",
    "start_stream",
    "stop_stream",
    "async_stream_infer",
}
"""Local to the client, or tested each for itself."""


def public_methods(client: type) -> set[str]:
    """What a user of the client may call."""
    return {name for name, _ in inspect.getmembers(client, inspect.isroutine) if not name.startswith("_")}


def classifier_input(module: Any, rows: int = 2, **how: Any) -> Any:
    """The input of `phishing`; class 1 in every row."""
    made = module.InferInput("x", [rows, 4], "FP32")
    made.set_data_from_numpy(np.ones((rows, 4), dtype=np.float32), **how)
    return made


CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "is_server_live": bool,
    "is_server_ready": bool,
    "is_model_ready": bool,
    "get_server_metadata": lambda answer: plain(answer)["name"] == "runoff",
    "get_model_metadata": lambda answer: plain(answer)["inputs"][0]["name"] == "x",
    "get_model_config": lambda answer: (
        plain(answer).get("config", plain(answer))["input"][0]["data_type"] in ("TYPE_FP32", 11)
    ),
    "get_model_repository_index": lambda answer: any(
        row["name"] == "phishing" for row in (answer if isinstance(answer, list) else plain(answer)["models"])
    ),
    "get_inference_statistics": lambda answer: plain(answer)["model_stats"][0]["name"] == "phishing",
}
"""Triton's answer, told by one field that only the right message has."""


def plain(answer: Any) -> Any:
    """A message or a document as a document."""
    if isinstance(answer, dict | list):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)
