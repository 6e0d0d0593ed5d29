from __future__ import annotations

import re
from pathlib import Path

import pytest
from commandline import Run

from airflow_agentic.messaging import Subscription
from airflow_agentic.stores import Store

PROJECT = """\
agents:
  triage:
    role: clerk
    tags: [billing]
    subscriptions: [orders.*.created]
  accountant:
    tags: [billing]
    subscriptions:
      - {topic: orders.#, filter: msg.data.total > 1000, max_attempts: 2}
mailboxes:
  audit-log: {subscriptions: [orders.#]}
routes:
  urgent: {topic: '#', filter: 'msg.priority > 7', to: audit-log}
roles: {clerk: {}}
"""


class Terminal:
    """A person at a terminal who types this."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "agentic.yaml"
    path.write_text(PROJECT)
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(path))
    return path


def _answers(on_store: Run, *words: object) -> dict[str, bool]:
    return {a["mailbox"]: a["gets_it"] for a in on_store("routes", "explain", *words, "-o", "json").json}


class TestList:
    def test_each_has_its_origin_and_those_of_the_project_come_first(
        self, on_store: Run, store: Store, project: Path
    ) -> None:
        store.bus.subscribe("night-shift", "orders.#", tags=["eu", "us"])

        found = on_store("routes", "list", "-o", "json").json

        assert [(each["mailbox"], each["topic"], each["origin"]) for each in found] == [
            ("triage", None, f"{project}:2"),
            ("triage", "orders.*.created", f"{project}:5"),
            ("accountant", None, f"{project}:6"),
            ("accountant", "orders.#", f"{project}:9"),
            ("audit-log", "orders.#", f"{project}:11"),
            ("audit-log", "#", f"{project}:13"),
            ("night-shift", "orders.#", "api"),
        ]
        assert (found[0]["role"], found[3]["filter"], found[3]["max_attempts"]) == (
            "clerk",
            "msg.data.total > 1000",
            2,
        )
        assert found[-1]["tags"] == ["eu", "us"]

    @pytest.mark.usefixtures("project")
    def test_of_one_mailbox(self, on_store: Run) -> None:
        rows = on_store("routes", "list", "triage", "-o", "plain").out.splitlines()

        assert [row.split()[0] for row in rows] == ["mailbox", "triage", "triage"]
        ended = on_store("routes", "list", "nobody", "-o", "json")
        assert ended.json == []
        assert "gets what is sent to it by name" in ended.err


@pytest.mark.usefixtures("project")
class TestExplain:
    def test_a_topic_and_what_was_sent_decide(self, on_store: Run) -> None:
        words = ("--topic", "orders.eu.created", "--data")

        assert _answers(on_store, *words, '{"total": 1500}') == {
            "accountant": True,
            "audit-log": True,
            "triage": True,
        }
        assert _answers(on_store, *words, '{"total": 1}') == {
            "audit-log": True,
            "triage": True,
            "accountant": False,
        }

    def test_every_mailbox_has_one_row_which_says_why(self, on_store: Run, project: Path) -> None:
        words = ("--topic", "orders.eu.created", "--data", '{"total": 1}', "-o", "plain")
        rows = [re.split("  +", line) for line in on_store("routes", "explain", *words).out.splitlines()]

        assert rows[1:3] == [
            ["audit-log", "yes", "it subscribed to orders.#", f"{project}:11"],
            ["triage", "yes", "it subscribed to orders.*.created", f"{project}:5"],
        ]
        assert rows[3][:2] == ["accountant", "no"]
        assert "the filter msg.data.total > 1000 does not hold" in rows[3][2]

    def test_a_filter_that_cannot_be_answered_says_so(self, on_store: Run) -> None:
        words = ("--topic", "orders.refund", "--data", '"text"')

        assert "could not be answered" in on_store("routes", "explain", *words).out

    def test_a_priority_can_decide(self, on_store: Run) -> None:
        assert _answers(on_store, "--topic", "x", "--priority", 8)["audit-log"] is True
        assert _answers(on_store, "--topic", "x", "--priority", 7)["audit-log"] is False

    @pytest.mark.parametrize(
        ("audience", "reached"),
        [
            ("role:clerk", {"triage"}),
            ("tag:billing", {"triage", "accountant"}),
            ("all", {"triage", "accountant", "audit-log"}),
            ("tag:nobody", set()),
        ],
    )
    def test_a_group_is_reached_by_role_and_tag(
        self, on_store: Run, audience: str, reached: set[str]
    ) -> None:
        answers = _answers(on_store, "--audience", audience)

        assert {mailbox for mailbox, gets_it in answers.items() if gets_it} == reached
        assert set(answers) == {"triage", "accountant", "audit-log"}

    def test_a_mailbox_gets_what_names_it(self, on_store: Run) -> None:
        ended = on_store("routes", "explain", "--to", "triage", "-o", "json")

        assert [(each["mailbox"], each["why"]) for each in ended.json] == [
            ("triage", "the message names it as its recipient")
        ]
        assert "never had a message" in ended.err

    def test_a_message_for_nobody_says_where_it_would_go(self, on_store: Run, store: Store) -> None:
        ended = on_store("routes", "explain", "--topic", "invoices.new")

        assert ended.code == 0
        assert ended.err == "nobody would get it: it would go to the dead letters of agentic.unroutable\n"
        assert store.bus.mailboxes() == []

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ([], "in one way"),
            (["--topic", "a", "--to", "b"], "in one way"),
            (["--topic", "a..b"], "topic"),
            (["--topic", "a", "--data", "{"], "--data is not JSON"),
        ],
    )
    def test_what_is_no_message_is_an_error(self, on_store: Run, words: list[str], says: str) -> None:
        ended = on_store("routes", "explain", *words)

        assert ended.code == 1
        assert says in ended.err

    def test_a_store_is_not_needed_to_try_the_project(self, agentic: Run) -> None:
        ended = agentic(
            "routes", "explain", "--topic", "orders.eu.created", "--store-url", "memory://", "-o", "json"
        )

        assert [each["mailbox"] for each in ended.json if each["gets_it"]] == ["audit-log", "triage"]

    def test_a_filter_that_does_not_compile_is_told_with_its_line(self, on_store: Run, project: Path) -> None:
        project.write_text("routes: {r: {to: log, filter: msg.data >}}\nmailboxes: {log: {}}\n")

        ended = on_store("routes", "explain", "--topic", "a")

        assert ended.code == 1
        assert f"{project}:1: the filter 'msg.data >' does not compile" in ended.err


class TestSubscribe:
    def test_it_holds_from_now_on(self, on_store: Run, store: Store) -> None:
        words = "night-shift --topic orders.# --filter msg.priority>7 --role clerk --tag eu --tag us --max-attempts 3"
        ended = on_store("routes", "subscribe", *words.split(), "-o", "json")

        made = Subscription("night-shift", "orders.#", "msg.priority>7", "clerk", ("eu", "us"), 3)
        assert store.bus.subscriptions() == [made]
        assert ended.json[0]["tags"] == ["eu", "us"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--topic", "a..b"], "the topic pattern 'a..b' cannot be used"),
            (["--filter", "msg.data >"], "does not compile"),
        ],
    )
    def test_what_cannot_be_one_is_refused(
        self, on_store: Run, store: Store, words: list[str], says: str
    ) -> None:
        ended = on_store("routes", "subscribe", "night-shift", *words)

        assert ended.code == 1
        assert says in ended.err
        assert store.bus.subscriptions() == []


class TestUnsubscribe:
    @pytest.fixture(autouse=True)
    def subscribed(self, store: Store) -> None:
        for topic, condition in (("a.#", None), ("a.#", "msg.priority > 7"), ("b", None)):
            store.bus.subscribe("box", topic, condition)
        store.bus.subscribe("other", "a.#")

    @pytest.mark.parametrize(
        ("words", "left"),
        [
            ([], []),
            (["--topic", "a.#"], ["b"]),
            (["--topic", "a.#", "--filter", "msg.priority > 7"], ["a.#", "b"]),
            (["--topic", "zzz"], ["a.#", "a.#", "b"]),
        ],
    )
    def test_ends_what_is_named(self, on_store: Run, store: Store, words: list[str], left: list[str]) -> None:
        ended = on_store("routes", "unsubscribe", "box", *words, "-o", "json")

        assert [each.topic for each in store.bus.subscriptions() if each.mailbox == "box"] == left
        assert len(ended.json) == 3 - len(left)
        assert f"ended: {3 - len(left)} subscription" in ended.err
        assert len(store.bus.subscriptions()) == len(left) + 1

    def test_a_filter_needs_its_topic(self, on_store: Run) -> None:
        ended = on_store("routes", "unsubscribe", "box", "--filter", "true")

        assert ended.code == 1
        assert "--filter names one subscription together with --topic" in ended.err

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 4), ("", 4)])
    def test_a_person_is_asked_about_several(
        self, on_store: Run, store: Store, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(answer))

        ended = on_store("routes", "unsubscribe", "box")

        assert "End 3 subscriptions of mailbox 'box'?" in ended.err
        assert len(store.bus.subscriptions()) == left

    def test_what_the_project_declares_ends_there(self, on_store: Run, project: Path) -> None:
        ended = on_store("routes", "unsubscribe", "triage", "--topic", "orders.*.created")

        assert "ended: 0 subscriptions" in ended.err
        assert f"it still has what the project declares at {project}:5: take that out there" in ended.err


def test_both_are_entered_in_airflows_audit_log(
    agentic: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.utils import cli_action_loggers

    monkeypatch.setenv("AIRFLOW_CONN_OURS", f'{{"conn_type": "agentic", "extra": {{"url": "{store.url}"}}}}')
    entered: list[dict[str, object]] = []
    cli_action_loggers.register_pre_exec_callback(lambda **entry: entered.append(entry))

    assert agentic("routes", "subscribe", "box", "--topic", "a", "--conn-id", "ours").code == 0
    assert agentic("routes", "unsubscribe", "box", "--conn-id", "ours").code == 0
    assert agentic("messages", "purge", "--conn-id", "ours").code == 0

    assert [entry["sub_command"] for entry in entered] == ["subscribe", "unsubscribe", "purge_messages"]
