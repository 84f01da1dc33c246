"""Where settings come from: the file `runoff.toml`, overridden by `RUNOFF_…` variables, overridden by options; and what stands against them.

This is the only module that is handed the environment.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from gateway.settings import Oidc, Settings, SettingsInvalid


class Explained(Struct, frozen=True, kw_only=True):
    """One row of `runoff settings`. `origin`: `default`, `derived`, the variable, the option or the file it came from."""

    key: str
    value: Any
    origin: str
    default: Any
    variable: str
    meaning: str


_FALLBACKS: Final = {
    "registry_uri": ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"),
    "tracking_uri": ("MLFLOW_TRACKING_URI",),
}
"""Variables of MLflow that stand in where ours is not set, in this order."""

_SECRET: Final = frozenset({"webhook_secret"})
"""Settings that nobody is shown."""

_OURS: Final = ("tracking_uri",)
"""Settings whose own variable does not exist: MLflow's is the name everybody already uses."""


def load(options: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings from `options` (by dotted key; None: not given), `environ` and `file`, the first that has a key winning.

    Raises SettingsInvalid with the first thing that does not fit.
    """
    nested: dict[str, Any] = {}
    for key, (value, origin) in _gathered(options, environ, file).items():
        _check(key, value, origin)
        *groups, last = key.split(".")
        target = nested
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = value
    settings = msgspec.convert(nested, Settings)
    _check_whole(settings)
    return settings


def explain(options: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> list[Explained]:
    """Every setting with its value, where that came from, its default and its meaning. Raises SettingsInvalid."""
    given = _gathered(options, environ, file)
    settings, defaults = load(options, environ, file), Settings()
    rows = []
    for key, (_, meaning) in _keys().items():
        value, default = _at(settings, key), _at(defaults, key)
        rows.append(
            Explained(
                key=key,
                value="…" if key in _SECRET and value else _masked(value),
                origin=given[key][1] if key in given else "default" if value == default else "derived",
                default=default,
                variable=_variables(key)[0],
                meaning=meaning,
            )
        )
    return rows


def _gathered(
    options: Mapping[str, object], environ: Mapping[str, str], file: Path | None
) -> dict[str, tuple[object, str]]:
    """Key → value and origin. Raises SettingsInvalid for unknown keys in the file or the options."""
    found: dict[str, tuple[object, str]] = {}
    if file is not None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsInvalid(f"{file}: cannot be read: {error}") from error
        for key, value in _flat(document):
            found[_known(key, str(file))] = (value, str(file))
    for key, (kind, _) in _keys().items():
        for variable in _variables(key):
            if environ.get(variable):
                found[key] = (_parsed(key, environ[variable], kind, variable), variable)
                break
    for key, option in options.items():
        if option is not None:
            found[_known(key, "option")] = (list(option) if isinstance(option, tuple) else option, "option")
    return found


def _keys() -> dict[str, tuple[Any, str]]:
    """Dotted key → (annotated type, meaning), in the order of the structs."""
    return dict(_leaves(Settings, ""))


def _leaves(group: type[Struct], prefix: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    for name, kind in get_type_hints(group, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, (kind, _meaning(kind))


def _meaning(kind: Any) -> str:
    return next(
        (meta.description for meta in reversed(get_args(kind)) if isinstance(meta, Meta) and meta.description), ""
    )


def _variables(key: str) -> tuple[str, ...]:
    """The variables that set `key`, the strongest first."""
    ours = () if key in _OURS else ("RUNOFF_" + key.replace(".", "_").upper(),)
    return (*ours, *_FALLBACKS.get(key, ()))


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _known(key: str, origin: str) -> str:
    if key not in _keys():
        raise SettingsInvalid(f"{origin}: unknown setting {key!r}; `runoff settings` lists all of them")
    return key


def _parsed(key: str, text: str, kind: Any, origin: str) -> object:
    """A variable's text as the type of its setting; lists are separated by commas."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(bare) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        value: object = msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"{key} (from {origin}): {_plain(error)}, got {text!r}") from error
    return value


def _check(key: str, value: object, origin: str) -> None:
    try:
        msgspec.convert(value, _keys()[key][0])
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"{key} (from {origin}): {_plain(error)}, got {value!r}") from error


def _check_whole(settings: Settings) -> None:
    """What no single key shows."""
    if not settings.state_url.startswith("sqlite:///"):
        raise SettingsInvalid(f"state_url: wanted sqlite:///<path>, got {settings.state_url.split(':', 1)[0]}:…")
    if settings.auth.admin == "open" and not _is_loopback(settings.admin_host):
        raise SettingsInvalid(f"admin_host {settings.admin_host} is beyond loopback: that needs auth.admin = 'keys'")
    if settings.auth.data == "open" and not settings.open_data and not _is_loopback(settings.host):
        raise SettingsInvalid(
            f"host {settings.host} is beyond loopback: that needs auth.data = 'keys', or open_data = true"
        )

    if settings.webhook_port is not None and not settings.webhook_secret:
        raise SettingsInvalid("webhook_port: webhooks are heard with a secret only; set RUNOFF_WEBHOOK_SECRET too")
    _check_oidc(settings.auth.oidc)
    _ = settings.ingested_kept_s
    if (settings.tls.certificate_file is None) != (settings.tls.key_file is None):
        raise SettingsInvalid("tls.certificate_file and tls.key_file: wanted both or none")
    if settings.tls.client_ca_file is not None and settings.tls.certificate_file is None:
        raise SettingsInvalid(
            "tls.client_ca_file: callers show certificates over TLS only; set tls.certificate_file too"
        )


def _check_oidc(oidc: Oidc) -> None:
    if oidc.issuer is None:
        return
    if oidc.audience is None or oidc.jwks is None:
        raise SettingsInvalid("auth.oidc: an issuer needs an audience and jwks too")
    where = urlsplit(oidc.jwks)
    if where.scheme == "http" and not _is_loopback(where.hostname or ""):
        raise SettingsInvalid(
            "auth.oidc.jwks: wanted https, or a file: who can change the keys on their way can be anybody"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(error: msgspec.ValidationError) -> str:
    return str(error)[:1].lower() + str(error)[1:]


def _at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _masked(value: Any) -> Any:
    """Without the password that an address may carry."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:…@", value) if isinstance(value, str) else value
