"""BentoML's production server with one worker process.

python -P bentoml.py <model.onnx> <name> <http port> <grpc port: none> <folder> <rows of a batch, 0: no batching>
"""

import os
import sys
from pathlib import Path

SERVICE = """
import bentoml
import numpy as np
import onnxruntime

@bentoml.service(workers=1, traffic={{"timeout": 30, "max_concurrency": 256}}, logging={{"access": {{"enabled": False}}}})
class Onnx:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession({path!r}, options)
        self.input = self.session.get_inputs()[0].name

    @bentoml.api({batching})
    def predict(self, input: np.ndarray) -> np.ndarray:
        return self.session.run(None, {{self.input: input.astype(np.float32, copy=False)}})[-1]
"""

path, _, http_port, _, folder, rows = sys.argv[1:]
batching = f"batchable=True, max_batch_size={rows}" if int(rows) else ""
(Path(folder) / "service.py").write_text(SERVICE.format(path=path, batching=batching))
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["BENTOML_HOME"] = folder
program = Path(sys.executable).with_name("bentoml")
arguments = ["serve", "service:Onnx", "--host", "127.0.0.1", "--port", http_port, "--working-dir", folder]
os.execv(program, [str(program), *arguments])
