"""Makes open_inference_pb2.py and its type stub from open_inference.proto: `python -m gateway.rpc.generate` after changing it.

The generated module registers its file in a descriptor pool of its own. The package `inference` is published, and a process that
also holds a client's stubs of it (NVIDIA's, KServe's) would otherwise define every symbol twice, which protobuf refuses.
"""

import sys
from pathlib import Path
from typing import Final

_DEFAULT_POOL: Final = "_descriptor_pool.Default().AddSerializedFile("
_OWN_POOL: Final = "_descriptor_pool.DescriptorPool().AddSerializedFile("


def main() -> int:
    """The exit status of protoc."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # only needed here, and only by developers

    here = Path(__file__).parent
    status: int = protoc.main(
        [
            "protoc",
            f"--proto_path={here}",
            f"--python_out={here}",
            f"--pyi_out={here}",
            str(here / "open_inference.proto"),
        ]
    )
    if status == 0:
        made = here / "open_inference_pb2.py"
        text = made.read_text(encoding="utf-8")
        assert text.count(_DEFAULT_POOL) == 1, "protoc writes another form: look at what it made"
        made.write_text(text.replace(_DEFAULT_POOL, _OWN_POOL), encoding="utf-8")
        stub = here / "open_inference_pb2.pyi"  # protoc leaves Mapping bare, which strict typing does not take
        stub.write_text(
            stub.read_text(encoding="utf-8").replace("_Mapping]", "_Mapping[str, object]]"), encoding="utf-8"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
