import pytest

from gateway.processes.board import Board


@pytest.fixture
def board():
    board = Board()
    for number in range(2):
        board.born(f"worker-{number}", f"w{number}")
    return board


def beat(**endpoints: bool) -> dict:
    return {"event": "beat", "loop_lag_s": 0.0, "endpoints": endpoints}


def test_no_routes_at_all_is_ready_once_a_worker_listens(board):
    assert not board.readiness().ready
    board.hear("worker-0", {"event": "ready"})
    assert board.readiness().ready


def test_every_endpoint_must_be_warm_in_some_listening_worker(board):
    board.hear("worker-0", {"event": "ready"})
    board.hear("worker-0", beat(a=True, b=False))
    assert not board.readiness().ready
    board.hear("worker-1", beat(a=True, b=True))
    assert not board.readiness().ready  # warm, but it does not listen
    board.hear("worker-1", {"event": "ready"})
    assert board.readiness().ready
    assert board.readiness().endpoints == {"a": True, "b": True}


def test_an_endpoint_that_cannot_load_does_not_make_the_others_unready(board):
    board.hear("worker-0", {"event": "ready"})
    board.hear("worker-0", {"event": "failed", "endpoint": "b", "revision": 2, "problem": "x"})
    board.hear("worker-0", beat(a=True, b=False))
    readiness = board.readiness()
    assert readiness.ready
    assert readiness.endpoints == {"a": True, "b": False}


def test_when_no_endpoint_can_be_answered_nobody_is_ready(board):
    board.hear("worker-0", {"event": "ready"})
    board.hear("worker-0", {"event": "failed", "endpoint": "b", "revision": 2, "problem": "x"})
    board.hear("worker-0", beat(b=False))
    assert not board.readiness().ready


def test_draining_is_not_ready(board):
    board.hear("worker-0", {"event": "ready"})
    board.is_draining = True
    assert not board.readiness().ready


def test_a_dead_workers_warmth_is_forgotten(board):
    board.hear("worker-0", {"event": "ready"})
    board.hear("worker-0", beat(a=True))
    board.died("worker-0")
    assert not board.readiness().ready
    assert board.readiness().endpoints == {}


def test_control_is_told_of_warm_failed_and_active_with_the_worker_and_of_nothing_else(board):
    line = {"event": "warm", "endpoint": "a", "revision": 3}
    assert board.hear("worker-1", line) == line | {"worker": "w1"}
    assert board.hear("worker-1", beat()) is None
    assert board.hear("worker-1", {"event": "ready"}) is None


def test_the_roster_names_who_listens_and_who_went_since_the_last(board):
    board.hear("worker-0", {"event": "ready"})
    board.died("worker-1")
    assert board.roster() == {"event": "workers", "live": ["w0"], "exited": ["w1"]}
    assert board.roster() == {"event": "workers", "live": ["w0"], "exited": []}


def test_a_restarted_control_is_told_the_newest_of_each_again(board):
    for revision in (3, 4):
        board.hear("worker-0", {"event": "active", "endpoint": "a", "revision": revision})
    board.hear("worker-1", {"event": "warm", "endpoint": "a", "revision": 5})
    board.died("worker-1")
    assert board.retold() == [{"event": "active", "endpoint": "a", "revision": 4, "worker": "w0"}]
