"""KServe's Python model server: one worker process, because it pickles the model into more.

python -P kserve.py <model.onnx> <name> <http port> <grpc port> <folder> <rows of a batch: it has none in the process>
"""

import sys

import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

path, name, http_port, grpc_port, _, _ = sys.argv[1:]


class Onnx(Model):
    def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, *_, **__) -> InferResponse:
        given = payload.inputs[0]
        results = self.session.run(None, {given.name: given.as_numpy().astype(np.float32, copy=False)})
        outputs = []
        for one, result in zip(self.session.get_outputs(), results, strict=True):
            output = InferOutput(one.name, list(result.shape), "INT64" if "int64" in one.type else "FP32")
            output.set_data_from_numpy(result, binary_data=payload.from_grpc)
            outputs.append(output)
        return InferResponse(payload.id or "", self.name, outputs)


if __name__ == "__main__":
    model = Onnx(name)
    model.load()
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1, access_log_format=None).start([model])
