"""nghttp2's load generator against both doors of gRPC: many connections, many streams on each, every request a success."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gateway.rpc import open_inference_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
REQUESTS = 2000


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here (Debian: apt-get install nghttp2-client)")
@pytest.mark.parametrize(("connections", "streams"), [(16, 1), (1, 100), (8, 16)])
def test_every_request_of_a_load_succeeds(grpc_address: str, tmp_path: Path, connections: int, streams: int) -> None:
    request = pb.ModelInferRequest(model_name="phishing", raw_input_contents=[np.ones(4, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    message = request.SerializeToString()
    (tmp_path / "body").write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    command = ["h2load", f"-n{REQUESTS}", f"-c{connections}", f"-m{streams}", "-t1", "-d", tmp_path / "body"]
    fields = ["-H", "te: trailers", "-H", "content-type: application/grpc"]
    told = subprocess.run(
        [*command, *fields, f"http://{grpc_address}{METHOD}"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", told)
    data = re.search(r"headers.*, [^,]+ \((\d+)\) data", told)
    assert counts is not None, told
    assert data is not None, told
    assert counts.groups() == (str(REQUESTS), "0", "0")
    assert (
        int(data[1]) % REQUESTS == 0
    )  # all answers have one size: h2load sees no grpc-status, but a refusal has no DATA
    assert int(data[1]) > 50 * REQUESTS
