import asyncio

import pytest

from gateway.errors import DeadlinePassed, EndpointUnknown, LoadRefused, NotReady
from gateway.inquiries import ANSWER_BYTES_MAX, OPEN_MAX, AskedRepository, AskedStatistics, Inquiries, answered
from gateway.repository import VersionState
from gateway.statistics import BatchStatistics, ModelStatistics


class Asked:
    """Whoever a worker asks, as the supervisor passes it on: `answers` are given to every question, `None` is silence."""

    def __init__(self, *answers):
        self.answers = answers
        self.questions = []
        self.inquiries = Inquiries(self.tell)

    def tell(self, line):
        self.questions.append(line)
        self.inquiries.hear({"command": "asked_of", "id": line["id"], "count": len(self.answers)})
        for answer in self.answers:
            if answer is not None:
                self.inquiries.hear({"command": "answer", "id": line["id"], "answer": answer})


def ready(endpoint):
    return [VersionState(endpoint=endpoint, version="1", state="READY")]


async def test_all_that_were_asked_are_waited_for():
    asked = Asked({"n": 1}, {"n": 2})
    assert await asked.inquiries.ask("workers", {"q": 1}, 5) == [{"n": 1}, {"n": 2}]
    assert asked.questions == [{"event": "ask", "id": 1, "to": "workers", "question": {"q": 1}}]


async def test_who_does_not_answer_in_time_is_gone_on_without():
    asked = Asked({"n": 1}, None)
    assert await asked.inquiries.ask("workers", {}, 0.01) == [{"n": 1}]
    asked.inquiries.hear({"command": "answer", "id": 1, "answer": {"n": 2}})  # too late, and no harm


async def test_nobody_to_ask_is_no_answer():
    assert await Asked().inquiries.ask("control", {}, 5) == []


async def test_open_questions_are_bounded():
    inquiries = Inquiries(lambda line: None)
    waiting = [asyncio.create_task(inquiries.ask("control", {}, 60)) for _ in range(OPEN_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await inquiries.ask("control", {}, 60)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert inquiries._open == {}


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((), NotReady),
        (({},), NotReady),
        (({"code": "endpoint_unknown", "error": "no"},), EndpointUnknown),
        (({"code": "load_refused", "error": "no"},), LoadRefused),
        (({"code": "late", "error": "no"},), DeadlinePassed),
        (({"code": "busy", "error": "no"},), NotReady),
    ],
)
async def test_what_control_refuses_is_what_the_caller_is_told(answers, error):
    with pytest.raises(error):
        await AskedRepository(Asked(*answers).inquiries, list).load("e", None, "ann")


async def test_a_load_names_endpoint_pins_and_author():
    asked = Asked({"state": "live", "revision": 3})
    await AskedRepository(asked.inquiries, list).load("e", ("3",), "ann")
    assert asked.questions[0]["question"] == {"load": {"endpoint": "e", "pins": ("3",), "author": "ann"}}


async def test_what_is_served_is_not_unloaded():
    repository = AskedRepository(Asked().inquiries, lambda: ready("e"))
    with pytest.raises(LoadRefused):
        await repository.unload("e")
    with pytest.raises(EndpointUnknown):
        await repository.unload("f")


async def test_statistics_are_those_of_all_workers():
    one = AskedStatistics(Asked().inquiries, lambda e, v: ModelStatistics(endpoint=e, version=v, inference_count=3))
    answer = one.answer({"statistics": [["e", "1"]]})
    everybody = AskedStatistics(Asked(answer, answer, None).inquiries, lambda e, v: None)
    everybody._inquiries.ask = lambda to, question, _s, ask=everybody._inquiries.ask: ask(to, question, 0.01)
    (found,) = await everybody.statistics([("e", "1")])
    assert found.inference_count == 6


async def test_with_nobody_to_ask_a_worker_tells_its_own():
    alone = AskedStatistics(Asked().inquiries, lambda e, v: ModelStatistics(endpoint=e, version=v, inference_count=3))
    assert (await alone.statistics([("e", "1")]))[0].inference_count == 3


def test_an_answer_fits_the_pipe():
    batches = tuple(BatchStatistics(batch_size=size) for size in range(256))
    wide = AskedStatistics(
        Asked().inquiries, lambda e, v: ModelStatistics(endpoint=e, version=v, batches=batches, inference_count=1)
    )
    answer = wide.answer({"statistics": [["e", str(n)] for n in range(100)]})
    assert len(answer["entries"]) == 100
    assert answer["entries"][0]["batches"] in ((), [])
    asked = {"id": 1, "from": "worker-1"}
    assert answered(asked, {"text": "x" * ANSWER_BYTES_MAX})["answer"] == {}
