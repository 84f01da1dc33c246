"""`python -m gateway.features`: the features process, as the supervisor starts it."""

import asyncio
import logging
import os
import signal

from gateway.features.process import Features, opener
from gateway.processes.birth import Birth
from gateway.telemetry.log import configure


def main() -> None:
    """Runs until the supervisor says drain, or is gone."""
    birth = Birth.of(os.environ)
    configure(birth.process, birth.settings.telemetry.log_level, folder=birth.settings.state_path / "logs")
    for name in ("feast", "sqlalchemy", "botocore", "urllib3"):  # at `debug` they tell what they ask their stores for
        logging.getLogger(name).setLevel(logging.WARNING)
    asyncio.run(_run(birth))
    # A thread that waits for a store which has stopped answering must not hold up the end.
    os._exit(0)


async def _run(birth: Birth) -> None:
    features = Features(birth.settings.state_path / "run", opener(birth.settings.features_repo))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, features.stop)
    await features.start()
    pipe = birth.pipe()
    tasks = [asyncio.create_task(features.beat(pipe)), asyncio.create_task(features.obey(pipe))]
    await features.run()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await pipe.flush()
    pipe.close()


if __name__ == "__main__":
    main()
