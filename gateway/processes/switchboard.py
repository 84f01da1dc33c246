"""Questions from one child to others, passed on by the supervisor, which reads nothing of them but who asks whom."""

from collections.abc import Iterable
from typing import Any

from gateway.pipe import Line
from gateway.processes.place import Place

Question = tuple[str, int]
"""The asker's writer and its number for the question."""


class Switchboard:
    """Knows the places of the gateway. Whoever dies without an answer has given an empty one; an answer to somebody gone is dropped."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = list(places)
        self._open: dict[Question, set[str]] = {}

    def hear(self, speaker: Place, line: Line) -> bool:
        """Passes on a question or an answer; False: the line is neither."""
        if speaker.child is None:
            return False
        match line.get("event"):
            case "ask":
                self._ask(speaker, speaker.child.writer, line)
            case "answer":
                self._answer((line["to"], line["id"]), speaker.child.writer, line["answer"])
            case _:
                return False
        return True

    def died(self, writer: str) -> None:
        """Nobody waits for it any more, nor does it for anybody."""
        for question in [one for one in self._open if one[0] == writer]:
            del self._open[question]
        for question in [one for one, awaited in self._open.items() if writer in awaited]:
            self._answer(question, writer, {})

    def _ask(self, asker: Place, writer: str, line: Line) -> None:
        role = "control" if line["to"] == "control" else "worker"
        asked = [(place, place.child) for place in self._places if place.role == role and place.child is not None]
        if asked:
            self._open[writer, line["id"]] = {child.writer for _, child in asked}
        asker.send({"command": "asked_of", "id": line["id"], "count": len(asked)})
        for place, _ in asked:
            place.send({"command": "asked", "id": line["id"], "from": writer, "question": line["question"]})

    def _answer(self, question: Question, speaker: str, answer: dict[str, Any]) -> None:
        awaited = self._open.get(question, set())
        if speaker not in awaited:
            return
        awaited.discard(speaker)
        if not awaited:
            del self._open[question]
        asker, number = question
        for place in self._places:
            if place.child is not None and place.child.writer == asker:
                place.send({"command": "answer", "id": number, "answer": answer})
