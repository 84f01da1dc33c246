import asyncio

from gateway.control.fleet import Fleet


def workers(fleet, *names):
    fleet.hear({"event": "workers", "live": list(names), "exited": []})


def said(fleet, worker, event, revision=1, **more):
    fleet.hear({"event": event, "worker": worker, "endpoint": "e", "revision": revision, **more})


async def test_nobody_live_is_nobody_to_wait_for():
    fleet = Fleet()
    workers(fleet)
    assert await fleet.warm(1, 1.0, lambda: True) == []


async def test_who_is_active_is_warm():
    fleet = Fleet()
    workers(fleet, "a")
    said(fleet, "a", "active")
    assert await fleet.warm(1, 1.0, lambda: True) == []
    assert fleet.answers(1).active == {"a"}


async def test_the_failure_of_a_worker_that_died_does_not_count():
    fleet = Fleet()
    workers(fleet, "a", "b")
    said(fleet, "a", "failed", problem="no memory")
    workers(fleet, "b")
    said(fleet, "b", "warm")
    assert await fleet.warm(1, 1.0, lambda: True) == []


async def test_a_worker_that_succeeds_after_a_failure_counts_as_warm():
    fleet = Fleet()
    workers(fleet, "a")
    said(fleet, "a", "failed", problem="no memory")
    said(fleet, "a", "warm")
    assert await fleet.warm(1, 1.0, lambda: True) == []


async def test_waiting_ends_when_the_revision_is_not_wanted_any_more():
    fleet, wanted = Fleet(), [True]
    workers(fleet, "a")
    waiting = asyncio.create_task(fleet.warm(1, 60.0, lambda: wanted[0]))
    await asyncio.sleep(0)
    wanted[0] = False
    fleet.wake()
    assert await waiting == []


async def test_control_knows_who_is_live_only_when_it_was_told():
    fleet = Fleet()
    assert not await fleet.known(0.01)
    workers(fleet)
    assert await fleet.known(0.01)


def test_what_is_kept_of_old_revisions_is_bounded():
    fleet = Fleet()
    for revision in range(1000):
        said(fleet, "a", "warm", revision)
    assert fleet.answers(0).warm == set()
    assert fleet.answers(999).warm == {"a"}


def test_lines_that_are_no_answer_are_shown_and_harmless():
    fleet = Fleet()
    fleet.hear({"event": "weather", "sky": "blue"})
    fleet.hear({"event": "warm", "revision": "no number"})
    assert {"event": "weather", "sky": "blue"} in fleet.runtime()["lines"]


async def test_who_waits_for_a_revision_to_be_served_waits_for_every_live_worker_that_can():
    fleet = Fleet()
    workers(fleet, "a", "b")
    said(fleet, "a", "active")
    assert not await fleet.serving(1, 0.01)
    said(fleet, "b", "failed", problem="no memory")
    assert await fleet.serving(1, 0.01)
