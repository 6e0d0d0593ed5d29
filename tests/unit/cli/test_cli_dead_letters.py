from __future__ import annotations

import io
import shlex

import pytest
from commandline import Run

from airflow_agentic.messaging import DeliveryRecord, Message
from airflow_agentic.messaging.routing import UNROUTABLE
from airflow_agentic.stores import Store


def _bury(store: Store, number: int, mailbox: str = "inbox", reason: str = "no such user") -> list[int]:
    store.bus.send_many(Message(source="cron", recipient=mailbox, data={"n": n}) for n in range(number))
    deliveries = store.bus.receive(mailbox, max_messages=number)
    for delivery in deliveries:
        delivery.reject(reason)
    return [delivery.delivery_id for delivery in deliveries]


def _dead(store: Store, mailbox: str | None = None) -> list[DeliveryRecord]:
    return store.bus.dead_letters(mailbox)


class Terminal(io.StringIO):
    """A person at a terminal who types this."""

    def isatty(self) -> bool:
        return True


def test_list_shows_why(on_store: Run, store: Store) -> None:
    _bury(store, 1, reason="no \x1b[31mLICENSE\x1b[0m [/red]\nat all")

    shown = on_store("dead-letters", "list").out
    (record,) = on_store("dead-letters", "list", "-o", "json").json

    assert "no LICENSE [/red] at all" in shown
    assert "\x1b" not in shown
    assert record["reason"] == "no \x1b[31mLICENSE\x1b[0m [/red]\nat all"
    assert record["history"][0]["event"] == "reject"
    assert record["message"]["data"] == {"n": 0}


def test_list_of_one_mailbox_and_with_a_limit(on_store: Run, store: Store) -> None:
    _bury(store, 3, "a")
    _bury(store, 1, "b")

    assert len(on_store("dead-letters", "list", "-o", "json").json) == 4
    assert len(on_store("dead-letters", "list", "b", "-o", "json").json) == 1
    limited = on_store("dead-letters", "list", "--limit", 2, "-o", "json")
    assert len(limited.json) == 2
    assert "oldest 2 of 4" in limited.err


def test_no_dead_letters_are_an_empty_list(on_store: Run) -> None:
    ended = on_store("dead-letters", "list", "-o", "json")

    assert (ended.code, ended.json) == (0, [])


def test_show_has_envelope_reason_history_and_a_command_that_works(
    on_store: Run, agentic: Run, store: Store
) -> None:
    (number,) = _bury(store, 1)

    ended = on_store("dead-letters", "show", number)
    command = on_store("dead-letters", "show", number, "-o", "json").json["redrive"]

    for part in ("no such user", "reject", "worker-1:42", '"n": 0', command):
        assert part in ended.out
    assert shlex.split(command)[:2] == ["airflow", "agentic"]
    assert agentic(*shlex.split(command)[2:]).code == 0
    assert _dead(store) == []


def test_show_of_a_redriven_delivery_has_its_history_and_no_redrive(on_store: Run, store: Store) -> None:
    (number,) = _bury(store, 1)
    store.bus.redrive(number, actor="ana", reason="user added")

    shown = on_store("dead-letters", "show", number)

    assert "ana  user added" in shown.out
    assert "Give it another chance" not in shown.out
    assert on_store("dead-letters", "show", number, "-o", "json").json["redrive"] is None


def test_show_of_an_unknown_number_is_an_error_with_a_way_out(on_store: Run, store: Store) -> None:
    ended = on_store("dead-letters", "show", 10**30)

    assert ended.code == 1
    assert f"`airflow agentic dead-letters list --store-url {store.url}`" in ended.err


def test_redrive_records_who_and_why(on_store: Run, store: Store) -> None:
    first, second, _ = _bury(store, 3)

    ended = on_store(
        "dead-letters", "redrive", first, second, "--reason", "fixed", "--actor", "ana", "-o", "json"
    )

    assert [record["delivery_id"] for record in ended.json] == [first, second]
    assert {record["state"] for record in ended.json} == {"ready"}
    assert ended.json[0]["history"][-1] | {"at": ""} == {
        "at": "",
        "event": "redrive",
        "attempt": 1,
        "actor": "ana",
        "detail": "fixed",
    }
    assert len(_dead(store)) == 1


def test_the_actor_is_the_user_of_the_shell(on_store: Run, store: Store) -> None:
    from airflow.utils.platform import getuser

    (number,) = _bury(store, 1)

    ended = on_store("dead-letters", "redrive", number, "--reason", "fixed", "-o", "json")

    assert ended.json[0]["history"][-1]["actor"] == getuser()


def test_redrive_is_all_or_nothing(on_store: Run, store: Store) -> None:
    (number,) = _bury(store, 1)

    ended = on_store("dead-letters", "redrive", number, 999, "--reason", "fixed")

    assert ended.code == 1
    assert "not in the dead letters: 999" in ended.err
    assert len(_dead(store)) == 1


def test_redrive_of_a_mailbox_does_not_ask_a_script(on_store: Run, store: Store) -> None:
    _bury(store, 2, "a")
    _bury(store, 1, "b")

    ended = on_store("dead-letters", "redrive", "--mailbox", "a", "--reason", "fixed")

    assert "redriven: 2 dead letters" in ended.err
    assert [record.mailbox for record in _dead(store)] == ["b"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_redrive_of_a_mailbox_asks_a_person(
    on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    _bury(store, 2)
    monkeypatch.setattr("sys.stdin", Terminal(answer))

    ended = on_store("dead-letters", "redrive", "--mailbox", "inbox", "--reason", "fixed", "-o", "json")

    assert "Redrive 2 dead letters of mailbox 'inbox'?" in ended.err
    assert len(_dead(store)) == left
    assert ended.code == (1 if left else 0)
    assert left or len(ended.json) == 2


@pytest.mark.parametrize("words", [["--mailbox", "inbox", "--yes"], [1]])
def test_a_person_is_not_asked_about_numbers_or_after_yes(
    on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch, words: list[object]
) -> None:
    _bury(store, 1)
    monkeypatch.setattr("sys.stdin", Terminal(""))

    assert on_store("dead-letters", "redrive", *words, "--reason", "fixed").code == 0
    assert _dead(store) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        [1, "--mailbox", "inbox"],
        [1, "--filter", "true"],
        [1, "--all"],
        ["--all", "--mailbox", "inbox"],
        ["--all", "--filter", "true"],
    ],
)
def test_what_to_redrive_is_named_in_one_way(on_store: Run, words: list[object]) -> None:
    ended = on_store("dead-letters", "redrive", *words, "--reason", "fixed", "--yes")

    assert ended.code == 1
    assert "name what to redrive in one way" in ended.err


def test_redrive_takes_those_for_which_a_filter_holds(on_store: Run, store: Store) -> None:
    _bury(store, 3, "a")
    _bury(store, 3, "b")
    words = ("--filter", "msg.data.n > 0", "--reason", "fixed", "-o", "json")

    of_one = on_store("dead-letters", "redrive", "--mailbox", "a", *words).json
    of_all = on_store("dead-letters", "redrive", *words).json

    assert [(r["mailbox"], r["message"]["data"]["n"]) for r in of_one] == [("a", 1), ("a", 2)]
    assert [(r["mailbox"], r["message"]["data"]["n"]) for r in of_all] == [("b", 1), ("b", 2)]
    assert [record.mailbox for record in _dead(store)] == ["a", "b"]


def test_a_person_is_asked_about_a_filter(
    on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bury(store, 2)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))

    ended = on_store("dead-letters", "redrive", "--filter", "msg.data.n == 1", "--reason", "fixed")

    assert "Redrive those of 2 dead letters for which msg.data.n == 1 holds of all mailboxes?" in ended.err
    assert len(_dead(store)) == 2


def test_a_filter_that_does_not_compile_redrives_nothing(on_store: Run, store: Store) -> None:
    _bury(store, 1)

    ended = on_store("dead-letters", "redrive", "--filter", "msg.data.n >", "--reason", "fixed")

    assert ended.code == 1
    assert "does not compile" in ended.err
    assert len(_dead(store)) == 1


def test_all_dead_letters_need_a_yes(on_store: Run, store: Store) -> None:
    _bury(store, 1, "a")
    _bury(store, 1, "b")

    refused = on_store("dead-letters", "redrive", "--all", "--reason", "fixed")
    assert (refused.code, len(_dead(store))) == (1, 2)
    assert "say so with --yes" in refused.err

    assert on_store("dead-letters", "redrive", "--all", "--yes", "--reason", "fixed").code == 0
    assert _dead(store) == []


def test_dead_letters_can_be_led_to_another_mailbox(on_store: Run, store: Store) -> None:
    _bury(store, 2)

    ended = on_store(
        "dead-letters", "redrive", "--mailbox", "inbox", "--to", "by-hand", "--reason", "look", "-o", "json"
    )

    assert {record["mailbox"] for record in ended.json} == {"by-hand"}
    assert store.bus.stats("by-hand").ready == 2


def test_a_rate_spreads_them_over_time(on_store: Run, store: Store) -> None:
    _bury(store, 3)

    on_store("dead-letters", "redrive", "--mailbox", "inbox", "--rate", "0.01", "--reason", "slowly")

    stats = store.bus.stats("inbox")
    assert (stats.ready, stats.delayed) == (3, 2)


def test_what_led_to_nobody_is_routed_anew(on_store: Run, store: Store) -> None:
    store.bus.send(Message(source="shop", topic="orders.new"))
    words = ("dead-letters", "redrive", "--mailbox", UNROUTABLE, "--reason", "somebody listens now")

    still = on_store(*words)
    assert (still.code, len(_dead(store))) == (1, 1)
    assert "still leads to nobody" in still.err

    store.bus.subscribe("triage", "orders.#")
    assert on_store(*words).code == 0
    assert store.bus.stats("triage").ready == 1


def test_redrive_of_a_mistyped_mailbox_says_so(on_store: Run, store: Store) -> None:
    _bury(store, 1)

    ended = on_store("dead-letters", "redrive", "--mailbox", "inbx", "--reason", "fixed", "-o", "json")

    assert ended.json == []
    assert "Did you mean 'inbox'?" in ended.err
