"""Which further sinks the settings ask for, each as a relay. Their libraries are extras, imported on the sink's own thread."""

from pathlib import Path

from gateway.settings import Settings
from gateway.streams.relay import Relay, Sink, SinkFailed

_HINT = "install the extra: pip install 'runoff[{extra}]'"


def relays(settings: Settings) -> list[Relay]:
    """One relay for each sink that is set; none by default."""
    sinks, folder = settings.sinks, settings.state_path / "sinks"
    found = []
    if sinks.feast.repo is not None:
        position = folder / "feast.json"
        found.append(
            Relay(
                "feast",
                settings.lake_uri,
                ("predictions", "metrics"),
                lambda: _feast(settings),
                position=position,
                start=sinks.start,
            )
        )
    if sinks.kafka.brokers is not None:
        position = folder / "kafka.json"
        found.append(
            Relay(
                "kafka",
                settings.lake_uri,
                sinks.kafka.tables,
                lambda: _kafka(settings),
                position=position,
                start=sinks.start,
            )
        )
    if sinks.nats.servers:
        position = folder / "nats.json"
        found.append(
            Relay(
                "nats",
                settings.lake_uri,
                sinks.nats.tables,
                lambda: _nats(settings),
                position=position,
                start=sinks.start,
            )
        )
    return found


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
