"""Opening a stored Python object, only inside the converter's process: skops by a list of types, pickle only where the operator said so."""

import fnmatch
import pickle
import re
from pathlib import Path
from typing import Any, Final

from models.convert.mlmodel import Mlmodel
from models.errors import StagingRefused

_LIBRARIES: Final = ("sklearn", "numpy", "scipy", "xgboost", "lightgbm")
_HARMLESS: Final = frozenset({"collections.OrderedDict", "numpy.dtype"})
_TYPE: Final = re.compile(rf"(?:{'|'.join(_LIBRARIES)})(?:\.[A-Za-z_]\w*)*\.[A-Z]\w*")
"""A class of a model library: a capital starts the name of every one, and no function's, which an object could be made to call."""

_SKOPS: Final = "skops"
_XGBOOST: Final = frozenset(
    {"Booster", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"}
)


def open_object(
    model: Mlmodel, path: Path, name: str, *, trust_types: tuple[str, ...], trust_pickle: tuple[str, ...]
) -> Any:
    """The object stored at `path`. `name` is the registered model's, held against the patterns of `trust_pickle`.

    Raises StagingRefused whose remedy names the setting that would allow it.
    """
    stored_as = str(model.configuration.get("serialization_format") or "cloudpickle")
    if stored_as == _SKOPS:
        return _open_skops(path, model.configuration.get("skops_trusted_types") or [], trust_types)
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in trust_pickle):
        raise StagingRefused(
            "pickle_untrusted",
            f"model '{name}' is stored as {stored_as}, which runs code of its author when it is opened",
            f"log it with serialization_format='skops', or let the isolated converter open it: RUNOFF_TRUST_PICKLE={name}",
        )
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - named by the operator, in a process without keys, registry or network


def _open_skops(path: Path, listed: list[str], trust_types: tuple[str, ...]) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    own = {kind for kind in map(str, listed) if kind in _HARMLESS or _TYPE.fullmatch(kind)}
    wanted = set(skops.io.get_untrusted_types(file=path))
    missing = sorted(wanted - own - set(trust_types))
    if missing:
        raise StagingRefused(
            "types_untrusted",
            f"the model holds types that are not trusted: {', '.join(missing)}",
            "list the model libraries' own with log_model(…, skops_trusted_types=[…]), others with RUNOFF_TRUST_TYPES="
            + ",".join(missing),
        )
    try:
        return skops.io.load(path, trusted=sorted(wanted))
    except UntrustedTypesFoundException as error:
        raise StagingRefused("types_untrusted", f"the model holds types that are not trusted: {error}") from error


def open_native(model: Mlmodel, path: Path) -> Any | None:
    """A model in its library's own format, which holds data and no code; None when it is stored as a Python object instead."""
    kind = str(model.configuration.get("model_class") or "")
    if model.flavor == "xgboost":
        import xgboost

        name = kind.removeprefix("xgboost.").rpartition(".")[2] or "Booster"
        if name not in _XGBOOST:
            raise StagingRefused("flavor_unsupported", f"XGBoost model class '{kind}' is not served")
        booster = getattr(xgboost, name)()
        booster.load_model(path)
        return booster
    if model.flavor == "lightgbm" and kind in {"", "lightgbm.basic.Booster"}:
        import lightgbm

        return lightgbm.Booster(model_file=str(path))
    return None
