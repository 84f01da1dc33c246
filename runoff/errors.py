"""What may go wrong between this client and a gateway, in words that name the remedy.

RunoffError
├── GatewayUnreachable   nobody answers at the address
├── NotSendable          a value that JSON does not know, such as NaN, or a key that no header can carry
└── RequestRefused       the gateway answered, and said no
"""

from collections.abc import Sequence
from typing import Any


class RunoffError(Exception):
    """Root of what this client raises on purpose."""


class GatewayUnreachable(RunoffError):
    """No answer: no gateway at this address, or none that answers in time."""


class NotSendable(RunoffError):
    """A value that JSON does not know: NaN, infinity, an object; a key that no header can carry. Nothing was sent."""


class RequestRefused(RunoffError):
    """The gateway refused. `problems` has each of them with `path`, `code`, `message` and `remedy`, when there are several."""

    def __init__(self, status: int, code: str, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        lines = [message, *(f"  {problem_line(problem)}" for problem in problems)]
        super().__init__("\n".join(lines))
        self.status = status
        self.code = code
        self.message = message
        self.problems = tuple(problems)


def problem_line(problem: dict[str, Any]) -> str:
    """A problem as one line, its remedy last."""
    path, remedy = problem.get("path"), problem.get("remedy")
    return f"{f'{path}: ' if path else ''}{problem.get('message', problem.get('code', ''))}{f'; {remedy}' if remedy else ''}"
