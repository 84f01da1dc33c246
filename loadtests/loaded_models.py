"""The models of the benchmarks, made on the spot as ONNX: a small one whose run costs less than its transport, and one of 8 MB."""

from itertools import pairwise
from pathlib import Path

import numpy as np

GBM_COLUMNS = 30
MLP_WIDTHS = (512, 1024, 1024, 512, 10)


def gbm(work: Path) -> tuple[Path, np.ndarray]:
    """100 boosted trees over 30 floats, and rows to ask about (rounded, so that JSON carries them exactly enough)."""
    from skl2onnx import to_onnx  # only here: seven seconds
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    fitted = GradientBoostingClassifier(n_estimators=100, random_state=0).fit(x, y)
    converted = to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    path = work / "gbm.onnx"
    path.write_bytes(converted.SerializeToString())
    return path, np.round(x[:20], 4)


def mlp(work: Path) -> tuple[Path, np.ndarray]:
    """Four dense layers with ReLU between them, 8.4 MB, and rows to ask about."""
    from onnx import TensorProto, checker, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "X"
    for place, (wide, narrow) in enumerate(pairwise(MLP_WIDTHS)):
        matrix = random.normal(0, wide**-0.5, (wide, narrow)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{place}"))
        is_last = place == len(MLP_WIDTHS) - 2
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], ["Y" if is_last else f"h{place}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"h{place}"], [f"a{place}"]))
        last = f"a{place}"
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, MLP_WIDTHS[0]])
    result = helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, MLP_WIDTHS[-1]])
    model = helper.make_model(
        helper.make_graph(nodes, "mlp", [given], [result], weights),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    checker.check_model(model)
    path = work / "mlp.onnx"
    path.write_bytes(model.SerializeToString())
    return path, np.round(random.normal(0, 1, (20, MLP_WIDTHS[0])), 4).astype(np.float32)


def pixels(work: Path) -> tuple[Path, np.ndarray]:
    """The mean over each picture of 3 × 224 × 224: next to no computing, so that what counts is how the picture arrives."""
    from onnx import TensorProto, checker, helper

    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("ReduceMean", ["X"], ["Y"], axes=[1, 2, 3], keepdims=0)],
            "pixels",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3, 224, 224])],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    path = work / "pixels.onnx"
    path.write_bytes(model.SerializeToString())
    return path, np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)


def laborious(work: Path, wanted_s: float) -> tuple[Path, np.ndarray, float]:
    """A loop that computes for about so long on this machine; rows to ask about, and how long a run really takes."""
    import time

    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper

    def made(turns: int) -> Path:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("MatMul", ["v", "w"], ["u"]),
                helper.make_node("Tanh", ["u"], ["v_out"]),
            ],
            "turn",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.FLOAT, [None, 64]),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [None, 64]),
            ],
        )
        weights = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("Loop", ["turns", "yes", "X"], ["Y"], body=body)],
            "laborious",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 64])],
            [
                numpy_helper.from_array(np.array(turns, np.int64), "turns"),
                numpy_helper.from_array(np.array(True), "yes"),
                numpy_helper.from_array(weights, "w"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        checker.check_model(model)
        path = work / "laborious.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    def run_s(path: Path) -> float:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)
        began = time.perf_counter()
        session.run(None, {"X": rows[:1]})
        return time.perf_counter() - began

    rows = np.round(np.random.default_rng(1).random((2, 64)), 4).astype(np.float32)
    path = made(max(1, int(10_000 * wanted_s / run_s(made(10_000)))))
    return path, rows, run_s(path)
