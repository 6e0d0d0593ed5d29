from __future__ import annotations

import psutil
import pytest

from localairflow.environment import MARKER
from localairflow.stack import LocalAirflow

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def trivial():
    @task
    def answer(question: str) -> int:
        return len(question)

    answer("{{ dag_run.conf['question'] }}")

trivial()
"""


def processes_of(home):
    found = []
    for process in psutil.process_iter():
        try:
            environment, command = process.environ(), process.cmdline()
            ended = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        names_home = any(str(home) in word for word in command)
        if not ended and (environment.get(MARKER) == str(home) or names_home):
            found.append(command)
    return found


@pytest.mark.system
def test_a_local_airflow_runs_a_dag_and_leaves_no_process_behind(homes, tmp_path):
    home, dags = homes / "trivial", tmp_path / "dags"
    dags.mkdir()
    (dags / "trivial.py").write_text(DAG)

    with LocalAirflow(home, dags, parallelism=1) as airflow:
        airflow.client.wait_for_dag("trivial", timeout_s=30)
        run_id = airflow.client.trigger("trivial", conf={"question": "why?"})
        assert airflow.client.wait("trivial", run_id, timeout=60) == "success"
        assert airflow.client.xcom("trivial", run_id, "answer") == len("why?")
        assert airflow.client.import_errors() == []
        assert processes_of(home)

    assert processes_of(home) == []
