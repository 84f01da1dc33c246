"""The pool runs what it is given on its own threads and waits for it at the end."""

import threading

from models.pool import ComputePool


def test_work_runs_on_a_compute_thread_and_close_waits_for_it() -> None:
    names: list[str] = []
    pool = ComputePool(1)
    pool.submit(lambda: names.append(threading.current_thread().name))
    pool.close()
    assert len(names) == 1
    assert names[0].startswith("compute")
