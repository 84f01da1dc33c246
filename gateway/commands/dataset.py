"""`runoff dataset`: labelled rows as one Parquet file that carries its lineage, and as an MLflow dataset logged to a run."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import msgspec

from gateway.commands.lake import label_window_s, local_lake, route_of, window
from gateway.commands.talk import CommandFailed, show_json, show_lines, waiting
from gateway.evidence.dataset import Dataset, Question, dataset
from gateway.evidence.query import Queries
from gateway.settings import Settings
from gateway.streams.parquet import write_parquet
from gateway.streams.table import CommitFailed


def make_dataset(
    settings: Settings,
    endpoint: str,
    *,
    since: str | None,
    until: str | None,
    out: Path | None,
    log_to: str | None,
    as_json: bool,
    with_sensitive: bool = False,
) -> None:
    """Raises CommandFailed; an endpoint without a labelled row is one."""
    since_unix_s, until_unix_s = window(since, until)
    question = Question(
        endpoint=endpoint,
        since_unix_s=since_unix_s,
        until_unix_s=until_unix_s,
        label_window_s=label_window_s(route_of(settings, endpoint)),
        with_sensitive=with_sensitive,
    )
    if with_sensitive and log_to is not None:
        raise CommandFailed(
            "--with-sensitive and --log-to: sensitive attributes would lie where every reader of the runs finds them"
        )
    path = out or Path(f"{endpoint}.parquet")
    with waiting("joining labels to predictions …"):
        try:
            made = dataset(Queries(local_lake(settings)), question)
        except CommitFailed as error:
            raise CommandFailed(f"the lake cannot be read: {error}") from error
        if not made.rows.num_rows:
            raise CommandFailed(_why_empty(made))
        try:
            write_parquet(path, made.rows, {"runoff.lineage": msgspec.json.encode(made.lineage)})
        except OSError as error:
            raise CommandFailed(f"{path} cannot be written: {error}") from error
    told: dict[str, Any] = {"file": str(path), **made.lineage}
    if log_to is not None:
        with waiting("logging to MLflow …"):
            told["mlflow"] = log_dataset(made, path, experiment=log_to, tracking_uri=settings.tracking_uri)
    if as_json:
        show_json(told)
    else:
        show_lines(*_lines(told))


def log_dataset(made: Dataset, path: Path, *, experiment: str, tracking_uri: str) -> dict[str, str]:
    """A run of its own in the experiment: the file and its lineage as artifacts, the dataset as the run's input."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="mlflow"
    )  # hints about integer columns and local folders, for every data set
    import mlflow
    from mlflow.exceptions import MlflowException

    lineage = made.lineage
    endpoint = str(lineage["endpoint"])
    try:
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=f"dataset {endpoint}") as run:
            mlflow.log_artifact(str(path), "dataset")
            mlflow.log_dict(lineage, "dataset/lineage.json")
            source = f"{run.info.artifact_uri}/dataset/{path.name}"
            frame = made.rows.select([*made.features, "answer_label", "label"]).to_pandas()
            digest = str(lineage["digest"]).removeprefix("sha256:")[:32]  # MLflow keeps 36 characters
            found = mlflow.data.from_pandas(
                frame, source=source, targets="label", predictions="answer_label", name=endpoint, digest=digest
            )
            tags = {"runoff.endpoint": endpoint, "runoff.digest": str(lineage["digest"])}
            mlflow.set_tags(tags | {"runoff.revisions": ",".join(map(str, lineage["revisions"]))})
            mlflow.log_input(found, context="training")
            mlflow.log_metrics({name: lineage[name] for name in ("rows", "predictions", "labelled")})
    except MlflowException as error:
        raise CommandFailed(f"MLflow at {tracking_uri} refused: {error}") from error
    return {"run_id": run.info.run_id, "source": source, "digest": digest}


def lineage_of(path: Path) -> dict[str, Any]:
    """The lineage that a file carries."""
    from pyarrow import parquet

    lineage: dict[str, Any] = json.loads((parquet.read_schema(path).metadata or {})[b"runoff.lineage"])
    return lineage


def _why_empty(made: Dataset) -> str:
    lineage = made.lineage
    if not lineage["predictions"]:
        return f"{lineage['endpoint']}: no answered prediction is stored in this window"
    if not lineage["labelled"]:
        return f"{lineage['endpoint']}: none of {lineage['predictions']} predictions has a label in time; runoff label FILE"
    return f"{lineage['endpoint']}: {lineage['labelled']} predictions have labels, none its inputs; the route says record.inputs"


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [
        f"{told['file']}: {told['rows']} labelled rows of {told['predictions']} predictions, {len(told['features'])} inputs, label {told['label_type']}",
        f"  {told['digest']}",
        f"  revisions {', '.join(map(str, told['revisions']))}",
        *(
            f"  {one['rows']} rows answered by {one['variant']}: {one['model']}/{one['version']}"
            for one in told["models"]
        ),
    ]
    if told["without_inputs"]:
        lines.append(f"  {told['without_inputs']} labelled rows left out: their inputs were not recorded")
    if told.get("sensitive"):
        names = ", ".join(name.removeprefix("attribute_") for name in told["sensitive"])
        lines.append(f"  holds sensitive attributes: {names}; the file is yours to protect and to delete")
    if "mlflow" in told:
        lines.append(f"  logged to MLflow as the input of run {told['mlflow']['run_id']}")
    return lines
