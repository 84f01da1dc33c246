"""Nothing that opens a door stays in a log: keys, tokens and passwords are cut out of every line, wherever in it they stand.

Nobody logs a header or a body on purpose; this is for exceptions of libraries, addresses with a password, and mistakes to come.
"""

import re
from typing import Final

_KEY: Final = re.compile(r"(runoff_[0-9a-f]{12}_)[A-Za-z0-9_-]{20,}")
_TOKEN: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")
_HEADER: Final = re.compile(
    r"""((?:authorization|x-api-key|cookie)\W{0,8}(?:b['"])?(?:(?:bearer|basic)\s+)?|bearer\s+)([^\s"'\\,;)\]}]{8,})""",
    re.IGNORECASE,
)
_PASSWORD: Final = re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+@")


def redacted(line: str) -> str:
    """The line without secrets; the id of a key stays, because it says which."""
    line = _KEY.sub(r"\1…", line)
    line = _TOKEN.sub("eyJ…", line)
    line = _HEADER.sub(r"\1…", line)
    return _PASSWORD.sub(r"\1…@", line)
