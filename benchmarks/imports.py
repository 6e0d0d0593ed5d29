"""What importing the operators adds to `import airflow.sdk`: median of interleaved fresh processes.

Promise P13: at most 150 ms. Printed, never asserted: timings belong to the machine that made them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

ROUNDS = 9
# airflow.sdk is lazy: naming BaseOperator is what any DAG file with an operator does.
BASE = "from airflow.sdk import DAG, BaseOperator, task"
OURS = (
    f"{BASE}; import airflow_agentic.operators.agents, airflow_agentic.operators.messaging, "
    "airflow_agentic.sensors.messaging"
)
CLOCK = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def once(statement: str, home: str) -> float:
    """Return the seconds that a statement takes in a process of its own."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    output = subprocess.check_output(command, text=True, env={"AIRFLOW_HOME": home, "PATH": ""})
    return float(output.splitlines()[-1])


def main() -> None:
    """Print the medians and their difference."""
    with tempfile.TemporaryDirectory() as home:
        once(OURS, home)
        rounds = [(once(BASE, home), once(OURS, home)) for _ in range(ROUNDS)]
    base, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    added = statistics.median(b - a for a, b in rounds)
    print(f"import cost, median of {ROUNDS} interleaved rounds")
    print(f"  airflow.sdk                {base * 1000:7.0f} ms")
    print(f"  airflow.sdk + operators    {ours * 1000:7.0f} ms")
    print(f"  added                      {added * 1000:7.0f} ms  (promised: at most 150 ms)")


if __name__ == "__main__":
    main()
