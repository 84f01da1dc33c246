"""How a worker takes what was tuned anew while it serves: a second session is opened beside the first, checked, and put in its place."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from gateway.telemetry.log import EventLog
from models.catalog import Catalog
from models.errors import ModelsError
from models.niceness import thread_steps_back

log = EventLog(__name__)

LOOK_S: Final = 5.0
"""Between two looks at the profiles: one `stat` for each loaded model."""
_NICE: Final = 3


async def retune(catalog: Catalog, *, look_s: float = LOOK_S) -> None:
    """Until it is cancelled. One model at a time, so that at most one is in memory twice; a profile that cannot be used changes nothing."""
    with ThreadPoolExecutor(1, thread_name_prefix="retune", initializer=partial(thread_steps_back, _NICE)) as thread:
        while True:
            await asyncio.sleep(look_s)
            for digest in catalog.outdated():
                await _renew(catalog, digest, thread)


async def _renew(catalog: Catalog, digest: str, thread: ThreadPoolExecutor) -> None:
    try:
        renewed = await asyncio.get_running_loop().run_in_executor(thread, catalog.renewed, digest)
    except (ModelsError, OSError) as error:
        log.warning("model_not_retuned", digest=digest[:12], problem=str(error))
        return
    except Exception as error:  # noqa: BLE001  # what nobody expected of a file must not end a worker that serves without it
        log.error("model_not_retuned", digest=digest[:12], error=error)
        return
    catalog.take(renewed)
    key = renewed.staged.key
    log.info("model_retuned", model=key.name, version=key.version, rows_max=renewed.rows_max, believed=renewed.is_tuned)
