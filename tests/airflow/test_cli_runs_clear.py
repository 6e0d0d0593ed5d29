"""A run that belongs to a task goes on from the command line: the task is cleared, with what comes after it."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.operators.agents import RunAgentOperator

done: list[str] = []


@agent(name="teller")
def teller(work: int, ctx: AgentContext) -> int:
    """Pays after it has read."""
    ctx.step("read", done.append, f"read {work}")
    if work < 2:
        ctx.step("pay", _refuse, work)
    return work


def _refuse(work: int) -> None:
    raise ConnectionError(f"nobody pays {work}")


@pytest.fixture
def failed(run_dag):
    """A DAG run whose agent failed, beside another one that did not."""
    with DAG("till", schedule=None) as dag:
        paid = RunAgentOperator.partial(task_id="pay", agent="teller").expand(task=[1, 2])

        @task
        def report(amounts: list[int]) -> int:
            return sum(amounts)

        report(paid.output)
    ended = run_dag(dag)
    assert ended.state == "failed"
    return ended


@pytest.fixture
def command(store, capsys):
    from airflow.cli.cli_parser import get_parser

    def run(*words):
        capsys.readouterr()
        args = get_parser().parse_args(["agentic", "runs", *words, "--store-url", store.url])
        code = 0
        try:
            args.func(args)
        except SystemExit as end:
            return 1, str(end.code)
        return code, capsys.readouterr().err

    return run


def states(run_id):
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(TaskInstance).where(TaskInstance.run_id == run_id, TaskInstance.dag_id == "till")
        )
        return {(ti.task_id, ti.map_index): ti.state and str(ti.state) for ti in found}


def test_the_task_of_a_run_and_what_comes_after_it_are_cleared(failed, store, command):
    [run] = [head for head in store.runs.find_all() if head.status == "failed"]
    assert run.task == f"till/{failed.run_id}/pay[0]"

    code, said = command("resume", run.stream, "--clear", "--reason", "the bank is back")

    assert code == 0, said
    assert "cleared 2 tasks" in said
    assert states(failed.run_id) == {("pay", 0): None, ("pay", 1): "success", ("report", -1): None}
    assert store.history(run.stream)[-1].data["reason"] == "the bank is back"


def test_a_task_that_airflow_does_not_know_is_named(metadata_db, store, command):
    with (
        pytest.raises(ConnectionError),
        store.run("teller", key="k", task="a_dag_that_nobody_made/run/task") as run,
    ):
        run.step("pay", _refuse, 1)

    code, said = command("resume", "k", "--clear", "--reason", "x")

    assert code == 1
    assert "task 'task' cannot be cleared: Dag 'a_dag_that_nobody_made' could not be found" in said
