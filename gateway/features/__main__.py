"""`python -m gateway.features`: the features process, as the supervisor starts it."""

import asyncio
import logging
import os
import signal
import socket
import sqlite3
from contextlib import suppress
from functools import partial

from gateway.features.process import Features, is_answered, listen, opener
from gateway.features.spare import Lifeline, answer_until_replaced, stand_by
from gateway.processes.birth import Birth
from gateway.settings import Settings
from gateway.state.documents import documents
from gateway.telemetry.log import configure


def main() -> None:
    """Runs until the supervisor says drain, or is gone."""
    birth = Birth.of(os.environ)
    configure(birth.process, birth.settings.telemetry.log_level, folder=birth.settings.state_path / "logs")
    for name in ("feast", "sqlalchemy", "botocore", "urllib3"):  # at `debug` they tell what they ask their stores for
        logging.getLogger(name).setLevel(logging.WARNING)
    services = _services(birth.settings)
    folder = birth.settings.state_path / "run"
    # Whoever asks meanwhile waits for us, unless a predecessor's spare answers: then it does until we can.
    listening = None if is_answered(folder) else listen(folder)
    lifeline = None
    if services or birth.settings.features.repo:
        lifeline = _with_spare(birth, listening)
    asyncio.run(_run(birth, services, listening, lifeline))
    # A thread that waits for a store which has stopped answering must not hold up the end.
    os._exit(0)


async def _run(birth: Birth, services: set[str], listening: socket.socket | None, lifeline: Lifeline | None) -> None:
    features = Features(birth.settings.state_path / "run", opener(birth.settings.features_repo))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, features.stop)
    pipe = birth.pipe()
    tasks = [asyncio.create_task(features.beat(pipe)), asyncio.create_task(features.obey(pipe))]
    await features.warm(sorted(services))
    await features.start(listening)
    await features.run()
    if lifeline is not None and features.is_drained:
        lifeline.let_go()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await pipe.flush()
    pipe.close()


def _services(settings: Settings) -> set[str]:
    """The services that routes name now."""
    with suppress(sqlite3.Error):
        found = [document.get("features") for document in documents(settings.state_file).values()]
        return {one["service"] for one in found if isinstance(one, dict)}
    return set()


def _with_spare(birth: Birth, listening: socket.socket | None) -> Lifeline | None:
    """Imports Feast, and leaves a copy of this process standing by; None where either cannot be: this one goes on alone."""
    repo = birth.settings.features_repo
    try:
        from gateway.features import store

        with suppress(Exception):  # whatever is wrong with the repository is told to whoever asks for it
            store.import_stores(repo or "")
        stand_in = partial(answer_until_replaced, birth.settings.state_path / "run", opener(repo))
        inherited = [*birth.fds, *([] if listening is None else [listening.fileno()])]
        return stand_by(os.getppid(), inherited, stand_in)
    except (ImportError, OSError, AttributeError):
        return None


if __name__ == "__main__":
    main()
