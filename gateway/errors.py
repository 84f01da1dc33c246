"""The only translator from errors to what callers see: one table, keyed by type, for REST, MLflow and gRPC alike.

GatewayError
├── RequestMalformed     400  bytes that do not decode to a request
├── Unauthenticated      401  no key, or a bad one
├── NotAllowed           403  a key without the scope, or something the route does not allow
├── LoadRefused          400  what the repository extension cannot load or unload
├── EndpointUnknown      404
├── VersionUnknown       404
├── FeaturesMissing      400  an entity that the feature store does not know, without a default
├── RequestTooSlow       408  the request came too slowly
├── BodyTooLarge         413  on the wire
├── DecodedTooLarge      413  after decoding (gRPC: INVALID_ARGUMENT)
├── MediaTypeUnsupported 415
├── Overloaded           429  over a quota or a bound of the endpoint
├── NotReady             503  draining, or the process's own bound
├── FeaturesUnavailable  503  the feature store does not answer, or its values are too old, without a default
├── SpoolClosed          503  the record cannot be written and the route says on_failure: closed
├── Cancelled            499  the caller has gone; only records and metrics see it
└── DeadlinePassed       504
"""

from typing import Final

import msgspec

from models import errors as models_errors
from routing import errors as routing_errors


class GatewayError(Exception):
    """Root of what the doors and the corridor raise on purpose. The message is shown to the caller."""


class RequestMalformed(GatewayError):
    """Bytes that do not decode to a request."""


class Unauthenticated(GatewayError):
    """No key, or one that is unknown, expired or revoked."""


class NotAllowed(GatewayError):
    """The key lacks the scope, or the route does not allow it (a pin, a version)."""


class LoadRefused(GatewayError):
    """Load or unload asks for what cannot be: a version that does not fit, something that the live revision names, a file."""


class EndpointUnknown(GatewayError):
    """No such endpoint in the live table."""


class VersionUnknown(GatewayError):
    """No such version that is warm here."""


class RequestTooSlow(GatewayError):
    """Header or body did not arrive in time."""


class BodyTooLarge(GatewayError):
    """More bytes on the wire than allowed."""


class DecodedTooLarge(GatewayError):
    """More bytes after decompression or decoding than allowed."""


class MediaTypeUnsupported(GatewayError):
    """A media type that this call does not take (MLflow and label upload only)."""


class Overloaded(GatewayError):
    """The endpoint's bound or a key's quota is reached. `reason` comes from a bounded set; `retry_after_s` is a whole second."""

    def __init__(self, message: str, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotReady(GatewayError):
    """Not now, not here: draining, or a bound of the process."""

    def __init__(self, message: str, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class SpoolClosed(NotReady):
    """The record cannot be written and the route says `on_failure: closed`."""

    def __init__(self, message: str = "the record of this request cannot be written") -> None:
        super().__init__(message, "spool_closed")


class FeaturesMissing(GatewayError):
    """The feature store has no value for an entity, and the route has no default."""


class FeaturesUnavailable(NotReady):
    """No value that may be used: the feature store is down or slow, or what it has is too old; and the route has no default."""


class Cancelled(GatewayError):
    """The caller closed the connection or cancelled the call before the model had answered."""


class DeadlinePassed(GatewayError):
    """The deadline of the caller or of the route passed before the answer."""


class Wire(msgspec.Struct, frozen=True):
    """What a caller sees of an error: REST status, stable code, MLflow error code, gRPC status name, message, and how long to wait."""

    status: int
    code: str
    mlflow_code: str
    grpc: str
    message: str
    reason: str | None = None
    retry_after_s: int | None = None


_TABLE: Final[dict[type[Exception], tuple[int, str, str, str]]] = {
    RequestMalformed: (400, "request_malformed", "BAD_REQUEST", "INVALID_ARGUMENT"),
    models_errors.InputInvalid: (400, "input_invalid", "BAD_REQUEST", "INVALID_ARGUMENT"),
    models_errors.ReferenceInvalid: (400, "reference_invalid", "BAD_REQUEST", "INVALID_ARGUMENT"),
    FeaturesMissing: (400, "features_missing", "BAD_REQUEST", "INVALID_ARGUMENT"),
    LoadRefused: (400, "load_refused", "BAD_REQUEST", "INVALID_ARGUMENT"),
    Unauthenticated: (401, "unauthenticated", "UNAUTHENTICATED", "UNAUTHENTICATED"),
    routing_errors.PinRefused: (403, "pin_refused", "PERMISSION_DENIED", "PERMISSION_DENIED"),
    NotAllowed: (403, "not_allowed", "PERMISSION_DENIED", "PERMISSION_DENIED"),
    routing_errors.VariantUnknown: (404, "variant_unknown", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"),
    EndpointUnknown: (404, "endpoint_unknown", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"),
    VersionUnknown: (404, "version_unknown", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"),
    models_errors.ModelUnknown: (404, "model_unknown", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"),
    RequestTooSlow: (408, "request_too_slow", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"),
    models_errors.StagingRefused: (409, "staging_refused", "INVALID_STATE", "FAILED_PRECONDITION"),
    BodyTooLarge: (413, "body_too_large", "BAD_REQUEST", "RESOURCE_EXHAUSTED"),
    DecodedTooLarge: (413, "decoded_too_large", "BAD_REQUEST", "INVALID_ARGUMENT"),
    MediaTypeUnsupported: (415, "media_type_unsupported", "BAD_REQUEST", "INVALID_ARGUMENT"),
    Overloaded: (429, "overloaded", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
    models_errors.ModelFailed: (500, "model_failed", "BAD_REQUEST", "INTERNAL"),
    models_errors.ArtifactInvalid: (500, "artifact_invalid", "INTERNAL_ERROR", "INTERNAL"),
    models_errors.NotWarm: (503, "not_warm", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE"),
    models_errors.RegistryUnavailable: (503, "registry_unavailable", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE"),
    NotReady: (503, "not_ready", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE"),
    SpoolClosed: (503, "spool_closed", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE"),
    FeaturesUnavailable: (503, "features_unavailable", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE"),
    Cancelled: (499, "cancelled", "CANCELLED", "CANCELLED"),
    DeadlinePassed: (504, "deadline_passed", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
}
INTERNAL: Final = Wire(500, "internal", "INTERNAL_ERROR", "INTERNAL", "internal error")


def translate(error: BaseException) -> Wire:
    """The wire form of an error. Anything unexpected is a 500 without a word of what went wrong; the log has it, by prediction id."""
    row = _TABLE.get(type(error))  # type: ignore[arg-type]  # a miss is the answer for foreign types
    if row is None:
        return INTERNAL
    status, code, mlflow_code, grpc = row
    reason, retry_after_s = None, None
    if status in (429, 503):
        reason, retry_after_s = getattr(error, "reason", code), getattr(error, "retry_after_s", 1)
    return Wire(status, code, mlflow_code, grpc, str(error), reason, retry_after_s)
