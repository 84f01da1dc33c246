import pytest

from gateway.processes.switchboard import Switchboard


class Child:
    def __init__(self, writer):
        self.writer = writer


class Place:
    """Stands where a process does; keeps what it is sent."""

    def __init__(self, role, writer):
        self.role = role
        self.child = Child(writer) if writer else None
        self.lines = []

    def send(self, line):
        self.lines.append(line)


@pytest.fixture
def places():
    return [Place("worker", "w-0"), Place("worker", "w-1"), Place("shadow", "s"), Place("control", "c")]


ASK = {"event": "ask", "id": 1, "to": "workers", "question": {"q": 1}}


def answer(to="w-0", **what):
    return {"event": "answer", "id": 1, "to": to, "answer": what}


def test_a_question_to_workers_reaches_all_of_them_and_their_answers_the_asker(places):
    board = Switchboard(places)
    assert board.hear(places[0], ASK)
    asked = {"command": "asked", "id": 1, "from": "w-0", "question": {"q": 1}}
    assert places[0].lines == [{"command": "asked_of", "id": 1, "count": 2}, asked]
    assert places[1].lines == [asked]
    assert places[3].lines == []
    board.hear(places[1], answer(n=2))
    assert places[0].lines[-1] == {"command": "answer", "id": 1, "answer": {"n": 2}}


def test_a_question_to_control_reaches_control_alone(places):
    Switchboard(places).hear(places[1], {**ASK, "to": "control"})
    assert [len(place.lines) for place in places] == [0, 1, 0, 1]


def test_a_question_to_nobody_is_answered_by_its_count(places):
    places[3].child = None
    Switchboard(places).hear(places[0], {**ASK, "to": "control"})
    assert places[0].lines == [{"command": "asked_of", "id": 1, "count": 0}]


def test_who_dies_has_given_an_empty_answer(places):
    board = Switchboard(places)
    board.hear(places[0], {**ASK, "to": "control"})
    board.died("c")
    assert places[0].lines[-1] == {"command": "answer", "id": 1, "answer": {}}
    board.hear(places[3], answer(n=1))
    assert len(places[0].lines) == 2


def test_an_asker_that_died_is_forgotten(places):
    board = Switchboard(places)
    board.hear(places[0], ASK)
    board.died("w-0")
    board.hear(places[1], answer(n=1))
    assert board._open == {}


def test_nobody_answers_what_they_were_not_asked(places):
    board = Switchboard(places)
    board.hear(places[0], {**ASK, "to": "control"})
    board.hear(places[1], answer(n=1))
    assert len(places[0].lines) == 1


def test_other_lines_are_not_its_business(places):
    assert not Switchboard(places).hear(places[0], {"event": "beat"})
