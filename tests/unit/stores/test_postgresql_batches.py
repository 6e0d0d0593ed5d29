"""Batches on PostgreSQL: one statement for all of them, which stays quick and may meet another one."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import postgres
import psycopg
import pytest

from airflow_agentic.errors import StaleLease
from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


def messages(*ids):
    return [Message(source="test", recipient="box", id=each) for each in ids]


def test_of_a_batch_only_the_new_ones_are_sent(store):
    assert store.bus.send_many(messages("a", "b")) == [True, True]
    assert store.bus.send_many(messages("b", "c", "a", "d")) == [False, True, False, True]
    assert [each.message.id for each in store.bus.receive("box", max_messages=9)] == ["a", "b", "c", "d"]


def test_an_id_with_a_nul_is_sent_and_known_again(store):
    assert store.bus.send_many(messages("a\0", "b", "a\N{REPLACEMENT CHARACTER}")) == [True, True, False]
    assert store.bus.send_many(messages("c", "a\0")) == [True, False]
    assert store.bus.stats("box").ready == 3


def test_senders_of_the_same_messages_in_other_orders_send_each_once(store):
    sent, failed = [], []

    def send(seed):
        dice = random.Random(seed)
        try:
            for part in range(8):
                batch = messages(*(f"{part}-{number}" for number in range(60)))
                dice.shuffle(batch)
                sent.append(sum(store.bus.send_many(batch)))
        except Exception as error:  # noqa: BLE001  # whatever it is
            failed.append(error)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(sent) == store.bus.stats("box").ready == 8 * 60


def test_more_than_fit_in_one_statement_are_acked_together_or_not_at_all(store):
    store.bus.send_many([Message(source="test", recipient="box") for _ in range(1_003)])
    held = store.bus.receive("box", max_messages=2_000)
    swapped = [replace(held[0], token=held[1].token), replace(held[1], token=held[0].token)]
    with pytest.raises(StaleLease):
        store.bus.ack(*held[2:], *swapped)
    assert store.bus.stats("box").leased == 1_003
    store.bus.ack(*held)
    assert store.bus.stats("box").done == 1_003


def test_a_plan_of_an_empty_table_does_not_read_all_of_a_large_one(store, name):
    for _ in range(6):  # so often until a plan is kept
        cycle(store, 2)
    for _ in range(4):
        cycle(store, 500)
    with psycopg.connect(postgres.server(), options=f"-csearch_path={name}", autocommit=True) as other:
        store.bus._store.messages._db.fetch("SELECT pg_stat_force_next_flush()")
        [(read,)] = other.execute(
            "SELECT seq_tup_read FROM pg_stat_user_tables "
            "WHERE relname = 'agentic_delivery' AND schemaname = current_schema()"
        ).fetchall()
    assert read < 1_000


def cycle(store, count):
    store.bus.send_many([Message(source="test", recipient="box") for _ in range(count)])
    store.bus.ack(*store.bus.receive("box", max_messages=count))
