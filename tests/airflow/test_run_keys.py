"""Tasks that work on a durable run of another key: a fork goes on in a DAG, with no export and no import."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.errors import ConfigurationError, ServiceError
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.persistence import Interrupted

BY_PARAM = "{{ params.run_key }}"


@pytest.fixture
def done():
    return []


@pytest.fixture
def cashier(done):
    """An agent that reads, pays, and cannot book what is wrong."""

    @agent("cashier")
    def cashier(order: int, ctx: AgentContext) -> str:
        euros = ctx.step("read", lambda: done.append("read") or (-1 if len(done) == 1 else 300))
        ctx.step("pay", lambda: done.append("pay"))
        if euros < 0:
            raise ServiceError("nobody books that")
        ctx.emit({"booked": euros})
        return f"booked {euros}"


def till(**arguments):
    with DAG("till", params={"run_key": ""}) as dag_:
        RunAgentOperator(task_id="pay", agent="cashier", task=7, **arguments)
    return dag_


class TestForks:
    def test_a_fork_goes_on_in_the_next_dag_run_and_the_old_run_stays(self, run_dag, store, cashier, done):
        dag_ = till(run_key=BY_PARAM)
        first = run_dag(dag_)
        assert (first.state, done) == ("failed", ["read", "pay"])
        key = f"cashier/till/{first.run_id}/pay"
        before = store.runs.find(key), store.history(key)
        fork = store.fork(key, at=1, actor="ana", reason="the order was read wrongly")
        assert store.runs.find(fork).task == ""

        second = run_dag(dag_, run_conf={"run_key": fork})

        assert (second.state, second.xcom("pay")) == ("success", "booked 300")
        assert done == ["read", "pay", "read", "pay"]
        assert (store.runs.find(key), store.history(key)) == before
        head = store.runs.find(fork)
        assert (head.status, head.task) == ("finished", f"till/{second.run_id}/pay")
        assert store.runs.known(f"cashier/till/{second.run_id}/pay") is None

    def test_what_was_finished_before_the_fork_is_not_done_again(self, run_dag, store, cashier, done):
        dag_ = till(run_key=BY_PARAM)
        first = run_dag(dag_)
        key = f"cashier/till/{first.run_id}/pay"
        paid = next(
            each.version for each in store.history(key) if (each.type, each.name) == ("step.done", "pay")
        )
        run_dag(dag_, run_conf={"run_key": store.fork(key, at=paid, actor="ana", reason="once more")})
        assert done == ["read", "pay"]

    def test_with_no_key_the_task_works_on_its_own_run(self, run_dag, store, cashier, done):
        done.append("before")
        run = run_dag(till(run_key=BY_PARAM))
        assert run.state == "success"
        assert [head.stream for head in store.runs.find_all()] == [f"cashier/till/{run.run_id}/pay"]


class TestRuns:
    def test_one_that_came_to_its_end_answers_with_its_result(self, run_dag, store, done):
        @agent("cashier")
        def cashier(order: int, ctx: AgentContext) -> str:
            done.append("at work")  # in no step
            return ctx.step("pay", str)

        with store.run("cashier", key="k") as run:
            run.emit({"booked": 5})
            run.finish("booked 5")
        ran = run_dag(till(run_key="k"))
        assert (ran.state, ran.xcom("pay"), done) == ("success", "booked 5", [])

    def test_one_that_was_begun_elsewhere_goes_on_in_the_task(self, run_dag, store):
        @agent("asker")
        def asker(order: int, ctx: AgentContext) -> str:
            return ctx.step("answered", str, ctx.interrupt("May I?"))

        with pytest.raises(Interrupted), store.run("asker", key="k") as run:
            run.interrupt("May I?")
        store.runs.by_hand.answer("k", "question", "yes", actor="ann")
        with DAG("decorated") as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task=7, run_key="k")
        assert run_dag(dag_).xcom("ask") == "yes"

    def test_one_of_another_agent_is_refused(self, run_dag, store, cashier, done):
        with store.run("another", key="k") as run:
            run.emit(1)
        assert run_dag(till(run_key="k")).state == "failed"
        assert done == []

    def test_a_decorated_function_takes_a_key_as_well(self, run_dag, store, done):
        with DAG("decorated") as dag_:

            @task.agentic(run_key="order-{{ 3 + 4 }}")
            def cashier(order: int, ctx: AgentContext) -> str:
                return ctx.step("pay", lambda: done.append(order) or "paid")

            cashier(7)
        assert run_dag(dag_).xcom("cashier") == "paid"
        assert store.runs.find("order-7").status == "finished"

    def test_mapped_tasks_have_a_key_each(self, run_dag, store, cashier, done):
        done.append("before")
        with DAG("mapped") as dag_:
            RunAgentOperator.partial(task_id="pay", agent="cashier", run_key="k-{{ ti.map_index }}").expand(
                task=[1, 2]
            )
        assert run_dag(dag_).state == "success"
        assert {head.stream for head in store.runs.find_all()} == {"k-0", "k-1"}


class TestParsing:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"mailbox": "till", "task": None}, "run_key= is for task="),
            ({"persistence": "off"}, "with persistence='off' there is no durable run"),
            ({"run_key": "x" * 501}, "the key of a run has 501 characters"),
        ],
    )
    def test_a_key_where_there_is_no_run_or_that_is_none_is_refused(self, cashier, arguments, says):
        with DAG("mistaken"), pytest.raises(ConfigurationError, match=says):
            RunAgentOperator(task_id="pay", agent="cashier", **{"task": 7, "run_key": "k", **arguments})

    def test_one_key_for_all_mapped_tasks_is_refused(self, cashier):
        with (
            DAG("mistaken"),
            pytest.raises(ConfigurationError, match=r"all mapped tasks would .* k-\{\{ ti.map_index"),
        ):
            RunAgentOperator.partial(task_id="pay", agent="cashier", run_key="k")
