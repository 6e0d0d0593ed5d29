"""Sending, publishing and receiving in DAGs that really run."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.sdk import DAG, dag, task
from messaging_steps import sent_to

from airflow_agentic.errors import ConfigurationError, InvalidMessage
from airflow_agentic.messaging import Message
from airflow_agentic.notifications.messaging import AgenticNotifier
from airflow_agentic.operators.messaging import (
    PublishOperator,
    ReceiveMessagesOperator,
    SendMessageOperator,
)
from airflow_agentic.operators.requests import RequestOperator
from airflow_agentic.sensors.messaging import HeartbeatSensor, MessageSensor

AT_ONCE = {"retries": 2, "retry_delay": timedelta(0)}


class TestSending:
    def test_a_message_has_all_that_it_was_given_and_knows_the_task_that_sent_it(self, run_dag, store):
        with DAG("envelopes") as dag_:
            SendMessageOperator(
                task_id="send", recipient="inbox", data={"n": 1}, message_type="t", subject="{{ run_id }}",
                ordering_key="{{ 'k' * 3 }}", priority="{{ 3 + 4 }}", expires_in=600,
            )  # fmt: skip

        run = run_dag(dag_)
        assert run.state == "success"
        [message] = sent_to(store, "inbox")
        assert (message.source, message.type, message.data) == ("envelopes.send", "t", {"n": 1})
        assert (message.subject, message.ordering_key, message.priority) == (run.run_id, "kkk", 7)
        assert timedelta(0) < message.expires_at - datetime.now(UTC) <= timedelta(seconds=600)
        assert message.run == f"envelopes/{run.run_id}/send"
        assert message.correlation_id == f"envelopes:{run.run_id}"

    def test_a_task_that_failed_after_sending_sends_nothing_twice_in_its_next_try(self, run_dag, store):
        class Unlucky(SendMessageOperator):
            def execute(self, context):
                sent = super().execute(context)
                if context["ti"].try_number == 1:
                    raise OSError("the worker's disk is full")
                return sent

        with DAG("resends", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="send", recipient="inbox", data={"at": "{{ macros.time.time() }}"})

        run = run_dag(dag_)
        assert (run.state, run.task("send").try_number) == ("success", 2)
        [message] = sent_to(store, "inbox")
        assert run.xcom("send")["id"] == message.id

    def test_each_mapped_task_sends_its_own_and_is_told_apart(self, run_dag, store):
        with DAG("mapped_sends") as dag_:
            SendMessageOperator.partial(task_id="send", recipient="inbox", priority=5).expand(data=[1, 1])

        run = run_dag(dag_)
        messages = sent_to(store, "inbox")
        assert {message.run for message in messages} == {
            f"mapped_sends/{run.run_id}/send[{index}]" for index in (0, 1)
        }
        assert {message.priority for message in messages} == {5}

    def test_a_sign_of_life_is_kept_for_its_source(self, run_dag, store):
        with DAG("beats") as dag_:
            SendMessageOperator(task_id="beat", kind="heartbeat", source="importer", expires_in=3600)

        assert run_dag(dag_).state == "success"
        [beat] = store.bus.heartbeats()
        assert (beat.source, beat.late) == ("importer", False)
        assert timedelta(minutes=59) < beat.due_at - beat.at <= timedelta(hours=1)

    @pytest.mark.parametrize(
        ("values", "fault"),
        [
            ({}, "say whom it is for"),
            ({"recipient": "no spaces please"}, "recipient"),
            ({"recipient": "inbox", "priority": 11}, "priority"),
            ({"recipient": "inbox", "ordering_key": ""}, "ordering_key"),
            ({"recipient": "inbox", "kind": "shout"}, "kind"),
            ({"recipient": "inbox", "reply_to": "no box"}, "reply_to"),
        ],
    )
    def test_what_makes_no_message_is_refused_when_the_dag_is_parsed(self, values, fault):
        with DAG("bad"), pytest.raises(InvalidMessage, match=fault):
            SendMessageOperator(task_id="send", **values)


class TestPublishing:
    def test_the_result_says_which_mailboxes_got_a_copy(self, run_dag, store):
        store.bus.subscribe("audit", "orders.#")
        store.bus.subscribe("rich", "orders.*", "msg.data.total > 100")
        store.bus.subscribe("other", "payments.#")
        with DAG("publishing") as dag_:
            for total in (10, 1000):
                PublishOperator(task_id=f"publish_{total}", topic="orders.made", data={"total": total})

        run = run_dag(dag_)
        assert run.xcom("publish_10")["mailboxes"] == ["audit"]
        assert run.xcom("publish_1000")["mailboxes"] == ["audit", "rich"]
        assert run.xcom("publish_1000")["topic"] == "orders.made"
        assert [message.data["total"] for message in sent_to(store, "rich")] == [1000]
        assert {message.run for message in sent_to(store, "rich")} == {
            f"publishing/{run.run_id}/publish_1000"
        }

    def test_a_group_is_told(self, run_dag, store):
        store.bus.subscribe("auditor", role="auditor")
        store.bus.subscribe("clerk", role="clerk", tags=["paper"])
        with DAG("groups") as dag_:
            PublishOperator(task_id="auditors", audience="role:auditor")
            PublishOperator(task_id="paper", audience="tag:{{ 'paper' }}")
            PublishOperator(task_id="all", audience="all")

        run = run_dag(dag_)
        assert run.xcom("auditors")["mailboxes"] == ["auditor"]
        assert run.xcom("paper")["mailboxes"] == ["clerk"]
        assert run.xcom("all")["mailboxes"] == ["auditor", "clerk"]

    def test_what_leads_to_nobody_is_a_dead_letter_or_if_it_must_not_fails_the_task_at_once(
        self, run_dag, store
    ):
        with DAG("nobody", default_args=AT_ONCE) as dag_:
            PublishOperator(task_id="may", topic="orders.lost")
            PublishOperator(task_id="must", topic="orders.lost", mandatory=True)

        run = run_dag(dag_)
        assert run.xcom("may")["mailboxes"] == []
        assert (str(run.task("must").state), run.task("must").try_number) == ("failed", 1)
        [dead] = store.bus.dead_letters("agentic.unroutable")
        assert dead.message.run == f"nobody/{run.run_id}/may"

    def test_a_second_try_publishes_nothing_and_says_the_same(self, run_dag, store):
        store.bus.subscribe("audit", "orders.#")
        said = []

        class Unlucky(PublishOperator):
            def execute(self, context):
                said.append(super().execute(context))
                if len(said) == 1:
                    raise OSError("the worker's disk is full")
                return said[-1]

        with DAG("republishes", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="publish", topic="orders.made")

        run_dag(dag_)
        assert said[0] == said[1]
        assert said[0]["mailboxes"] == ["audit"]
        assert store.bus.stats("audit").total == 1

    @pytest.mark.parametrize("address", [{}, {"topic": "a.b", "audience": "all"}, {"topic": "no*pattern"}])
    def test_what_has_no_single_address_is_refused_when_the_dag_is_parsed(self, address):
        with DAG("bad"), pytest.raises(InvalidMessage):
            PublishOperator(task_id="publish", **address)


class TestReceiving:
    def test_messages_are_handed_to_mapped_tasks_and_acked(self, run_dag, store):
        for number in range(3):
            store.bus.send(Message(source="t", recipient="numbers", data={"n": number}))

        @dag
        def fan_out():
            @task
            def double(event):
                return 2 * event["message"]["data"]["n"]

            receive = ReceiveMessagesOperator(task_id="receive", mailbox="numbers", max_messages=2)
            double.expand(event=receive.output)

        run = run_dag(fan_out())
        assert run.state == "success"
        assert [run.xcom("double", index) for index in (0, 1)] == [0, 2]
        [first, second] = run.xcom("receive")
        assert first["mailbox"] == "numbers"
        assert first["message"]["specversion"] == "1.0"
        assert first["delivery_id"] < second["delivery_id"]
        assert (store.bus.stats("numbers").done, store.bus.stats("numbers").ready) == (2, 1)

    def test_no_message_is_no_work(self, run_dag, store):
        with DAG("nothing") as dag_:
            ReceiveMessagesOperator(task_id="receive", mailbox="empty")
        assert run_dag(dag_).xcom("receive") == []

    def test_it_can_wait_for_the_first_one_without_a_slot(self, run_dag, store):
        with DAG("waiting") as dag_:
            ReceiveMessagesOperator(task_id="receive", mailbox="late", wait=True)

        later = threading.Timer(4, store.bus.send, [Message(source="t", recipient="late", data="hello")])
        later.start()
        run = run_dag(dag_)
        later.join()
        assert [event["message"]["data"] for event in run.xcom("receive")] == ["hello"]

    def test_a_try_that_died_after_the_ack_is_followed_by_one_that_hands_over_the_same(self, run_dag, store):
        for number in range(2):
            store.bus.send(Message(source="t", recipient="numbers", data=number))
        received = []

        class Unlucky(ReceiveMessagesOperator):
            def execute(self, context):
                received.append(super().execute(context))
                if len(received) == 1:
                    store.bus.send(
                        Message(source="t", recipient="numbers", data="too late for the first try")
                    )
                    raise OSError("the worker's disk is full")
                return received[-1]

        with DAG("hand_over", default_args=AT_ONCE) as dag_:
            Unlucky(task_id="receive", mailbox="numbers")

        run = run_dag(dag_)
        assert run.task("receive").try_number == 2
        assert run.xcom("receive") == received[0] == received[1]
        assert [event["message"]["data"] for event in run.xcom("receive")] == [0, 1]
        assert store.bus.stats("numbers").ready == 1

    def test_a_try_that_died_before_the_ack_hands_over_when_the_leases_end(self, run_dag, store, monkeypatch):
        store.bus.send(Message(source="t", recipient="numbers", data=1))
        monkeypatch.setenv("AIRFLOW__AGENTIC__LEASE_SECONDS", "1")
        from airflow_agentic.messaging.bus import MessageBus

        ack, failures = MessageBus.ack, [OSError("killed")]

        def unlucky(self, *deliveries, **values):
            if failures:
                raise failures.pop()
            ack(self, *deliveries, **values)

        monkeypatch.setattr(MessageBus, "ack", unlucky)
        with DAG("unacked", default_args=AT_ONCE) as dag_:
            ReceiveMessagesOperator(task_id="receive", mailbox="numbers", wait=True)

        run = run_dag(dag_)
        assert run.task("receive").try_number == 2
        assert [event["message"]["data"] for event in run.xcom("receive")] == [1]
        assert store.bus.stats("numbers").done == 1

    def test_data_that_was_kept_elsewhere_is_handed_over(self, run_dag, store, tmp_path, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__CLAIM_CHECK_PATH", f"file://{tmp_path}/large")
        monkeypatch.setenv("AIRFLOW__AGENTIC__CLAIM_CHECK_BYTES", "1000")
        with DAG("large") as dag_:
            send = SendMessageOperator(task_id="send", recipient="big", data={"text": "{{ 'x' * 5000 }}"})
            send >> ReceiveMessagesOperator(task_id="receive", mailbox="big")

        run = run_dag(dag_)
        assert sent_to(store, "big")[0].data is None
        [event] = run.xcom("receive")
        assert len(event["message"]["data"]["text"]) == 5000
        assert "dataref" not in event["message"]

    def test_no_positive_number_is_refused_when_the_dag_is_parsed(self):
        with DAG("bad"), pytest.raises(ConfigurationError, match="max_messages"):
            ReceiveMessagesOperator(task_id="receive", mailbox="m", max_messages=0)


class TestParsing:
    def test_nothing_is_opened_read_or_connected(self, store_url):
        with DAG("parsed"):
            SendMessageOperator(task_id="send", recipient="inbox")
            PublishOperator(task_id="publish", topic="orders.made")
            RequestOperator(task_id="ask", recipient="oracle")
            ReceiveMessagesOperator(task_id="receive", mailbox="inbox")
            ReceiveMessagesOperator.partial(task_id="mapped").expand(mailbox=["a", "b"])
            MessageSensor(task_id="wait", mailbox="inbox", on_failure_callback=AgenticNotifier())
            HeartbeatSensor(task_id="watch", source="importer")
        assert not Path(store_url.removeprefix("sqlite:///")).exists()

    def test_arguments_that_all_messages_have_can_be_defaults_of_the_dag_and_mapped(self, run_dag, store):
        defaults = {"priority": 7, "source": "shop", "agentic_conn_id": None}
        with DAG("defaults", default_args=defaults) as dag_:
            SendMessageOperator.partial(task_id="send", recipient="inbox").expand(ordering_key=["a", "b"])
        assert run_dag(dag_).state == "success"
        messages = sent_to(store, "inbox")
        assert {(message.source, message.priority) for message in messages} == {("shop", 7)}
        assert {message.ordering_key for message in messages} == {"a", "b"}
