"""`mlflow models serve` on a model logged with the onnx flavor: one uvicorn worker.

python -P mlflow.py <model.onnx> <name> <http port> <grpc port: none> <folder> <rows of a batch: it has none>
"""

import os
import sys
from pathlib import Path

import mlflow.onnx
import onnx

path, _, http_port, _, folder, _ = sys.argv[1:]
place = Path(folder) / "model"
mlflow.onnx.save_model(onnx.load(path), place)
program = Path(sys.executable).with_name("mlflow")
os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
arguments = [
    "models",
    "serve",
    "-m",
    str(place),
    "-h",
    "127.0.0.1",
    "-p",
    http_port,
    "-w",
    "1",
    "--env-manager",
    "local",
]
os.execv(program, [str(program), *arguments])
