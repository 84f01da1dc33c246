"""The repository extension's seam: what is loaded where, and loading as doors see it."""

import re
from typing import Any, Final, Literal, Protocol

import msgspec

from gateway.errors import LoadRefused

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
PINS_MAX: Final = 32
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


class VersionState(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one endpoint in this worker. `reason` says why it is not READY."""

    endpoint: str
    version: str
    state: State
    reason: str = ""


class Repository(Protocol):
    """Where the doors see and change what is loaded: the worker's, and in tests the kit's."""

    def index(self) -> list[VersionState]:
        """Every endpoint × version that is loaded here, or on its way in or out."""
        ...

    async def load(self, endpoint: str, pins: tuple[str, ...] | None, author: str) -> None:
        """Resolves the endpoint's aliases now and returns when that is live; `pins` are kept warm beside (None: those that are).

        Raises EndpointUnknown, LoadRefused, NotReady or DeadlinePassed.
        """
        ...

    async def unload(self, endpoint: str) -> None:
        """Raises EndpointUnknown, or LoadRefused: what the live revision names is not unloaded."""
        ...


def pins_in(parameters: dict[str, Any]) -> tuple[str, ...] | None:
    """The versions to keep warm out of a load's parameters; None where they do not say. Raises LoadRefused.

    `config` may hold a specific version policy and nothing else: `{"version_policy": {"specific": {"versions": [3, 4]}}}`.
    """
    if any(name.startswith("file:") for name in parameters):
        raise LoadRefused("file: parameters are always refused: register the model, and name it in the route")
    config = parameters.get("config")
    if config is None:
        return None
    try:
        document = msgspec.json.decode(config) if isinstance(config, str | bytes) else None
    except msgspec.DecodeError:
        document = None
    match document:
        case {"version_policy": {"specific": {"versions": [*versions], **more}, **others}, **rest} if not (
            more or others or rest
        ):
            pins = tuple(str(version) for version in versions)
        case _:
            raise LoadRefused('config: wanted {"version_policy": {"specific": {"versions": […]}}} and nothing else')
    if len(pins) > PINS_MAX or not all(_VERSION.fullmatch(pin) for pin in pins):
        raise LoadRefused(f"config: wanted at most {PINS_MAX} version numbers from 1 up")
    return pins
