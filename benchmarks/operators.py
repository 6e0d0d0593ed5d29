"""What RunAgentOperator costs over PythonOperator: the same work, in the same DAG, in the same run.

Starts a real Airflow, runs pairs of tasks one after the other, and prints the medians of their durations.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "deploy"))

from localairflow.stack import LocalAirflow  # noqa: E402  # deploy/ is put on the path above

DAG_ID = "operator_cost"


def main() -> None:
    """Run the DAG twice, the first time as warm-up, and print the figures of the second."""
    with tempfile.TemporaryDirectory() as home, LocalAirflow(Path(home), HERE / "dags") as airflow:
        client = airflow.client
        client.wait_for_dag(DAG_ID, timeout_s=60)
        for _ in range(2):
            run_id = client.trigger(DAG_ID)
            state = client.wait(DAG_ID, run_id, timeout=300)
            if state != "success":
                sys.exit(f"run {run_id} ended as {state}")
        tasks = client.task_instances(DAG_ID, run_id)
    kinds: dict[str, list[float]] = {"python": [], "agent": [], "mailbox": []}
    for task in tasks:
        kinds[task.task_id.split("_")[0]].append(task.duration_s or 0.0)
    medians = {kind: statistics.median(values) for kind, values in kinds.items()}
    print(f"duration of a task, median of {len(kinds['python'])} interleaved in one DAG run")
    for kind, name in (
        ("python", "PythonOperator"),
        ("agent", "RunAgentOperator(task=…)"),
        ("mailbox", "RunAgentOperator(mailbox=…), one message"),
    ):
        ratio = medians[kind] / medians["python"]
        print(f"  {name:<42} {medians[kind] * 1000:6.0f} ms   {ratio:4.2f} x")


if __name__ == "__main__":
    main()
