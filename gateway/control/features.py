"""What control asks the features process when a route has features: whether the service is there, and what it consists of."""

import asyncio
import time
from typing import Final

from gateway.features.client import FeatureClient, StoreFailed, StoreSilent
from gateway.features.fit import fit
from gateway.features.frames import Described
from gateway.state.compiled import CompiledFeatures, CompiledRoute
from models.signature import Signature
from routing.errors import Problem, RouteInvalid
from routing.traffic import Route
from routing.validate import validate

ANSWER_S: Final = 60.0
"""The first question of a gateway's life imports Feast."""
START_S: Final = 20.0
"""How long a features process may take to listen, after which the store counts as unavailable."""
_RETRY_S: Final = 0.2
_PATH: Final = "features.service"


class FeatureServices:
    """`client` None: no repository is set, so no route can have features."""

    def __init__(self, client: FeatureClient | None, *, answer_s: float = ANSWER_S) -> None:
        self._client = client
        self._answer_s = answer_s

    async def compile(
        self, route: Route, signature: Signature, base: CompiledRoute | None
    ) -> tuple[CompiledFeatures | None, list[Problem]]:
        """The route's features under the endpoint's signature, None without any, and what stands against them.

        Where the store cannot be asked, what the live revision knows of the same service holds on: a change of models need not wait for it.
        """
        if route.features is None:
            return None, []
        described = await self._described(route.features.service)
        if isinstance(described, Problem):
            known = unchanged(route, signature, base)
            return (known, []) if known is not None and described.code == _SILENT else (None, [described])
        compiled, problems = fit(described, route.features, signature, route.record.sensitive)
        return compiled, problems

    async def absent(self, route: Route) -> list[Problem]:
        """Whether the service can be looked up in at all, before anything is known of inputs."""
        described = None if route.features is None else await self._described(route.features.service)
        return [described] if isinstance(described, Problem) else []

    async def _described(self, service: str) -> Described | Problem:
        if self._client is None:
            remedy = 'set [features] repo = "/path/of/the/feature_repo" and start the gateway again'
            return Problem(_PATH, "feature_store_missing", "no feature repository is set", remedy)
        try:
            return await self._asked(self._client, service)
        except StoreFailed as error:
            if error.code == "unknown":
                remedy = "feast apply, then apply the route again"
                text = f"the repository has no feature service '{service}'; it has {error}"
                return Problem(_PATH, "service_unknown", text, remedy)
            return Problem(_PATH, _SILENT, f"the feature store cannot be asked: {error}", _MEND)
        except StoreSilent as error:
            return Problem(_PATH, _SILENT, str(error), _MEND)

    async def _asked(self, client: FeatureClient, service: str) -> Described:
        """The answer; a features process that is (again) on its way is waited for, as after a start of the whole gateway."""
        deadline = time.monotonic() + min(self._answer_s, START_S)
        while True:
            try:
                return await client.describe(service, self._answer_s)
            except StoreFailed as error:
                if error.code != "down" or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)


_SILENT: Final = "feature_store_unavailable"
_MEND: Final = "see the log of the process `features`, then apply the route again"


def unchanged(route: Route, signature: Signature, base: CompiledRoute | None) -> CompiledFeatures | None:
    """What is known of the route's service from a revision that has the same features and inputs; None: nothing."""
    if base is None or base.features is None or base.signature != signature:
        return None
    try:
        before = validate(base.document)
    except RouteInvalid:  # of an older release: whoever changes it is asked for nothing but a good one
        return None
    is_same = before.features == route.features and before.record.sensitive == route.record.sensitive
    return base.features if is_same else None
