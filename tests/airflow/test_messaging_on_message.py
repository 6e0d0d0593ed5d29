"""``@task.on_message`` in DAGs that really run."""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta

import pytest
from airflow.sdk import dag, task
from messaging_steps import records_of, sent_to

from airflow_agentic.errors import ConfigurationError, RejectMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.operators.messaging import ReceiveMessagesOperator


def fill(store, *data, mailbox="orders", **values):
    messages = [Message(source="t", recipient=mailbox, data=each, **values) for each in data]
    store.bus.send_many(messages)
    return messages


def test_each_message_is_handled_and_acked_with_what_was_returned(run_dag, store):
    sent = fill(store, 1, 2, 3)

    @dag
    def shop():
        @task.on_message(mailbox="orders")
        def ship(message):
            return Message(source="shop", recipient="shipped", data=message.data * 10)

        ship()

    run = run_dag(shop())
    assert run.state == "success"
    assert run.xcom("ship") == {
        "mailbox": "orders", "handled": 3, "failed": 0, "rejected": 0, "lost": 0, "sent": 3, "open": 0,
    }  # fmt: skip
    shipped = sent_to(store, "shipped")
    assert [message.data for message in shipped] == [10, 20, 30]
    assert [message.causation_id for message in shipped] == [message.id for message in sent]
    assert {message.run for message in shipped} == {f"shop/{run.run_id}/ship"}


def test_the_run_knows_what_it_handled_and_the_messages_know_who_handled_them(run_dag, store):
    sent = fill(store, 1, 2)

    @dag
    def knowing():
        @task.on_message(mailbox="orders")
        def ship(message):
            """Ship."""

        ship()

    run = run_dag(knowing())
    references = run.xcom("ship", key="agentic_messages")
    assert [each["id"] for each in references] == [message.id for message in sent]
    assert all("data" not in each for each in references)
    process = f"{socket.gethostname()}:{os.getpid()}"
    assert {r.owner for r in records_of(store, "orders")} == {f"knowing/{run.run_id}/ship@{process}"}
    assert run.xcom("ship", key="agentic_trace").endswith(f" knowing:{run.run_id}")


def test_a_poison_message_comes_again_and_dies_and_the_others_are_handled(run_dag, store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTIC__MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AIRFLOW__AGENTIC__RETRY_BASE_SECONDS", "0.01")
    from airflow_agentic import runtime

    with runtime.open_store() as opened:
        fill(opened, "good", "poison", "hopeless", "fine")

    @dag
    def poisoned():
        @task.on_message(mailbox="orders")
        def ship(message):
            if message.data == "poison":
                raise OSError("it burns")
            if message.data == "hopeless":
                raise RejectMessage("nobody lives there")

        ship()

    run = run_dag(poisoned())
    assert run.state == "success"
    report = run.xcom("ship")
    assert (report["handled"], report["failed"], report["rejected"], report["open"]) == (2, 2, 1, 0)
    reasons = {record.message.data: record.reason for record in store.bus.dead_letters("orders")}
    assert reasons == {
        "poison": "attempts spent: [transient] OSError: it burns",
        "hopeless": "nobody lives there",
    }


def test_batches_are_lists_and_one_bad_message_costs_the_others_nothing(run_dag, store):
    fill(store, 1, 2, "bad", 4, 5)
    seen = []

    @dag
    def batches():
        @task.on_message(mailbox="orders", batch=4)
        def ship(messages):
            data = [message.data for message in messages]
            seen.append(data)
            if "bad" in data:
                raise RejectMessage("bad")
            return [Message(source="shop", recipient="shipped", data=sum(data))]

        ship()

    run = run_dag(batches())
    assert seen == [[1, 2, "bad", 4], [1], [2], ["bad"], [4], [5]]
    assert (run.xcom("ship")["handled"], run.xcom("ship")["rejected"]) == (4, 1)
    assert {record.attempts for record in records_of(store, "orders")} == {1}


def test_it_answers_requests_and_says_when_there_will_be_no_answer(run_dag, store):
    fill(store, 2, 0, kind=Kind.REQUEST, reply_to="asker")

    @dag
    def answers():
        @task.on_message(mailbox="orders")
        def halve(message):
            if not message.data:
                raise RejectMessage("nothing to halve")
            return {"half": message.data / 2}

        halve()

    run_dag(answers())
    answer, error = sent_to(store, "asker")
    assert (answer.kind, answer.data) == (Kind.RESPONSE, {"half": 1.0})
    assert (error.kind, error.data["message"]) == (Kind.ERROR, "nothing to halve")


def test_what_the_dag_gives_it_comes_with_each_message_and_several_tasks_compete(run_dag, store):
    fill(store, *range(6))

    @dag
    def workers():
        @task
        def rate():
            return 10

        @task.on_message(mailbox="orders", max_messages=2)
        def ship(message, ctx, rate, country="de"):
            ctx.send("shipped", [country, message.data * rate])

        ship.partial(rate=rate()).expand(country=["de", "fr", "it"])

    run = run_dag(workers())
    assert run.state == "success"
    assert [run.xcom("ship", index)["handled"] for index in range(3)] == [2, 2, 2]
    shipped = sent_to(store, "shipped")
    assert sorted(data for _, data in (message.data for message in shipped)) == [0, 10, 20, 30, 40, 50]
    assert {(message.run[-3:], message.data[0]) for message in shipped} == {
        ("[0]", "de"), ("[1]", "fr"), ("[2]", "it"),
    }  # fmt: skip


def test_it_waits_for_messages_in_other_hands_without_a_slot(run_dag, store):
    fill(store, 1, 2)
    [held] = store.bus.receive("orders", lease=timedelta(seconds=60))
    later = threading.Timer(5, held.release)

    @dag
    def waiting():
        @task.on_message(mailbox="orders")
        def ship(message):
            """Ship."""

        ship()

    later.start()
    run = run_dag(waiting())
    later.join()
    assert run.state == "success"
    assert store.bus.stats("orders").done == 2
    references = run.xcom("ship", key="agentic_messages")
    assert [each["id"] for each in references] == [m.id for m in reversed(sent_to(store, "orders"))]


def test_handed_over_messages_fan_out_to_tasks(run_dag, store):
    fill(store, 1, 2, 3)

    @dag
    def fan():
        @task
        def ship(event):
            return event["message"]["data"] * 10

        ship.expand(event=ReceiveMessagesOperator(task_id="receive", mailbox="orders").output)

    run = run_dag(fan())
    assert [run.xcom("ship", index) for index in range(3)] == [10, 20, 30]


def test_the_same_message_by_two_ways_is_handled_once_with_the_inbox(run_dag, store):
    store.bus.subscribe("one", "orders.#")
    store.bus.subscribe("two", "orders.#")
    store.bus.send(Message(source="t", topic="orders.made", data=1))
    seen = []

    def handle(mailbox):
        @dag(dag_id="inboxes")
        def inboxes():
            @task.on_message(mailbox=mailbox, inbox=True)
            def ship(message):
                seen.append(message.id)
                return Message(source="shop", recipient="shipped")

            ship()

        return run_dag(inboxes()).xcom("ship")

    assert (handle("one")["sent"], handle("two")["sent"]) == (1, 0)
    assert len(seen) == store.bus.stats("shipped").total == 1


def test_a_store_that_cannot_be_used_fails_the_task_at_once(run_dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "nowhere://at-all")

    @dag(default_args={"retries": 2, "retry_delay": timedelta(0)})
    def homeless():
        @task.on_message(mailbox="orders")
        def ship(message):
            """Ship."""

        ship()

    run = run_dag(homeless())
    assert (run.state, run.task("ship").try_number) == ("failed", 1)


class TestParsing:
    def test_it_needs_a_mailbox(self):
        with pytest.raises(ConfigurationError, match="mailbox="):
            task.on_message(batch=2)
        with pytest.raises(ConfigurationError, match="needs a mailbox"):

            @task.on_message
            def ship(message):
                """Ship."""

    def test_a_function_that_takes_no_message_is_refused(self):
        with pytest.raises(ConfigurationError, match="message first"):

            @task.on_message(mailbox="orders")
            def ship():
                """Ship."""

    @pytest.mark.parametrize("options", [{"batch": 0}, {"max_messages": 0}])
    def test_numbers_must_be_positive(self, options):
        @dag
        def bad():
            @task.on_message(mailbox="orders", **options)
            def ship(message):
                """Ship."""

            ship()

        with pytest.raises(ConfigurationError, match="must be positive"):
            bad()

    def test_no_store_is_opened(self, store_url):
        from pathlib import Path

        @dag
        def idle():
            @task.on_message(mailbox="orders")
            def ship(message):
                """Ship."""

            ship()

        idle()
        assert not Path(store_url.removeprefix("sqlite:///")).exists()
