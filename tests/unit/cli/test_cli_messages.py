from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from commandline import Run

from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE
from airflow_agentic.resilience.ports import GuardChange, GuardKey
from airflow_agentic.stores import Store


def _send(store: Store, number: int, mailbox: str = "inbox", **values: object) -> list[Message]:
    messages = [Message(source="cron", recipient=mailbox, data={"n": n}, **values) for n in range(number)]
    store.bus.send_many(messages)
    return messages


def test_stats_count_every_mailbox(on_store: Run, store: Store) -> None:
    _send(store, 4)
    store.bus.send(Message(source="cron", recipient="inbox"), delay=timedelta(hours=1))
    store.bus.send(Message(source="cron", recipient="other"))
    first, second = store.bus.receive("inbox", max_messages=2)
    first.ack()
    second.reject("no")
    store.bus.receive("inbox")

    by_name = {entry["mailbox"]: entry for entry in on_store("messages", "stats", "-o", "json").json}

    age = by_name["inbox"].pop("oldest_ready_seconds")
    assert 0 <= age < 60
    assert by_name["inbox"] == {
        "mailbox": "inbox", "ready": 2, "waiting": 0, "delayed": 1, "leased": 1, "expired": 0, "done": 1, "dead": 1, "total": 5,
    }  # fmt: skip
    assert set(by_name) == {"inbox", "other"}
    assert "oldest ready" in on_store("messages", "stats").out


def test_what_waits_for_its_key_is_counted_and_told(on_store: Run, store: Store) -> None:
    _send(store, 3, ordering_key="order-17", priority=7)

    (stats,) = on_store("messages", "stats", "-o", "json").json
    first, second, _ = on_store("messages", "peek", "inbox", "-o", "json").json
    shown = on_store("messages", "peek", "inbox", "-o", "plain").out

    assert (stats["ready"], stats["waiting"]) == (3, 2)
    assert [first["waiting"], second["waiting"]] == [False, True]
    assert first["message"]["orderingkey"] == "order-17"
    assert shown.count("key order-17, priority 7") == 3
    assert shown.count("after an earlier one of its key") == 2


def test_peek_shows_when_a_message_expires(on_store: Run, store: Store) -> None:
    _send(store, 1, expires_at=datetime.now(UTC) + timedelta(hours=2))

    assert "now, expires in 1 h 59 min" in on_store("messages", "peek", "inbox").out


def test_peek_shows_where_large_data_is_kept(on_store: Run, store: Store) -> None:
    reference = {"data_ref": "s3://aws@bucket/agentic/ab/abc", "data_digest": "0" * 64}
    store.bus.send(Message(source="cron", recipient="inbox", **reference))

    assert "data at s3://aws@bucket" in on_store("messages", "peek", "inbox").out
    assert (
        "data at s3://aws@bucket/agentic/ab/abc (SHA-256 000" in on_store("messages", "trace", _id(store)).out
    )


def _id(store: Store) -> str:
    (record,) = store.bus.find(DeliveryQuery(mailbox="inbox"))
    assert record.message is not None
    return record.message.id


def test_stats_of_one_mailbox_leave_the_others_out(on_store: Run, store: Store) -> None:
    _send(store, 1, "a")
    _send(store, 1, "b")

    (entry,) = on_store("messages", "stats", "b", "-o", "json").json

    assert entry["mailbox"] == "b"


def test_stats_of_an_unknown_mailbox_are_zero_with_a_hint(on_store: Run, store: Store) -> None:
    _send(store, 1, "licence-auditor")

    ended = on_store("messages", "stats", "licence-audtor", "-o", "json")

    assert ended.code == 0
    assert ended.json[0]["total"] == 0
    assert "Did you mean 'licence-auditor'?" in ended.err


def test_stats_of_an_empty_store_are_an_empty_list(on_store: Run) -> None:
    assert on_store("messages", "stats", "-o", "json").json == []
    assert on_store("messages", "stats").out.strip() == "No data found"


def test_peek_shows_open_deliveries_and_takes_no_lease(on_store: Run, store: Store) -> None:
    _send(store, 3)
    done, leased = store.bus.receive("inbox", max_messages=2)
    done.ack()

    found = on_store("messages", "peek", "inbox", "-o", "json").json

    assert [(r["state"], r["message"]["data"]) for r in found] == [("leased", {"n": 1}), ("ready", {"n": 2})]
    assert found[0]["owner"] == "worker-1:42"
    assert found[0]["attempts"] == 1
    leased.ack()
    assert store.bus.stats("inbox").ready == 1


def test_peek_shows_people_the_attempt_the_lease_and_short_data(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="cron", recipient="inbox", data={"text": "long " * 100}))
    store.bus.receive("inbox", lease=timedelta(minutes=10))

    shown = on_store("messages", "peek", "inbox").out

    assert " 1/5 " in shown
    assert "lease ends in 9 min" in shown
    assert '{"text": "long long' in shown
    assert "..." in shown


def test_peek_of_one_state(on_store: Run, store: Store) -> None:
    _send(store, 2)
    store.bus.receive("inbox")[0].ack()

    found = on_store("messages", "peek", "inbox", "--state", "done", "-o", "json").json

    assert [record["state"] for record in found] == ["done"]


def test_peek_stops_at_the_limit_and_says_so(on_store: Run, store: Store) -> None:
    _send(store, 5)

    ended = on_store("messages", "peek", "inbox", "--limit", 2, "-o", "yaml")

    assert [r["message"]["data"]["n"] for r in yaml.safe_load(ended.out)] == [0, 1]
    assert "oldest 2 of 5" in ended.err


def test_peek_into_a_finished_mailbox_says_where_the_messages_went(on_store: Run, store: Store) -> None:
    _send(store, 1)
    store.bus.receive("inbox")[0].ack()

    ended = on_store("messages", "peek", "inbox", "-o", "json")

    assert ended.json == []
    assert "1 done, 0 dead" in ended.err


def test_peek_shows_hostile_text_as_text(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="\x1b[31mevil\n", recipient="inbox", type="[/x]", data="\x1b]0;t\x07"))

    shown = on_store("messages", "peek", "inbox").out

    assert "\x1b" not in shown
    assert "evil" in shown
    assert "[/x]" in shown


def test_an_envelope_of_a_newer_version_is_listed_with_the_reason(
    on_store: Run, store: Store, tmp_path: Path
) -> None:
    _send(store, 1)
    with sqlite3.connect(tmp_path / "agentic.db") as database:
        database.execute(
            "UPDATE agentic_message SET envelope = ?", (b'{"specversion": "1.0", "agenticcodec": 99}',)
        )
    database.close()

    shown = on_store("messages", "peek", "inbox")
    (record,) = on_store("messages", "peek", "inbox", "-o", "json").json

    assert "(unreadable)" in shown.out
    assert record["message"] is None
    assert "codec version 99" in record["reason"]


def test_a_trace_is_a_tree_for_people_and_a_list_for_programs(on_store: Run, store: Store) -> None:
    (question,) = _send(store, 1, correlation_id="licences:run-1")
    answer = Message(
        source="auditor", recipient="report", correlation_id="licences:run-1", causation_id=question.id
    )
    store.bus.receive("inbox")[0].ack(send=[answer])

    tree = on_store("messages", "trace", "licences:run-1").out
    flat = on_store("messages", "trace", answer.id, "-o", "json").json
    rows = on_store("messages", "trace", "licences:run-1", "-o", "plain").out.splitlines()

    assert tree.startswith("conversation licences:run-1: 2 messages (1 ready, 1 done)")
    assert tree.index("cron -> inbox") < tree.index("└─") < tree.index("auditor -> report")
    assert [record["message"]["id"] for record in flat] == [question.id, answer.id]
    assert flat[1]["message"]["causationid"] == question.id
    assert len(rows) == 3


def test_a_trace_of_nothing_is_an_error(on_store: Run) -> None:
    ended = on_store("messages", "trace", "nope")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "error: no message or conversation has the id 'nope' in this store"


def test_send_prints_the_reference(on_store: Run, store: Store) -> None:
    ended = on_store(
        "messages",
        "send",
        "inbox",
        "--source",
        "ana",
        "--data",
        '{"a": [1, null]}',
        "--type",
        "t",
        "-o",
        "json",
    )

    (record,) = store.bus.trace(ended.json["id"])
    assert record.message is not None
    assert record.message.data == {"a": [1, None]}
    assert ended.json == {
        "id": record.message.id,
        "source": "ana",
        "recipient": "inbox",
        "type": "t",
        "correlation_id": record.message.id,
    }


def test_send_to_a_topic_names_who_got_it(on_store: Run, store: Store) -> None:
    store.bus.subscribe("triage", "orders.#")
    store.bus.subscribe("log")
    words = ("--topic", "orders.new", "--source", "ana", "--data", "1")

    said = on_store("messages", "send", *words, "-o", "json").json
    shown = on_store("messages", "send", *words).out

    assert (said["topic"], said["mailboxes"]) == ("orders.new", ["log", "triage"])
    assert "mailboxes       log, triage" in shown
    assert "None" not in shown


def test_send_to_nobody_says_where_it_is(on_store: Run, store: Store) -> None:
    ended = on_store("messages", "send", "--audience", "role:clerk", "--source", "ana", "--data", "1")

    assert ended.code == 0
    assert (
        "nobody subscribed to audience role:clerk: it is in the dead letters of agentic.unroutable"
        in ended.err
    )
    assert store.bus.stats(UNROUTABLE).dead == 1


def test_send_says_all_that_a_message_can(on_store: Run, store: Store) -> None:
    words = "inbox --source ana --data 1 --kind request --reply-to answers --subject s --ordering-key k --priority 9"
    on_store("messages", "send", *words.split(), "--delay", "1h", "--expires-in", "2d")

    (record,) = store.bus.find(DeliveryQuery(mailbox="inbox"))
    message = record.message
    assert message is not None
    assert (message.kind, message.reply_to, message.subject) == (Kind.REQUEST, "answers", "s")
    assert (message.ordering_key, message.priority) == ("k", 9)
    assert message.expires_at is not None
    assert timedelta(days=1.9) < message.expires_at - datetime.now(UTC) <= timedelta(days=2)
    assert timedelta(minutes=59) < record.visible_at - datetime.now(UTC) <= timedelta(hours=1)


def test_a_heartbeat_is_for_nobody(on_store: Run, store: Store) -> None:
    ended = on_store("messages", "send", "--kind", "heartbeat", "--source", "ana", "--data", "1")

    assert [beat.source for beat in store.bus.heartbeats()] == ["ana"]
    assert "follow it: airflow agentic heartbeats list" in ended.err
    assert (
        on_store("messages", "send", "inbox", "--kind", "heartbeat", "--source", "a", "--data", "1").code == 1
    )


@pytest.mark.parametrize("words", [[], ["inbox", "--topic", "a"], ["--topic", "a", "--audience", "all"]])
def test_send_goes_one_way(on_store: Run, words: list[str]) -> None:
    ended = on_store("messages", "send", *words, "--source", "ana", "--data", "1")

    assert ended.code == 1
    assert "in one way: a mailbox, --topic or --audience" in ended.err


def test_show_has_the_message_and_every_delivery(on_store: Run, store: Store) -> None:
    store.bus.subscribe("triage", "orders.#")
    store.bus.subscribe("log")
    message = Message(source="shop", topic="orders.new", data={"total": 3}, run="buy/r1/ask", priority=8)
    store.bus.publish(message)
    store.bus.receive("triage")[0].ack()
    store.bus.receive("log")[0].reject("no use")

    shown = on_store("messages", "show", message.id).out
    records = on_store("messages", "show", message.id, "-o", "json").json["deliveries"]

    assert shown.count("Message\n") == 1
    for part in (
        "buy/r1/ask",
        '"total": 3',
        "worker-1:42",
        "no use",
        "reject  attempt 1",
        "priority        8",
    ):
        assert part in shown
    assert {(record["mailbox"], record["state"]) for record in records} == {
        ("log", "dead"),
        ("triage", "done"),
    }


def test_show_of_nothing_is_an_error_with_a_way_out(on_store: Run, store: Store) -> None:
    ended = on_store("messages", "show", "nope")

    assert ended.code == 1
    assert "no message 'nope'" in ended.err
    assert f"messages trace ID --store-url {store.url}`" in ended.err


def test_purge_forgets_what_is_done_and_older(on_store: Run, store: Store, tmp_path: Path) -> None:
    _send(store, 3)
    first, second = store.bus.receive("inbox", max_messages=2)
    first.ack()
    second.reject("no")
    assert on_store("messages", "purge", "-o", "json").json == {
        "forgotten": 0,
        "older_than_seconds": 604_800,
        "forgotten_guards": 0,
    }
    with sqlite3.connect(tmp_path / "agentic.db") as database:
        database.execute("UPDATE agentic_message SET created_at = created_at - 864000000")
    database.close()

    early = on_store("messages", "purge", "--older-than", "14d")
    late = on_store("messages", "purge", "--older-than", "1h")

    assert early.out == "forgot 0 messages that were done everywhere and sent more than 14 d ago\n"
    assert late.out == "forgot 1 message that was done everywhere and sent more than 7 d ago\n"
    assert "is kept for 7 d" in late.err
    stats = store.bus.stats("inbox")
    assert (stats.ready, stats.done, stats.dead) == (1, 0, 1)


def test_purge_forgets_what_guards_keep_no_longer(on_store: Run, store: Store, tmp_path: Path) -> None:
    keys = GuardKey("retries", "old"), GuardKey("retries", "new")
    store.guards.change([GuardChange(key, b"{}", 0) for key in keys])
    with sqlite3.connect(tmp_path / "agentic.db") as database:
        database.execute("UPDATE agentic_guard SET updated_at = updated_at - 864000000 WHERE name = 'old'")
    database.close()

    ended = on_store("messages", "purge")

    assert ended.out == "forgot 0 messages that were done everywhere and sent more than 7 d ago\n"
    assert "forgot 1 document of guards that nobody changed for long, too" in ended.err
    assert [name for name, _ in store.guards.entries("retries")] == ["new"]


def test_send_shows_people_how_to_follow_the_message(on_store: Run, store: Store) -> None:
    ended = on_store("messages", "send", "inbox", "--source", "ana", "--data", "1")

    message_id = ended.out.split()[1]
    assert len(store.bus.trace(message_id)) == 1
    assert f"airflow agentic messages trace {message_id} --store-url {store.url}" in ended.err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{a: 1}", "--data is not JSON: Expecting property name enclosed in double quotes"),
        ("hello", """--data '"a text"'"""),
        ("[" * 100_000, "--data is nested too deeply"),
        ('{"a": NaN}', "data['a'] is nan, which JSON does not have"),
    ],
)
def test_send_refuses_what_is_not_json(on_store: Run, store: Store, data: str, says: str) -> None:
    ended = on_store("messages", "send", "inbox", "--source", "ana", "--data", data)

    assert ended.code == 1
    assert says in ended.err
    assert "\n" not in ended.err
    assert store.bus.stats("inbox").total == 0


def test_send_to_a_mailbox_that_cannot_be_is_an_error(on_store: Run) -> None:
    ended = on_store("messages", "send", "bad box", "--source", "ana", "--data", "1")

    assert ended.code == 1
    assert "recipient" in ended.err


def test_dates_for_programs_are_iso_8601(on_store: Run, store: Store) -> None:
    _send(store, 1)

    (record,) = on_store("messages", "peek", "inbox", "-o", "json").json

    assert datetime.fromisoformat(record["visible_at"]).tzinfo is UTC
    assert datetime.fromisoformat(record["message"]["time"]).tzinfo is UTC
