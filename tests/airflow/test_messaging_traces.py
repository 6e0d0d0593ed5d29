"""Who sent a message, who handled it, and which message started a run."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jinja2
import pytest
from airflow.sdk import DAG, dag, task
from messaging_steps import context_of, records_of, sent_to
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from airflow_agentic import runtime
from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.messaging import Message
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.operators.messaging import SendMessageOperator

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


class TestAcrossDags:
    def test_a_conversation_over_two_dags_names_every_run_that_spoke_and_that_handled(self, run_dag, store):
        @agent("middle")
        def middle(number: int, ctx: AgentContext) -> None:
            ctx.send("end", number + 1)

        with DAG("first") as first:
            SendMessageOperator(task_id="send", recipient="middle", data=1)
        with DAG("second") as second:
            RunAgentOperator(task_id="work", agent="middle", mailbox="middle")

        one, two = run_dag(first), run_dag(second)
        start, end = store.bus.trace(f"first:{one.run_id}")
        assert (start.message.run, end.message.run) == (
            f"first/{one.run_id}/send", f"second/{two.run_id}/work",
        )  # fmt: skip
        process = f"{socket.gethostname()}:{os.getpid()}"
        assert start.owner == f"second/{two.run_id}/work@{process}"
        assert end.message.causation_id == start.message.id
        [handled] = two.xcom("work", key="agentic_messages")
        assert handled["id"] == start.message.id

    def test_a_gathering_task_knows_its_messages_too(self, run_dag, store):
        store.bus.send_many([Message(source="t", recipient="sums", data=n) for n in range(3)])

        @agent("summer")
        def summer(numbers: list[int]) -> int:
            return sum(numbers)

        with DAG("gathering") as dag_:
            RunAgentOperator(task_id="sum", agent="summer", mailbox="sums", gather=True)
        run = run_dag(dag_)
        assert [each["id"] for each in run.xcom("sum", key="agentic_messages")] == [
            message.id for message in sent_to(store, "sums")
        ]

    def test_a_task_without_messages_has_no_list_of_them(self, run_dag, store):
        @agent("lonely")
        def lonely(number: int) -> int:
            return number

        with DAG("lonely") as dag_:
            RunAgentOperator(task_id="work", agent="lonely", task=1)
        assert run_dag(dag_).xcom("work", key="agentic_messages") is None

    def test_an_agent_handles_a_message_once_with_the_inbox_whatever_way_it_comes(self, run_dag, store):
        @agent("auditor")
        def auditor(number: int, ctx: AgentContext) -> None:
            ctx.send("end", number)

        for box in ("one", "two"):
            store.bus.subscribe(box, "orders.#")
        store.bus.send(Message(source="t", topic="orders.made", data=1))
        with DAG("inboxes") as dag_:
            for box in ("one", "two"):
                RunAgentOperator(task_id=box, agent="auditor", mailbox=box, inbox=True)
        run = run_dag(dag_)
        assert sorted(run.xcom(box)["sent"] for box in ("one", "two")) == [0, 1]
        assert store.bus.stats("end").total == 1
        assert [run.xcom(box)["handled"] for box in ("one", "two")] == [1, 1]


class TestOpenTelemetry:
    def test_a_message_belongs_to_the_trace_that_airflow_gave_the_task(self, store):
        with DAG("carried"):
            operator = SendMessageOperator(task_id="send", recipient="inbox")
        context = context_of(operator)
        context["ti"].context_carrier = {"traceparent": TRACE, "tracestate": "a=b"}
        first = operator.execute(context)
        context["ti"].context_carrier = {"traceparent": OTHER}
        assert operator.execute(context)["id"] == first["id"], "the trace is no part of the id"
        [message] = sent_to(store, "inbox")
        assert message.traceparent == TRACE

    def test_the_span_that_the_task_runs_in_comes_first(self):
        span = NonRecordingSpan(
            SpanContext(0xC << 124, 0xD << 60, is_remote=False, trace_flags=TraceFlags(1))
        )
        with DAG("spans"):
            context = context_of(SendMessageOperator(task_id="send", recipient="inbox"))
        context["ti"].context_carrier = {"traceparent": TRACE}
        with trace.use_span(span):
            assert runtime.identity(context).traceparent == f"00-c{'0' * 31}-d{'0' * 15}-01"
        assert runtime.identity(context).traceparent == TRACE

    @pytest.mark.parametrize("carrier", [None, {}, {"traceparent": "nonsense"}, {"other": "x"}])
    def test_without_a_trace_none_is_made(self, store, carrier):
        with DAG("untraced"):
            operator = SendMessageOperator(task_id="send", recipient="inbox")
        context = context_of(operator)
        context["ti"].context_carrier = carrier
        operator.execute(context)
        assert sent_to(store, "inbox")[0].traceparent is None

    def test_an_agent_speaks_in_the_trace_of_what_it_handles(self, run_dag, store):
        store.bus.send(Message(source="t", recipient="middle", data=1, traceparent=OTHER))

        @dag
        def middles():
            @task.on_message(mailbox="middle")
            def work(message, ctx):
                ctx.send("end", 1)

            work()

        run_dag(middles())
        assert sent_to(store, "end")[0].traceparent == OTHER


def event(payload, minute=0, aliases=()):
    return SimpleNamespace(extra={"from_trigger": True, "payload": payload}, timestamp=_at(minute))


def _at(minute):
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)


class TestStarts:
    MESSAGE = Message(source="shop", topic="orders.made", data={"n": 1})

    def context(self):
        delivered = event({"mailbox": "a", "delivery_id": 7, "message": to_event(self.MESSAGE)}, 2)
        announced = event({"mailbox": "b", "ready": 3}, 1)
        others = [
            event(None),
            event({"file": "x.csv"}),
            event("text"),
            event({"mailbox": "c", "message": {}}),
        ]
        # An asset with an alias has its events under both.
        return {
            "triggering_asset_events": {"asset": [delivered, *others], "alias": [delivered], "b": [announced]}
        }

    def test_a_run_knows_the_messages_and_the_mailboxes_that_started_it(self):
        announced, delivered = runtime.started_by(self.context())
        assert (announced.mailbox, announced.ready, announced.message) == ("b", 3, None)
        assert (delivered.mailbox, delivered.delivery_id, delivered.message) == ("a", 7, self.MESSAGE)

    @pytest.mark.parametrize("context", [{}, {"triggering_asset_events": {}}])
    def test_a_run_that_nothing_started_knows_nothing(self, context):
        assert runtime.started_by(context) == []

    def test_templates_can_ask(self):
        template = jinja2.Environment().from_string("{{ started_by()[1].message.data.n }}")
        assert template.render(started_by=runtime.started_by, **self.context()) == "1"

    def test_tasks_can_ask(self, run_dag, store):
        with DAG("asking", user_defined_macros={"started_by": runtime.started_by}) as dag_:
            SendMessageOperator(task_id="send", recipient="inbox", data="{{ started_by() | length }}")
        assert run_dag(dag_).state == "success"
        assert sent_to(store, "inbox")[0].data == "0"


def test_the_records_of_a_mailbox_say_who_holds_a_message_now(run_dag, store):
    store.bus.send(Message(source="t", recipient="orders", data=1))
    seen = []

    @dag
    def holding():
        @task.on_message(mailbox="orders")
        def ship(message):
            seen.append(records_of(store, "orders")[0].owner)

        ship()

    run = run_dag(holding())
    assert seen[0].startswith(f"holding/{run.run_id}/ship@")
