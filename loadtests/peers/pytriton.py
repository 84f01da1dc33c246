"""PyTriton: Triton's C++ front over a Python process, with its dynamic batcher (its default way).

python -P pytriton.py <model.onnx> <name> <http port> <grpc port> <folder> <rows of a batch>
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

path, name, http_port, grpc_port, folder, rows = sys.argv[1:]
KINDS = {"tensor(float)": np.float32, "tensor(int64)": np.int64}

if __name__ == "__main__":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    given, results = session.get_inputs()[0], session.get_outputs()

    @batch
    def infer(**inputs):
        found = session.run(None, inputs)
        return {one.name: value.reshape(len(value), -1) for one, value in zip(results, found, strict=True)}

    config = TritonConfig(
        http_port=int(http_port),
        grpc_port=int(grpc_port),
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        allow_metrics=False,
    )
    with Triton(config=config, workspace=f"{folder}/triton") as triton:
        triton.bind(
            model_name=name,
            infer_func=infer,
            inputs=[Tensor(name=given.name, dtype=np.float32, shape=tuple(given.shape[1:]))],
            outputs=[Tensor(name=one.name, dtype=KINDS[one.type], shape=(-1,)) for one in results],
            config=ModelConfig(max_batch_size=int(rows) or 32, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
