"""Which further sinks the settings ask for, each as a relay. Their libraries are extras, imported on the sink's own thread."""

from functools import partial
from pathlib import Path

from gateway.settings import Settings
from gateway.streams.relay import Relay, Sink, SinkFailed

_HINT = "install the extra: pip install 'runoff[{extra}]'"


def relays(settings: Settings) -> list[Relay]:
    """One relay for each sink that is set; none by default."""
    sinks, folder = settings.sinks, settings.state_path / "sinks"
    known = (
        ("feast", sinks.feast.repo is not None, ("predictions", "metrics"), _feast),
        ("kafka", sinks.kafka.brokers is not None, sinks.kafka.tables, _kafka),
        ("nats", bool(sinks.nats.servers), sinks.nats.tables, _nats),
    )
    return [
        Relay(
            name,
            settings.lake_uri,
            tables,
            partial(connect, settings),
            position=folder / f"{name}.json",
            start=sinks.start,
        )
        for name, is_set, tables, connect in known
        if is_set
    ]


def _feast(settings: Settings) -> Sink:
    try:
        from gateway.streams.feast_push import FeastSink
    except ImportError as error:
        raise SinkFailed(f"{error}; " + _HINT.format(extra="feast")) from error
    return FeastSink(settings.sinks.feast.repo or "")


def _kafka(settings: Settings) -> Sink:
    try:
        from gateway.streams.kafka_sink import KafkaSink
    except ImportError as error:
        raise SinkFailed(f"{error}; " + _HINT.format(extra="kafka")) from error
    kafka = settings.sinks.kafka
    return KafkaSink(kafka.brokers or "", kafka.topic_prefix, _properties(kafka.properties_file))


def _nats(settings: Settings) -> Sink:
    try:
        from gateway.streams.nats_sink import NatsSink
    except ImportError as error:
        raise SinkFailed(f"{error}; " + _HINT.format(extra="nats")) from error
    nats = settings.sinks.nats
    return NatsSink(nats.servers, nats.stream, nats.subject_prefix, nats.credentials_file)


def _properties(file: str | None) -> dict[str, str]:
    """`name=value` lines; `#` begins a comment."""
    if file is None:
        return {}
    try:
        lines = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
    except OSError as error:
        raise SinkFailed(f"sinks.kafka.properties_file: {error}") from error
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}
