"""Runs the MLflow project that this folder is (its `MLproject` file), as `mlflow run` would, into the gateway's default registry."""

import argparse
import logging
from pathlib import Path

from gateway.demo.models import MODEL


def main(arguments: list[str] | None = None) -> None:
    """`python -m gateway.demo.project STATE_DIR --rows N`; ends with an exception, and so with status 1, when the training fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--rows", type=int, default=40_000, help="rows each model learns from, at most")
    given = parser.parse_args(arguments)
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    import mlflow

    state_dir = given.state_dir.absolute()
    mlflow.set_tracking_uri(f"sqlite:///{state_dir}/mlflow.db")
    found = mlflow.get_experiment_by_name(MODEL)
    # Named here, for otherwise artifacts would go to ./mlruns of whoever starts the demo.
    experiment = found.experiment_id if found else mlflow.create_experiment(MODEL, (state_dir / "mlruns").as_uri())
    mlflow.projects.run(
        uri=str(Path(__file__).parent),
        parameters={"rows": given.rows},
        experiment_id=experiment,
        env_manager="local",
        run_name="training",
    )


if __name__ == "__main__":
    main()
