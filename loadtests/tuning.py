"""How near the tuned profile comes to the best of everything: `python -m loadtests.tuning [--threads N] [--target-ms MS]`.

Three models (gradient boosting, an MLP of 8 MB, a small CNN) are tuned as staging does it, in the process of low priority, and swept
exhaustively: every batch × threads × arena × optimisation. Then the two winners run side by side, in turns, and the ratio of their
rows a second is printed, the way to a thread counted for runs above a millisecond. Temporary files only; a minute or two.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.signature import Answer, Signature, TensorSpec
from models.staged import Ask, ModelKey, Setting, StagedModel
from models.tuning.bench import SessionBench
from models.tuning.process import measure
from models.tuning.search import ROWS, cost_s
from tests.kit.staged import write

_SWEEP_S = 0.1
"""Seconds for each point of the sweep, as many as the search takes at most."""
_DUELS = 15

RANDOM = np.random.default_rng(7)


def gbm(folder: Path) -> StagedModel:
    """100 boosted trees on 30 columns, as the one of PERFORMANCE.md."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    rows, labels = load_breast_cancer(return_X_y=True)
    fitted = GradientBoostingClassifier(random_state=0).fit(rows, labels)
    model = to_onnx(fitted, rows[:1].astype(np.float32), target_opset=18, options={"zipmap": False})
    model.ir_version = 9
    return _stage(folder, model.graph, "gbm", (30,), rows[:64].astype(np.float32), opsets=list(model.opset_import))


def mlp(folder: Path) -> StagedModel:
    """512-1024-1024-512-10, 8.4 MB."""
    sizes = (512, 1024, 1024, 512, 10)
    nodes, weights, last = [], [], "x"
    for place, (wide, narrow) in enumerate(itertools.pairwise(sizes)):
        matrix = RANDOM.normal(0, wide**-0.5, (wide, narrow)).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{place}"),
            numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{place}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{place}", f"b{place}"], [f"h{place}"]))
        nodes.append(helper.make_node("Relu" if place < 3 else "Softmax", [f"h{place}"], [f"a{place}"]))
        last = f"a{place}"
    graph = _graph(nodes, weights, (512,), last, (10,))
    return _stage(folder, graph, "mlp", (512,), RANDOM.normal(size=(64, 512)).astype(np.float32))


def cnn(folder: Path) -> StagedModel:
    """Three convolutions on 3 × 64 × 64."""
    nodes, weights, last, before = [], [], "x", 3
    for place, channels in enumerate((16, 32, 64)):
        kernel = RANDOM.normal(0, (before * 9) ** -0.5, (channels, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"k{place}"))
        nodes.append(
            helper.make_node(
                "Conv", [last, f"k{place}"], [f"c{place}"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"]))
        last, before = f"r{place}", channels
    weights.append(numpy_helper.from_array(RANDOM.normal(size=(64, 10)).astype(np.float32), "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = _graph(nodes, weights, (3, 64, 64), "y", (10,))
    return _stage(folder, graph, "cnn", (3, 64, 64), RANDOM.normal(size=(16, 3, 64, 64)).astype(np.float32))


def _graph(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    tail: tuple[int, ...],
    out: str,
    out_tail: tuple[int, ...],
) -> onnx.GraphProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *tail])
    made = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["rows", *out_tail])
    return helper.make_graph(nodes, "bench", [given], [made], weights)


def _stage(
    folder: Path,
    graph: onnx.GraphProto,
    name: str,
    tail: tuple[int, ...],
    rows: np.ndarray,
    opsets: list[onnx.OperatorSetIdProto] | None = None,
) -> StagedModel:
    """Stages the graph with sample rows; outputs are what the graph says."""
    import msgspec

    given = graph.input[0].name
    outputs = tuple(
        TensorSpec(
            name=one.name,
            datatype="INT64" if one.type.tensor_type.elem_type == TensorProto.INT64 else "FP32",
            shape=(-1, *(dim.dim_value for dim in one.type.tensor_type.shape.dim[1:])),
        )
        for one in graph.output
    )
    signature = Signature(inputs=(TensorSpec(name=given, datatype="FP32", shape=(-1, *tail)),), outputs=outputs)
    staged = write(folder, graph, signature, Answer(), ModelKey(name, "1"), opsets=opsets)
    np.savez(folder / staged.digest / "samples.npz", **{given: rows})
    staged = msgspec.structs.replace(staged, samples_file="samples.npz")
    staged.write(folder / staged.digest)
    return staged


def bench_of(folder: Path, staged: StagedModel) -> SessionBench:
    from models.batching import fill_samples

    place = folder / staged.digest
    return SessionBench(place / staged.file, staged.signature, fill_samples(staged, place))


def sweep(bench: SessionBench, threads_max: int, target_s: float) -> tuple[Setting, int, int]:
    """The best of everything, and how many points that were."""
    best, points = (0.0, Setting(), 1), 0
    for threads, arena, level in itertools.product(
        range(1, threads_max + 1), (True, False), ("all", "extended", "basic")
    ):
        setting = Setting(threads=threads, arena=arena, optimisation=level)
        bench.load(setting)
        for rows in ROWS:
            seconds = least(partial(bench.run, setting, rows), _SWEEP_S)
            points += 1
            if seconds <= target_s and rows / cost_s(seconds) > best[0]:
                best = (rows / cost_s(seconds), setting, rows)
        bench.drop(setting)
    return best[1], best[2], points


def least(run: Callable[[], float], for_s: float) -> float:
    run()
    ends, lowest = time.perf_counter() + for_s, run()
    while time.perf_counter() < ends:
        lowest = min(lowest, run())
    return lowest


def duel(bench: SessionBench, tuned: tuple[Setting, int], swept: tuple[Setting, int]) -> float:
    """Rows a second of the tuned against the swept, each by its least run of all turns: what else runs on the machine falls out."""
    for setting in {tuned[0], swept[0]}:
        bench.load(setting)
    lowest = [float("inf")] * 2
    for _ in range(_DUELS):
        for place, run in enumerate((tuned, swept)):
            lowest[place] = min(lowest[place], least(partial(bench.run, *run), _SWEEP_S))
    return (tuned[1] / cost_s(lowest[0])) / (swept[1] / cost_s(lowest[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads that a session may have")
    parser.add_argument("--target-ms", type=float, default=50.0, help="the longest run")
    parser.add_argument("--model", choices=("gbm", "mlp", "cnn"), action="append")
    options = parser.parse_args()
    print("| model | tuned in | trials | tuned | sweep in | points | best of the sweep | tuned / best |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for make in (gbm, mlp, cnn):
            if options.model and make.__name__ not in options.model:
                continue
            staged = make(Path(place))
            artifact = Path(place) / staged.digest
            began = time.perf_counter()
            ask = Ask(target_s=options.target_ms / 1e3)
            profile = measure(artifact, staged, ask=ask, threads_max=options.threads)
            tuned_s, began = time.perf_counter() - began, time.perf_counter()
            bench = bench_of(Path(place), staged)
            setting, rows, points = sweep(bench, options.threads, ask.target_s)
            swept_s = time.perf_counter() - began
            ratio = duel(bench, (profile.setting, profile.rows_max), (setting, rows))
            print(
                f"| {make.__name__} | {tuned_s:.1f} s | {len(profile.trials)} | {said(profile.setting, profile.rows_max)} "
                f"| {swept_s:.1f} s | {points} | {said(setting, rows)} | {ratio:.3f} |",
                flush=True,
            )


def said(setting: Setting, rows: int) -> str:
    arena = "" if setting.arena else ", no arena"
    return f"{rows} rows, {setting.threads} threads, {setting.optimisation}{arena}"


if __name__ == "__main__":
    main()
