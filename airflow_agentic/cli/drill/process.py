"""``python -m airflow_agentic.cli.drill.process DAG TIME``: runs a DAG in this process, as the run of that time."""

from __future__ import annotations

import sys
from datetime import datetime


def main(dag_id: str, moment: str) -> None:
    """Run a DAG to its end. The same time is the same run: what an earlier process left of it is replaced.

    Args:
        dag_id: Which.
        moment: Logical date and id of the run, in ISO 8601 with a zone.
    """
    from airflow.utils.cli import get_bagged_dag
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    at = datetime.fromisoformat(moment)
    run = providers_configuration_loaded(lambda: get_bagged_dag(None, dag_id))
    run().test(run_after=at, logical_date=at)


if __name__ == "__main__":
    main(*sys.argv[1:])
