"""Ray Serve with one replica. Pinned to one core its daemons starve the replica: not typical of Ray.

python -P ray_serve.py <model.onnx> <name> <http port> <grpc port: none> <folder> <rows of a batch, 0: no batching>
"""

import signal
import sys

import numpy as np
import onnxruntime
import ray
from ray import serve

path, _, http_port, _, folder, rows = sys.argv[1:]


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Onnx:
    def __init__(self, path: str, rows: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.input = self.session.get_inputs()[0].name
        self.rows = rows
        if rows:
            self.batched.set_max_batch_size(rows)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def batched(self, inputs):
        return list(self.session.run(None, {self.input: np.stack(inputs)})[-1])

    async def __call__(self, request):
        x = np.asarray((await request.json())["input"], np.float32)
        result = await self.batched(x) if self.rows else self.session.run(None, {self.input: x[None]})[-1][0]
        return {"output": result.tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="warning", _temp_dir=f"{folder}/r"[:60])
    serve.start(http_options={"host": "127.0.0.1", "port": int(http_port)}, logging_config={"enable_access_log": False})
    serve.run(Onnx.bind(path, int(rows)))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
