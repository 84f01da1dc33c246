"""LitServe with one worker; its server and its workers are processes of their own.

python -P litserve.py <model.onnx> <name> <http port> <grpc port: none> <folder> <rows of a batch, 0: no batching>
"""

import sys

import litserve
import numpy as np
import onnxruntime

path, _, http_port, _, _, rows = sys.argv[1:]


class Onnx(litserve.LitAPI):
    def setup(self, _):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.input = self.session.get_inputs()[0].name

    def decode_request(self, request, **_):
        return np.asarray(request["input"], np.float32)

    def batch(self, inputs):
        return np.stack(inputs)

    def unbatch(self, output):
        return list(output)

    def predict(self, x, **_):
        result = self.session.run(None, {self.input: x if int(rows) else x[None]})[-1]
        return result if int(rows) else result[0]

    def encode_response(self, output, **_):
        return {"output": output.tolist()}


if __name__ == "__main__":
    batching = {"max_batch_size": int(rows), "batch_timeout": 0.002} if int(rows) else {}
    server = litserve.LitServer(Onnx(**batching), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(http_port), generate_client_file=False, log_level="warning", access_log=False)
