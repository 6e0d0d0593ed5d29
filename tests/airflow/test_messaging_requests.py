"""Requests in DAGs that really run: the answer, the error, no answer, and the tries in between."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import timedelta

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from messaging_steps import context_of, records_of

from airflow_agentic.agents import AgentContext, FunctionAgent
from airflow_agentic.agents.runner import AgentRunner
from airflow_agentic.errors import ConfigurationError, InvalidMessage, RejectMessage, ServiceError
from airflow_agentic.messaging import DeliveryState, Kind, Message
from airflow_agentic.messaging.kinds import answer, refusal
from airflow_agentic.operators.requests import RequestOperator
from airflow_agentic.stores import open_store

AT_ONCE = {"retries": 2, "retry_delay": timedelta(0)}


@pytest.fixture
def answering(store_url):
    """Let an agent work off a mailbox beside the DAG run, as another process would."""

    @contextlib.contextmanager
    def start(mailbox, function, after=0.0):
        stopped = threading.Event()

        def work():
            time.sleep(after)
            with open_store(store_url) as store:
                agent = FunctionAgent(function, "oracle")
                runner = AgentRunner(
                    agent, store.bus, lambda messages: AgentContext("oracle", messages=messages)
                )
                while not stopped.is_set():
                    runner.drain(mailbox)
                    stopped.wait(0.05)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    return start


class TestAnswers:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_the_result_of_the_task_is_the_data_of_the_answer(self, run_dag, store, answering, deferrable):
        with DAG("asking") as dag_:
            RequestOperator(
                task_id="ask", recipient="oracle", data={"q": "{{ 1 + 1 }}"}, timeout=60, deferrable=deferrable,
                message_type="question", priority=9,
            )  # fmt: skip

        with answering("oracle", lambda task: {"a": task["q"] * 2}):
            run = run_dag(dag_)
        assert run.state == "success"
        assert run.xcom("ask") == {"a": "22"}
        [asked] = records_of(store, "oracle")
        assert (asked.message.kind, asked.message.type, asked.message.priority) == (
            Kind.REQUEST, "question", 9,
        )  # fmt: skip
        assert asked.message.run == f"asking/{run.run_id}/ask"
        trace = store.bus.trace(f"asking:{run.run_id}")
        assert [str(record.message.kind) for record in trace] == ["request", "response"]

    def test_it_holds_no_slot_while_it_waits(self, store):
        with DAG("deferring"):
            operator = RequestOperator(task_id="ask", recipient="oracle", data={"q": 1}, timeout=60)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context_of(operator))
        path, kwargs = deferral.value.trigger.serialize()
        assert path == "airflow_agentic.triggers.messaging.ReplyTrigger"
        assert kwargs["request"]["data"] is None, "what was asked is not kept in Airflow's database"
        assert store.bus.stats("oracle").ready == 1

    def test_whoever_subscribed_to_a_topic_may_answer(self, run_dag, store, answering):
        store.bus.subscribe("oracle", "questions.#")
        with DAG("topics") as dag_:
            RequestOperator(task_id="ask", topic="questions.life", data=42, timeout=60)
        with answering("oracle", lambda task: task + 1):
            assert run_dag(dag_).xcom("ask") == 43

    def test_a_topic_that_nobody_subscribed_to_fails_the_task_at_once(self, run_dag, store):
        with DAG("no_topics", default_args=AT_ONCE) as dag_:
            RequestOperator(task_id="ask", topic="questions.life", timeout=60)
        run = run_dag(dag_)
        assert (run.state, run.task("ask").try_number) == ("failed", 1)

    def test_what_came_while_nobody_waited_is_found(self, run_dag, store, answering):
        """The worker dies after asking; the answer comes; the next try asks nothing."""

        class Unlucky(RequestOperator):
            def execute(self, context):
                if context["ti"].try_number > 1:
                    return super().execute(context)
                with pytest.raises(TaskDeferred):
                    super().execute(context)
                [asked] = store.bus.receive("oracle")
                asked.ack(send=[answer(asked.message, "oracle", "in time")])
                raise OSError("the worker's disk is full")

        with DAG("found", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="ask", recipient="oracle", data={"at": "{{ macros.time.time() }}"}, timeout=60)

        run = run_dag(dag_)
        assert (run.xcom("ask"), run.task("ask").try_number) == ("in time", 2)
        assert len(records_of(store, "oracle")) == 1

    def test_a_try_that_died_with_the_answer_in_its_hands_is_followed_by_one_that_has_it(
        self, run_dag, store, answering
    ):
        died = []

        class Unlucky(RequestOperator):
            def resume(self, context, event):
                result = super().resume(context, event)
                if not died:
                    died.append(result)
                    raise OSError("the worker's disk is full")
                return result

        with DAG("again", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="ask", recipient="oracle", data=1, timeout=60)
        with answering("oracle", lambda task: task + 1):
            run = run_dag(dag_)
        assert died == [2]
        assert (run.xcom("ask"), run.task("ask").try_number) == (2, 2)
        assert len(records_of(store, "oracle")) == 1

    def test_a_second_try_waits_on_for_a_request_that_is_open(self, run_dag, store, answering):
        class Unlucky(RequestOperator):
            def execute(self, context):
                try:
                    return super().execute(context)
                except TaskDeferred:
                    if context["ti"].try_number == 1:
                        raise OSError("the worker's disk is full") from None
                    raise

        with DAG("open", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="ask", recipient="oracle", data=1, timeout=60)
        with answering("oracle", lambda task: task + 1, after=4):
            run = run_dag(dag_)
        assert (run.xcom("ask"), run.task("ask").try_number) == (2, 2)
        [asked] = records_of(store, "oracle")
        assert asked.attempts == 1


class TestErrors:
    def test_an_error_that_a_retry_cannot_help_fails_the_task_at_once(
        self, run_dag, store, answering, caplog
    ):
        def oracle(task):
            raise RejectMessage("nobody knows")

        with DAG("refused", default_args=AT_ONCE) as dag_:
            RequestOperator(task_id="ask", recipient="oracle", timeout=60)
        with answering("oracle", oracle):
            run = run_dag(dag_)
        assert (run.state, run.task("ask").try_number) == ("failed", 1)

    def test_an_error_that_may_pass_is_followed_by_another_request(self, run_dag, store, answering):
        asked = []

        def oracle(task, ctx):
            asked.append(ctx.message.id)
            if len(set(asked)) == 1:
                raise ServiceError("the moon is down")
            return "there it is"

        with DAG("passing", default_args=AT_ONCE) as dag_:
            RequestOperator(task_id="ask", recipient="oracle", timeout=60)
        store.bus.send(Message(source="t", recipient="other"))
        with answering("oracle", oracle):
            run = run_dag(dag_)
        assert (run.xcom("ask"), run.task("ask").try_number) == ("there it is", 2)
        assert len(set(asked)) == 2

    def test_the_error_says_who_said_what(self, store):
        with DAG("said"):
            operator = RequestOperator(task_id="ask", recipient="oracle", timeout=60)
        context = context_of(operator)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        [asked] = store.bus.receive("oracle")
        error = ServiceError("the moon is down")
        asked.reject("no", send=[refusal(asked.message, "oracle", error)])
        with pytest.raises(Exception, match="oracle answered with an error: the moon is down"):
            operator.resume(context, {"request": deferral.value.trigger.request})


class TestNoAnswer:
    def test_the_deadline_fails_the_task_and_says_where_the_request_is(self, store):
        with DAG("silent"):
            operator = RequestOperator(task_id="ask", recipient="oracle", timeout=0.2)
        context = context_of(operator)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        time.sleep(0.3)
        with pytest.raises(Exception, match=r"was not answered by .*; the request is .* in 'oracle'"):
            operator.resume(context, {"request": deferral.value.trigger.request})

    def test_a_try_after_the_deadline_asks_again(self, run_dag, store, answering):
        with DAG("deaf", default_args=AT_ONCE) as dag_:
            RequestOperator(task_id="ask", recipient="oracle", data=1, timeout=6)
        with answering("oracle", lambda task: task + 1, after=7):
            run = run_dag(dag_)
        assert (run.xcom("ask"), run.task("ask").try_number) == (2, 2)
        states = [record.state for record in records_of(store, "oracle")]
        assert states == [DeliveryState.DEAD, DeliveryState.DONE]

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_without_an_answer_in_any_try_the_task_fails(self, run_dag, store, deferrable):
        with DAG("silence", default_args={"retries": 1, "retry_delay": timedelta(0)}) as dag_:
            RequestOperator(task_id="ask", recipient="oracle", timeout=0.5, deferrable=deferrable)
        run = run_dag(dag_)
        assert (run.state, run.task("ask").try_number) == ("failed", 2)
        assert len(records_of(store, "oracle")) == 2

    def test_an_answer_to_something_else_does_not_end_the_wait(self, store):
        with DAG("confused"):
            operator = RequestOperator(task_id="ask", recipient="oracle", timeout=60)
        context = context_of(operator)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        [asked] = store.bus.receive("oracle")
        wrong = asked.message.model_copy(update={"id": "another"})
        store.bus.send(answer(wrong, "oracle", "for another"))
        with pytest.raises(TaskDeferred):
            operator.resume(context, {"request": deferral.value.trigger.request})
        store.bus.send(answer(asked.message, "oracle", "for you"))
        assert operator.resume(context, {"request": deferral.value.trigger.request}) == "for you"


@pytest.mark.parametrize("address", [{}, {"recipient": "a", "topic": "b"}])
def test_a_request_without_a_single_address_is_refused_when_the_dag_is_parsed(address):
    with DAG("bad"), pytest.raises(ConfigurationError, match="one of the two"):
        RequestOperator(task_id="ask", **address)


def test_what_makes_no_request_is_refused_when_the_dag_is_parsed():
    with DAG("bad"), pytest.raises(InvalidMessage, match="topic"):
        RequestOperator(task_id="ask", topic="no*pattern")
