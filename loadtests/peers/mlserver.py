"""MLServer with a model of its own kind (its documented way for ONNX), without the process pool, which costs it half its speed.

python -P mlserver.py <model.onnx> <name> <http port> <grpc port> <folder> <rows of a batch, 0: no batching>
"""

import json
import os
import sys
from pathlib import Path

RUNTIME = """
import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        self.names = [one.name for one in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        results = self.session.run(None, {given.name: NumpyCodec.decode_input(given).astype(np.float32, copy=False)})
        outputs = [NumpyCodec.encode_output(name, one) for name, one in zip(self.names, results)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""

model, name, http_port, grpc_port, folder, rows = sys.argv[1:]
place = Path(folder)
(place / "onnx_runtime.py").write_text(RUNTIME)
settings = {
    "host": "127.0.0.1",
    "http_port": int(http_port),
    "grpc_port": int(grpc_port),
    "metrics_endpoint": None,
    "parallel_workers": 0,
    "debug": False,
}
(place / "settings.json").write_text(json.dumps(settings))
batching = {"max_batch_size": int(rows), "max_batch_time": 0.002} if int(rows) else {}
described = {"name": name, "implementation": "onnx_runtime.Onnx", "parameters": {"uri": model}, **batching}
(place / "model-settings.json").write_text(json.dumps(described))
program = Path(sys.executable).with_name("mlserver")
os.execv(program, [str(program), "start", str(place)])
