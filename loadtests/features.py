"""What a lookup costs: the same endpoint asked with every input sent, and with join keys in place of four of five: `python -m loadtests.features`.

Windows of both take turns. `--seconds` a window, `--rounds` of each, `--connections` at once. Needs wrk and the extra `feast`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from loadtests.machine import cpu_s, machine, memory_mb
from loadtests.whole_gateway import gateway
from loadtests.windows import Window, wrk
from tests.kit.feature_repo import FeatureRepo, credit_model

CUSTOMERS = 200
KEYED = """
local n = 0
request = function()
  n = (n + 7) % {customers}
  local body = '{{"inputs": [{{"name": "customer_id", "shape": [1, 1], "datatype": "INT64", "data": [' .. n ..
    ']}}, {{"name": "shop_id", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}}, {{"name": "amount", "shape": [1, 1], "datatype": "FP32", "data": [1]}}]}}'
  return wrk.format("POST", nil, {{["content-type"] = "application/json"}}, body)
end
"""
SENT = """
request = function()
  local body = '{{"inputs": [{{"name": "amount", "shape": [1, 1], "datatype": "FP32", "data": [1]}}, {{"name": "income", "shape": [1, 1], "datatype": "FP64", "data": [1]}}, '
    .. '{{"name": "orders", "shape": [1, 1], "datatype": "INT64", "data": [1]}}, {{"name": "segment", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}}, '
    .. '{{"name": "rating", "shape": [1, 1], "datatype": "FP32", "data": [1]}}]}}'
  return wrk.format("POST", nil, {{["content-type"] = "application/json"}}, body)
end
"""


def main() -> None:
    """Prints the medians and the ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=5)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--connections", type=int, default=16)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="runoff-features-") as name:
        folder = Path(name)
        repo = FeatureRepo(folder / "repo")
        for number in range(CUSTOMERS):
            repo.push_customer(number, income=float(number), orders=number, segment="a")
        repo.push_shop("x", rating=0.5)
        alone = [_direct(repo) for _ in range(200)]
        features = {"service": "credit", "timeout_ms": 2000, "max_age_s": 0}
        with gateway(
            folder / "var",
            {"credit": Path(credit_model(folder / "credit.onnx"))},
            {"features": features},
            features_repo=str(repo.folder),
        ) as running:
            windows: dict[str, list[Window]] = {"sent": [], "keyed": []}
            scripts = {"sent": SENT, "keyed": KEYED}
            for kind, text in scripts.items():
                (folder / f"{kind}.lua").write_text(text.format(customers=CUSTOMERS))
            url = f"{running.rest}/v2/models/credit/infer"
            used: dict[str, float] = dict.fromkeys(scripts, 0.0)
            for _ in range(asked.rounds):
                for kind, found in windows.items():
                    before = cpu_s(running.workers)
                    found.append(wrk(url, folder / f"{kind}.lua", connections=asked.connections, seconds=asked.seconds))
                    used[kind] += cpu_s(running.workers) - before
            print(machine())
            print(f"store alone, one row: p50 {median(alone) * 1e6:.0f} µs")
            print(f"memory: worker {memory_mb(running.workers):.0f} MB")
            for kind, found in windows.items():
                count = sum(one.count for one in found)
                print(
                    f"{kind:6} {median(one.rate for one in found):8.0f}/s  p50 {median(one.p50_us for one in found):6.0f} µs"
                    f"  p99 {median(one.p99_us for one in found):6.0f} µs  worker {used[kind] / count * 1e6:5.0f} µs of processor a request"
                )
            ratios = [keyed.rate / sent.rate for sent, keyed in zip(windows["sent"], windows["keyed"], strict=True)]
            print(
                f"keyed / sent: {median(ratios):.2f} of the rate (rounds {', '.join(f'{one:.2f}' for one in ratios)})"
            )


def _direct(repo: FeatureRepo) -> float:
    """One question to the store in this process."""
    service = repo.store.get_feature_service("credit")
    started = time.perf_counter()
    repo.store.get_online_features(service, {"customer_id": [1], "shop_id": ["x"]}, full_feature_names=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
