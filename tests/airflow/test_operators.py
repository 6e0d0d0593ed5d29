"""The operators, decorator and sensor in DAGs that really run."""

from __future__ import annotations

import shlex
import threading
from datetime import timedelta

import pytest
from airflow.sdk import DAG, dag, task
from airflow.sdk.exceptions import TaskDeferred
from pydantic import BaseModel

from airflow_agentic.agents import AgentContext, BaseAgent, HttpAgent, agent
from airflow_agentic.errors import (
    ConfigurationError,
    InvalidMessage,
    InvalidTask,
    UnknownAgent,
)
from airflow_agentic.messaging import Message
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.operators.messaging import SendMessageOperator
from airflow_agentic.sensors.messaging import MessageSensor


class Order(BaseModel):
    item: str
    count: int = 1


class Receipt(BaseModel):
    text: str


def test_an_agent_takes_a_pydantic_model_and_its_result_is_plain_json_in_xcom(run_dag, store):
    @agent("clerk")
    def clerk(order: Order) -> Receipt:
        return Receipt(text=f"{order.count} {order.item}")

    with DAG("models") as dag_:
        RunAgentOperator(task_id="sell", agent="clerk", task={"item": "bees", "count": "{{ 1 + 1 }}"})

    run = run_dag(dag_)
    assert run.state == "success"
    assert run.xcom("sell") == {"text": "2 bees"}
    status = store.agents.get("clerk")
    assert status is not None
    assert (status.metrics.succeeded, str(status.state)) == (1, "shutdown")


def test_two_agents_talk_through_a_mailbox_and_the_trace_command_finds_it(run_dag, store):
    @dag
    def talk():
        @task.agentic
        def scout(topic: str, ctx: AgentContext) -> dict:
            ctx.send("writer", {"topic": topic})
            return {"scouted": topic}

        @task.agentic(mailbox="writer")
        def writer(note: dict) -> str:
            return note["topic"].upper()

        scout("bees") >> writer()

    run = run_dag(talk())
    assert run.state == "success"
    assert run.xcom("scout") == {"scouted": "bees"}
    assert run.xcom("writer") == {
        "mailbox": "writer", "handled": 1, "failed": 0, "rejected": 0, "lost": 0, "sent": 0, "open": 0,
    }  # fmt: skip
    command = run.xcom("scout", key="agentic_trace")
    assert shlex.split(command) == ["airflow", "agentic", "messages", "trace", f"talk:{run.run_id}"]
    assert [r.mailbox for r in store.bus.trace(f"talk:{run.run_id}")] == ["writer"]
    link = run.xcom("scout", key="_link_MessageTraceLink")
    assert link.endswith(
        f"/dags/talk/runs/{run.run_id.replace(':', '%3A').replace('+', '%2B')}/tasks/scout/xcom"
    )


def test_agents_can_be_mapped_over_tasks(run_dag):
    @dag
    def mapped():
        @task.agentic
        def double(number: int) -> int:
            return number * 2

        RunAgentOperator.partial(task_id="add", agent=adder).expand(task=double.expand(number=[1, 2]))

    @agent("adder")
    def adder(number: int) -> int:
        return number + 1

    run = run_dag(mapped())
    assert run.state == "success"
    assert sorted(run.xcom("add", i) for i in (0, 1)) == [3, 5]


def test_gathering_gives_all_messages_to_the_agent_as_one_list(run_dag, store):
    for number in range(3):
        store.bus.send(Message(source="t", recipient="sums", data=number))
    store.bus.send(Message(source="t", recipient="sums", data="no number"))

    @agent("summer")
    def summer(numbers: list[int]) -> int:
        return sum(numbers)

    with DAG("gather") as dag_:
        RunAgentOperator(task_id="sum", agent="summer", mailbox="sums", gather=True)

    run = run_dag(dag_)
    assert run.xcom("sum") == 3
    assert (store.bus.stats("sums").done, store.bus.stats("sums").dead) == (3, 1)
    assert "summer" in store.bus.dead_letters("sums")[0].reason


def test_a_mailbox_task_waits_for_messages_in_other_hands_without_a_slot(run_dag, store):
    store.bus.send(Message(source="t", recipient="held", data=1))
    store.bus.receive("held", lease=timedelta(seconds=9))  # a worker that is killed with it

    @agent("heir")
    def heir(number: int) -> int:
        return number

    with DAG("heirs") as dag_:
        RunAgentOperator(task_id="inherit", agent="heir", mailbox="held")

    run = run_dag(dag_)
    assert run.xcom("inherit")["handled"] == 1
    assert run.task("inherit").next_method is None
    assert [entry.event for entry in store.bus.find(_all("held"))[0].history] == ["lease-expired"]


def test_a_message_that_the_agent_cannot_read_is_dead_lettered_and_the_task_goes_on(run_dag, store):
    for data in ({"item": "bees"}, {"wrong": "shape"}, {"item": "hives"}):
        store.bus.send(Message(source="t", recipient="orders", data=data))

    @agent("taker")
    def taker(order: Order) -> None:
        """Take an order."""

    with DAG("poison") as dag_:
        RunAgentOperator(task_id="take", agent="taker", mailbox="orders")

    run = run_dag(dag_)
    assert run.state == "success"
    assert run.xcom("take")["handled"] == 2
    (dead,) = store.bus.dead_letters("orders")
    assert "item: Field required" in dead.reason


def test_an_agent_that_returns_no_json_fails_its_task_at_once_and_says_so(run_dag, caplog):
    @agent("odd")
    def odd(number: int):
        return {number: object()}

    with DAG("odd", default_args={"retries": 2, "retry_delay": timedelta(0)}) as dag_:
        RunAgentOperator(task_id="odd", agent="odd", task=1)

    run = run_dag(dag_)
    assert run.state == "failed"
    assert run.task("odd").try_number == 1


def test_a_retried_send_is_not_sent_twice(run_dag, store):
    with DAG("sends") as dag_:
        SendMessageOperator(task_id="send", recipient="inbox", data={"run": "{{ run_id }}"})

    first = run_dag(dag_)
    reference = first.xcom("send")
    assert reference["recipient"] == "inbox"
    message = store.bus.receive("inbox")[0].message
    assert message.data == {"run": first.run_id}
    # What a retry would do: the same work, the same id.
    assert store.bus.send(Message(source=message.source, recipient="inbox", id=reference["id"])) is False


def test_the_sensor_waits_in_the_triggerer_and_returns_references(run_dag, store):
    with DAG("sensing") as dag_:
        sensor = MessageSensor(task_id="wait", mailbox="bell")

    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute({})
    assert deferral.value.trigger.serialize()[1]["condition"] == "message"

    ring = threading.Timer(8, store.bus.send, [Message(source="ringer", recipient="bell")])
    ring.start()
    run = run_dag(dag_)
    ring.join()
    assert run.state == "success"
    assert [reference["source"] for reference in run.xcom("wait")] == ["ringer"]
    assert store.bus.stats("bell").ready == 1


def test_an_unknown_agent_is_refused_when_the_dag_is_parsed_with_the_nearest_name():
    @agent("license-auditor")
    def auditor(number: int) -> int:
        return number

    with DAG("typo"), pytest.raises(UnknownAgent, match="Did you mean 'license-auditor'"):
        RunAgentOperator(task_id="audit", agent="licence-auditor", task=1)


def test_a_mapped_unknown_agent_is_refused_when_the_dag_is_parsed():
    with DAG("typo2"), pytest.raises(UnknownAgent):
        RunAgentOperator.partial(task_id="audit", agent="nobody").expand(task=[1, 2])


def test_a_literal_task_and_configuration_are_checked_when_the_dag_is_parsed():
    @agent("buyer")
    def buyer(order: Order) -> None:
        """Buy."""

    with DAG("literals"):
        with pytest.raises(InvalidTask, match="count"):
            RunAgentOperator(task_id="a", agent="buyer", task={"item": "bees", "count": "many"})
        with pytest.raises(ConfigurationError, match="surprise"):
            RunAgentOperator(task_id="b", agent="buyer", task={"item": "x"}, config={"surprise": 1})
        with pytest.raises(ConfigurationError, match="not both"):
            RunAgentOperator(task_id="c", agent="buyer", task={"item": "x"}, mailbox="m")
        with pytest.raises(ConfigurationError, match="gather=True needs mailbox="):
            RunAgentOperator(task_id="d", agent="buyer", gather=True)
        for together in ({"task": {"item": "x"}}, {"mailbox": "m", "gather": True}):
            with pytest.raises(ConfigurationError, match="inbox=True needs mailbox="):
                RunAgentOperator(task_id=f"g{len(together)}", agent="buyer", inbox=True, **together)
        with pytest.raises(ConfigurationError, match="needs an HttpAgent"):
            RunAgentOperator(task_id="e", agent="buyer", task={"item": "x"}, deferrable=True)
        # A template is only known later.
        RunAgentOperator(task_id="f", agent="buyer", task={"item": "x", "count": "{{ params.n }}"})


def test_a_literal_message_is_checked_when_the_dag_is_parsed():
    with DAG("bad_send"):
        with pytest.raises(InvalidMessage, match="recipient"):
            SendMessageOperator(task_id="a", recipient="no spaces please", data=1)
        with pytest.raises(InvalidMessage, match=r"data\['x'\] is a set"):
            SendMessageOperator(task_id="b", recipient="inbox", data={"x": {1, 2}})


def test_a_message_over_the_limit_fails_the_task_at_once_and_names_the_way_out(run_dag, store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTIC__MAX_MESSAGE_BYTES", "2048")
    with DAG("huge", default_args={"retries": 3}) as dag_:
        SendMessageOperator(task_id="send", recipient="inbox", data={"x": "{{ 'y' * 4096 }}"})

    run = run_dag(dag_)
    assert run.state == "failed"
    assert run.task("send").try_number == 1
    assert store.bus.stats("inbox").total == 0


def test_killing_the_task_shuts_the_agent_down(store_url):
    ended = []

    class Slow(BaseAgent[int, int]):
        def process(self, task, ctx):
            operator.on_kill()
            return task

        def on_shutdown(self, previous, reason):
            ended.append((str(previous), reason))

    with DAG("killed"):
        operator = RunAgentOperator(task_id="slow", agent=Slow, task=1)
    from airflow_agentic import runtime
    from airflow_agentic.agents import RunIdentity
    from airflow_agentic.operators.working import Go, Work

    plan = runtime.plan(operator.agent, None, operator.chosen())
    operator._go = Go(Work(plan, 1), RunIdentity("d", "r", "t"))
    assert operator._go.done().was_stopped
    assert ended == [("processing", "the task was killed")]


class Echo(HttpAgent[dict, dict]):
    """A service that answers with what it was asked."""


def test_an_http_agent_works_in_a_worker_and_deferred_in_the_triggerer(
    run_dag, store, httpserver, monkeypatch
):
    httpserver.expect_request("/ask", method="POST", json={"q": 1}).respond_with_json({"a": 2})
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", f"http://{httpserver.host}:{httpserver.port}")
    config = {"conn_id": "echo", "endpoint": "/ask"}
    with DAG("http") as dag_:
        for deferrable in (False, True):
            RunAgentOperator(
                task_id=f"ask_{deferrable}", agent=f"{__name__}:Echo", task={"q": 1}, config=config,
                deferrable=deferrable,
            )  # fmt: skip

    run = run_dag(dag_)
    assert run.state == "success"
    assert run.xcom("ask_False") == run.xcom("ask_True") == {"a": 2}
    status = store.agents.get("Echo")
    assert status is not None
    assert status.metrics.succeeded == 2


def test_a_service_that_refuses_fails_the_task_at_once(run_dag, httpserver, monkeypatch):
    httpserver.expect_request("/ask").respond_with_data("no", status=404)
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", f"http://{httpserver.host}:{httpserver.port}")
    with DAG("refused", default_args={"retries": 2, "retry_delay": timedelta(0)}) as dag_:
        RunAgentOperator(
            task_id="ask", agent=f"{__name__}:Echo", task={}, config={"conn_id": "echo", "endpoint": "/ask"}
        )

    run = run_dag(dag_)
    assert run.state == "failed"
    assert run.task("ask").try_number == 1


def _all(mailbox):
    from airflow_agentic.messaging.ports import DeliveryQuery

    return DeliveryQuery(mailbox=mailbox)
