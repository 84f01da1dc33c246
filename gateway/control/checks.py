"""What a version must pass to stand behind an endpoint: it fits what the endpoint declares, and answers as the version before it did."""

from gateway.control.preparation import Preparation, Prepared, references
from gateway.features.served import asked_signature
from gateway.state.compiled import CompiledFeatures, CompiledRoute
from gateway.telemetry.log import EventLog
from models.compatibility import differences
from models.signature import Signature
from routing.conditions import unknown_columns, unreadable
from routing.errors import Problem
from routing.traffic import Route

log = EventLog(__name__)


class Checks:
    """Both checks read manifests; `answers` runs models as well, on control's slow threads."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    @staticmethod
    def declared(route: Route, prepared: Prepared, base: CompiledRoute | None) -> Signature:
        """The endpoint's signature, as in `fit`."""
        return prepared.manifests[route.champion].signature if base is None else base.signature

    def fit(
        self,
        route: Route,
        prepared: Prepared,
        base: CompiledRoute | None,
        features: CompiledFeatures | None = None,
    ) -> tuple[Signature, list[Problem]]:
        """The endpoint's signature, how each arm fails to fit it in inputs, outputs and labels, and what the route names and it has not.

        Rules, unit and record may name the join keys of `features` beside the inputs. `base` is the revision whose declaration holds on; None: the endpoint is declared by this one's champion.
        """
        signature, answer = self.declared(route, prepared, base), prepared.manifests[route.champion].answer
        if base is not None:
            served = self._preparation.manifest(base.models[base.document["champion"]].digest)
            answer = served.answer if served else answer
        problems = [
            Problem(path, "signature_incompatible", f"{prepared.models[arm].key}: {difference}")
            for arm, path, _, _ in references(route)
            for difference in differences(signature, answer, prepared.manifests[arm])
        ]
        return signature, [*problems, *misnamed(route, signature, features)]

    def unfit_pins(self, prepared: Prepared, signature: Signature) -> list[str]:
        """The pins that cannot be called with the endpoint's inputs any more."""
        return [
            name
            for name, model in prepared.models.items()
            if model.role == "pin" and differences(signature, prepared.manifests[name].answer, prepared.manifests[name])
        ]

    async def answers(self, route: Route, prepared: Prepared, live: CompiledRoute | None) -> list[Problem]:
        """How each variant whose alias has moved leaves the range of answers of the version that it would replace.

        A version that a person wrote into the document is that person's word, and a mirror answers nobody: neither is held to it.
        """
        problems: list[Problem] = []
        for arm, path, text, role in references(route):
            before = live.models.get(arm) if live else None
            if live is None or before is None or role != "variant" or _reference(live, arm) != text:
                continue
            serving = self._preparation.manifest(before.digest)
            if before.digest == prepared.models[arm].digest or serving is None:
                continue
            found = await self._preparation.compare(route.endpoint, serving, prepared.manifests[arm])
            problems += [Problem(path, "answers_differ", f"{prepared.models[arm].key}: {text}") for text in found]
        return problems


def misnamed(route: Route, signature: Signature, features: CompiledFeatures | None) -> list[Problem]:
    """What rules, unit and record name and the endpoint has not."""
    if features is None:
        return [*unreadable(route, signature), *unknown_columns(route, signature, signature)]
    asked, attributes = asked_signature(signature, features), {one.name for one in features.attributes}
    return [*unreadable(route, asked), *unknown_columns(route, signature, asked, attributes)]


def _reference(live: CompiledRoute, arm: str) -> str | None:
    """The model reference of a live variant."""
    return next((variant["model"] for variant in live.document["variants"] if variant["name"] == arm), None)
