"""What an operator may set, once, before a start: every setting with its bounds, default and meaning. Where they come from: `settings_sources`.

Routes are not settings: they change while the gateway runs.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from routing.fields import seconds_of

INGESTED_TABLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a table of `runoff ingest` may be called."""

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Access = Literal["open", "keys"]


class SettingsInvalid(Exception):
    """A setting that is unknown or does not fit; the message names the key, what was wanted and where the value came from."""


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
WEBHOOK_PATH: Final = "/admin/v1/webhooks/mlflow"
Listener = Literal["rest", "grpc", "admin", "webhook", "metrics"]


class Oidc(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: Annotated[str | None, Meta(description="whose tokens are taken beside keys (`iss`); none: nobody's")] = None
    audience: Annotated[str | None, Meta(description="what tokens must be for (`aud`)")] = None
    jwks: Annotated[str | None, Meta(description="the issuer's public keys: a file, or an https address")] = None
    algorithms: Annotated[
        tuple[Algorithm, ...], Meta(min_length=1, description="the signatures that are taken, whatever a token says")
    ] = ("RS256", "ES256")
    scope_claim: Annotated[
        str, Meta(min_length=1, description="the claim that holds scopes, or groups that mean some")
    ] = "scope"
    scopes: Annotated[
        tuple[str, ...],
        Meta(description="what values of the claim mean: 'ml-team=read route:write'; none: they are scopes themselves"),
    ] = ()
    refresh_s: Annotated[Seconds, Meta(description="seconds between two fetches of the keys")] = 300.0
    stale_s: Annotated[Seconds, Meta(description="seconds for which keys hold that cannot be fetched anew")] = 86400.0


class Auth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data: Annotated[Access, Meta(description="who may call the data listeners: open, or keys only")] = "open"
    admin: Annotated[
        Access, Meta(description="who may call the admin listener: open (loopback only), or keys only")
    ] = "open"
    admin_hosts: Annotated[
        tuple[str, ...], Meta(description="more Host names that the open admin listener accepts, beside loopback")
    ] = ()
    oidc: Oidc = Oidc()


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    body_bytes_json_max: Annotated[Count, Meta(description="largest JSON, CSV or other text body, in bytes")] = 4 << 20
    body_bytes_binary_max: Annotated[Count, Meta(description="largest binary body or gRPC message, in bytes")] = (
        64 << 20
    )
    connections_max: Annotated[Count, Meta(description="connections a worker holds; more wait in the kernel")] = 4096
    header_count_max: Annotated[Count, Meta(description="headers of one request")] = 100
    header_bytes_max: Annotated[Count, Meta(description="bytes of all headers of one request")] = 32768
    header_s: Annotated[Seconds, Meta(description="seconds for a request's headers to arrive")] = 10.0
    body_s: Annotated[
        Seconds,
        Meta(description="seconds for a request's body to arrive, and in which a caller takes some of his replies"),
    ] = 30.0
    idle_s: Annotated[Seconds, Meta(description="seconds an idle connection is kept")] = 75.0
    inflight_max: Annotated[Count, Meta(description="requests a worker holds at once, over all endpoints")] = 4096
    inflight_bytes_max: Annotated[
        Count,
        Meta(
            description="bytes of large requests (64 KiB or more) that a worker holds at once, arriving ones included"
        ),
    ] = 256 << 20


class Telemetry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    otlp_endpoint: Annotated[str | None, Meta(description="where traces go (OTLP over HTTP); none: nowhere")] = None
    sample_ratio: Annotated[Share, Meta(description="share of requests without a traceparent that are traced")] = 0.01
    sampled_per_s_max: Annotated[Count, Meta(description="traced requests a second a worker, at most")] = 100
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least severe events that are logged")
    ] = "info"


class Remotes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: Annotated[
        tuple[str, ...], Meta(description="hosts that mirrors may call; link-local addresses are refused all the same")
    ] = ("127.0.0.1", "localhost", "::1")
    auth_env: Annotated[
        tuple[str, ...],
        Meta(description="variables that `auth: env:NAME` may send beyond loopback, by name or pattern (STAGING_*)"),
    ] = ()


class Shadow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    memory_bytes_max: Annotated[
        int,
        Meta(
            ge=0, description="memory of the shadow process, in bytes; 0: a quarter of the machine's or the container's"
        ),
    ] = 0
    cpu_share_max: Annotated[
        float, Meta(gt=0, le=1, description="share of the cores from which on the shadow lowers its samples")
    ] = 0.5


class Ramps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alarms: Annotated[
        bool, Meta(description="pause a route's steps when a variant fails more, is slower or gets what it should not")
    ] = True
    alarm_alpha: Annotated[
        float, Meta(gt=0, le=0.5, description="how often, at most, sound variants pause a step, or one window of it")
    ] = 0.0001
    alarm_window_s: Annotated[
        Seconds, Meta(description="seconds of the latest part of a step, which is judged apart from the whole")
    ] = 300.0
    latency_ratio_max: Annotated[
        float, Meta(gt=1, description="times the champion's p99 from which on a variant counts as slower")
    ] = 2.0


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    certificate_file: Annotated[str | None, Meta(description="PEM chain of the listeners; none: plain text")] = None
    key_file: Annotated[str | None, Meta(description="PEM key that belongs to it, without a password")] = None
    listeners: Annotated[
        tuple[Listener, ...], Meta(description="which listeners speak TLS, once there is a certificate")
    ] = ("rest", "grpc", "admin", "webhook")

    client_ca_file: Annotated[
        str | None,
        Meta(description="PEM of who signs callers' certificates (mutual TLS); none: nobody is asked for one"),
    ] = None
    client_listeners: Annotated[
        tuple[Listener, ...],
        Meta(description="which of the TLS listeners want a caller's certificate, once there is such a PEM"),
    ] = ("rest", "grpc", "admin")

    def scheme(self, listener: Listener) -> str:
        """`https`, or `http` for plain text."""
        return "http" if self.pair(listener) is None else "https"

    def pair(self, listener: Listener) -> tuple[str, str] | None:
        """Certificate and key of a listener; None: it speaks plain text."""
        if self.certificate_file is None or self.key_file is None or listener not in self.listeners:
            return None
        return self.certificate_file, self.key_file

    def client_ca(self, listener: Listener) -> str | None:
        """Who must have signed a caller's certificate; None: the listener asks for none."""
        return self.client_ca_file if self.pair(listener) and listener in self.client_listeners else None


class FeastSinkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    repo: Annotated[
        str | None, Meta(description="folder of a Feast repository that gets each unit's newest answer; none: off")
    ] = None


class FeatureStoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    repo: Annotated[
        str | None,
        Meta(description="folder of the Feast repository that routes look features up in; none: that of sinks.feast"),
    ] = None


class KafkaSinkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    brokers: Annotated[str | None, Meta(description="bootstrap servers, separated by commas; none: off")] = None
    topic_prefix: Annotated[str, Meta(description="topics are called <prefix><table>")] = "runoff."
    tables: Annotated[
        tuple[Literal["predictions", "shadows", "labels", "metrics"], ...], Meta(description="what is sent")
    ] = ("predictions", "labels")
    properties_file: Annotated[
        str | None, Meta(description="file of librdkafka's own properties (name=value), for security")
    ] = None


class NatsSinkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    servers: Annotated[tuple[str, ...], Meta(description="nats://host:4222, several by commas; none: off")] = ()
    stream: Annotated[str, Meta(description="JetStream stream, made where it is not there")] = "RUNOFF"
    subject_prefix: Annotated[str, Meta(description="subjects are called <prefix><table>")] = "runoff."
    tables: Annotated[
        tuple[Literal["predictions", "shadows", "labels", "metrics"], ...], Meta(description="what is sent")
    ] = ("predictions", "labels")
    credentials_file: Annotated[str | None, Meta(description="file with the account's JWT and seed (.creds)")] = None


class Sinks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: Annotated[
        Literal["new", "all"],
        Meta(description="where a sink begins that was never there: new rows, or all of the lake"),
    ] = "new"
    feast: FeastSinkSettings = FeastSinkSettings()
    kafka: KafkaSinkSettings = KafkaSinkSettings()
    nats: NatsSinkSettings = NatsSinkSettings()


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Frozen; crosses to child processes as JSON. What is left empty is derived from `state_dir` or the machine."""

    state_dir: Annotated[str, Meta(description="the one directory of state: routes, spool, artifacts, lake (0700)")] = (
        "var"
    )
    registry_uri: Annotated[str, Meta(description="MLflow registry that models:/ references name, or a folder")] = ""
    tracking_uri: Annotated[str, Meta(description="MLflow tracking server, for runs:/ and artifacts")] = ""
    registry_poll_s: Annotated[Seconds, Meta(description="seconds between two looks at the registry's aliases")] = 5.0
    webhook_secret: Annotated[
        str | None,
        Meta(description="secret of MLflow's webhooks, which nudge a look at the aliases; none: no webhooks"),
    ] = None
    webhook_host: Annotated[str, Meta(description="address of the listener of webhooks alone, if it has a port")] = (
        "127.0.0.1"
    )
    webhook_port: Annotated[
        Port | None,
        Meta(description="webhooks on a listener of their own; 0 picks a free port; none: on the admin listener alone"),
    ] = None
    host: Annotated[str, Meta(description="address of the data listeners, REST and gRPC")] = "127.0.0.1"
    rest_port: Annotated[Port, Meta(description="REST; 0 picks a free port and prints it")] = 8080
    grpc_port: Annotated[Port, Meta(description="gRPC; 0 picks a free port and prints it")] = 8081
    metrics_host: Annotated[str, Meta(description="address of /metrics, /livez and /readyz")] = "127.0.0.1"
    metrics_port: Annotated[Port, Meta(description="metrics and probes; 0 picks a free port and prints it")] = 8082
    admin_host: Annotated[str, Meta(description="address of the admin API and console")] = "127.0.0.1"
    admin_port: Annotated[Port, Meta(description="admin; 0 picks a free port and prints it")] = 8090
    workers: Annotated[int, Meta(ge=0, le=1024, description="worker processes; 0: one a core this process may use")] = 0
    default_endpoint: Annotated[
        str | None, Meta(description="the endpoint of a bare /invocations; none: the only one, when there is one")
    ] = None
    trust_pickle: Annotated[
        tuple[str, ...], Meta(description="model name patterns that the isolated converter may unpickle")
    ] = ()
    trust_types: Annotated[tuple[str, ...], Meta(description="more types that skops may load, by full name")] = ()
    lake_uri: Annotated[str, Meta(description="where predictions, shadows, labels and metrics are kept as tables")] = ""
    ingested_retention: Annotated[
        tuple[str, ...],
        Meta(description="how long rows of `runoff ingest` stay, by table: 'customers=90d'; none: for ever"),
    ] = ()
    labels_file: Annotated[
        str | None, Meta(description="TOML file of tables from which labels are fetched by and by; none: none are")
    ] = None
    state_url: Annotated[str, Meta(description="the state database; sqlite:/// only, so far")] = ""
    grace_s: Annotated[Seconds, Meta(description="seconds a stopping process may take to finish what it holds")] = 20.0
    spool_bytes_max: Annotated[Count, Meta(description="bytes of records waiting for the lake, at most")] = 1 << 30
    mirror_bytes_max: Annotated[Count, Meta(description="bytes of rows waiting for mirrors, at most")] = 256 << 20
    door: Annotated[Literal["wire", "asgi"], Meta(description="who reads REST: the wire protocol, or plain ASGI")] = (
        "wire"
    )
    grpc_door: Annotated[
        Literal["wire", "grpcio"],
        Meta(description="who reads gRPC: the HTTP/2 protocol of our own, or grpcio's server"),
    ] = "wire"
    open_data: Annotated[bool, Meta(description="serve predict and metadata beyond loopback without keys")] = False
    bootstrap_key_file: Annotated[
        str | None,
        Meta(description="file with the first key: it may do everything while the file is there; none: no such key"),
    ] = None
    auth: Auth = Auth()
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
    remotes: Remotes = Remotes()
    ramps: Ramps = Ramps()
    shadow: Shadow = Shadow()
    tls: Tls = Tls()
    sinks: Sinks = Sinks()
    features: FeatureStoreSettings = FeatureStoreSettings()

    def __post_init__(self) -> None:
        state = Path(self.state_dir).absolute()
        registry = self.registry_uri or self.tracking_uri or f"sqlite:///{state}/mlflow.db"
        derived = {
            "state_dir": str(state),
            "registry_uri": registry,
            "tracking_uri": self.tracking_uri or registry,
            "lake_uri": self.lake_uri or f"{state}/lake",
            "state_url": self.state_url or f"sqlite:///{state}/state.db",
            "workers": self.workers or _cores(),
        }
        for name, value in derived.items():
            msgspec.structs.force_setattr(self, name, value)

    @property
    def state_path(self) -> Path:
        """The state directory."""
        return Path(self.state_dir)

    @property
    def state_file(self) -> Path:
        """The SQLite file behind `state_url`."""
        return Path(self.state_url.removeprefix("sqlite:///"))

    @property
    def ingested_kept_s(self) -> dict[str, int]:
        """How long rows of each table of `runoff ingest` stay that has a retention, in seconds. Raises SettingsInvalid."""
        found = {}
        for one in self.ingested_retention:
            table, _, duration = one.partition("=")
            kept_s = seconds_of(duration)
            if kept_s is None or not INGESTED_TABLE.fullmatch(table):
                wanted = "wanted a table's name, '=' and a duration of up to 100 years, such as customers=90d"
                raise SettingsInvalid(f"ingested_retention: {wanted}, got {one!r}")
            found[table] = kept_s
        return found

    @property
    def features_repo(self) -> str | None:
        """The Feast repository that features are looked up in; None: routes cannot have features."""
        return self.features.repo or self.sinks.feast.repo

    @property
    def artifacts_path(self) -> Path:
        """Where staged models lie, by digest."""
        return self.state_path / "artifacts"


def _cores() -> int:
    """Processor cores that this process may use; all of the machine's where the system cannot say."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
