"""What the admin API answers with: JSON, and errors of one shape with a stable code and every problem at once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from routing.errors import Problem, RouteInvalid


class AdminError(Exception):
    """A refusal: HTTP status, stable code, a message for people, and what exactly is wrong."""

    def __init__(self, status: int, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.problems = tuple(problems)


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON reply; structs, and floats that JSON lacks (as null), included."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def refusal(error: AdminError, headers: Mapping[str, str] | None = None) -> Response:
    document: dict[str, Any] = {"error": str(error), "code": error.code}
    if error.problems:
        document["problems"] = error.problems
    return answer(document, error.status, headers)


def invalid(error: RouteInvalid) -> AdminError:
    """The refusal of a document, with all its problems."""
    count = len(error.problems)
    codes = {problem.code for problem in error.problems}
    code = "not_built_yet" if codes == {"not_built_yet"} else "route_invalid"
    return AdminError(422, code, f"the route has {count} problem{'s' if count > 1 else ''}", error.problems)


def time_text(unix_us: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(unix_us / 1e6, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
