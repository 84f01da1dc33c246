"""The call that the registry's webhooks make."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.context import Admin
from gateway.admin.deliveries import SignatureRefused
from gateway.admin.replies import AdminError, answer
from gateway.telemetry.log import EventLog

log = EventLog(__name__)


async def mlflow(admin: Admin, request: Request) -> Response:
    """The signature stands in place of a key. A delivery that came before is answered alike, so that nobody sends it again."""
    if admin.webhooks is None:
        raise AdminError(404, "path_unknown", "no webhooks here: webhook_secret (RUNOFF_WEBHOOK_SECRET) is not set")
    try:
        is_new = admin.webhooks.take(request.headers, await request.body())
    except SignatureRefused as error:
        log.warning("webhook_refused", problem=str(error))
        raise AdminError(401, "signature_refused", str(error)) from error
    return answer({"accepted": True, "repeated": not is_new})
