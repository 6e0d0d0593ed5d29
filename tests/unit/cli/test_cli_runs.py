from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from commandline import Ended
from commandline import Run as Command

from airflow_agentic.cli.watching import Screen, lines_of
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import Interrupted, Run, RunHead, RunQuery, reading
from airflow_agentic.persistence.glances import Glance, Together
from airflow_agentic.persistence.ports import Append, Record
from airflow_agentic.stores import Store
from airflow_agentic.stores.sql.journals import SqlJournals

CORRELATION = "billing:manual__1"


class Killed(BaseException):
    """The worker dies."""


def die() -> None:
    raise Killed


def fail() -> None:
    raise ConnectionError("nobody answers at http://ana:hunter2@host")


def work(
    store: Store, key: str, do: Callable[[Run], Any], error: type[BaseException] | None = None, task: str = ""
) -> None:
    with (
        pytest.raises(error) if error else contextlib.nullcontext(),
        store.run("triage", key=key, correlation=CORRELATION, task=task) as run,
    ):
        do(run)


def finish(run: Run) -> None:
    run.step("read", lambda: {"euros": 300})
    run.step("pay", lambda: "paid")


def break_down(run: Run) -> None:
    run.expect(4)
    run.step("read", lambda: {"euros": 300})
    run.checkpoint("read")
    run.step("pay", fail)


def be_killed(run: Run) -> None:
    run.step("read", lambda: 1)
    run.step("pay", die, on_ambiguous="ask")


def ask(run: Run) -> None:
    run.step("read", lambda: 1)
    run.interrupt("Pay 300 euros?", {"type": "boolean"}, name="approve")


@pytest.fixture
def night(store: Store) -> None:
    """One run of each kind, of one DAG run."""
    work(store, "good", finish)
    work(store, "broken", break_down, ConnectionError, task="billing/manual__1/pay")
    work(store, "killed", be_killed, Killed, task="billing/manual__1/pay[2]")
    work(store, "asks", ask, Interrupted)


def damage(store: Store, key: str, edit: Callable[[list[Record]], list[Record]]) -> None:
    """Change what is kept, as somebody with access to the database could."""
    kept = store.run_stores
    head, records = store.runs.find(key), kept.journals.read(key)
    kept.runs.forget(key)
    assert kept.journals.append(Append(head, 0, edit(records)))


def keys(ended: Ended) -> list[str]:
    return [each["key"] for each in ended.json]


# -- list and show -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("night")
def test_list_shows_how_each_stands_with_what_changed_last_first(on_store: Command) -> None:
    ended = on_store("runs", "list", "-o", "json")
    by_key = {each["key"]: each for each in ended.json}
    shown = on_store("runs", "list", "-o", "plain").out

    assert set(keys(ended)) == {"asks", "killed", "broken", "good"}
    assert {key: each["status"] for key, each in by_key.items()} == {
        "good": "finished",
        "broken": "failed",
        "killed": "running",
        "asks": "waiting",
    }
    assert [by_key[key]["stale"] for key in ("good", "killed")] == [False, True]
    assert (by_key["broken"]["done"], by_key["broken"]["total"]) == (1, 4)
    assert by_key["broken"]["category"] == "transient"
    assert "running, nobody on it" in shown
    assert "1/4" in shown
    assert "a person: Pay 300 euros?" in shown


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--status", "failed"], {"broken"}),
        (["--status", "failed", "--status", "waiting"], {"broken", "asks"}),
        (["--agent", "another"], set()),
        (["--agent", "triage", "--prefix", "k"], {"killed"}),
        (["--correlation", CORRELATION, "--status", "finished"], {"good"}),
        (["--correlation", "other"], set()),
    ],
)
def test_list_can_be_about_some_of_them(on_store: Command, words: list[str], found: set[str]) -> None:
    ended = on_store("runs", "list", *words, "-o", "json")

    assert set(keys(ended)) == found
    assert ("there is no such run" in ended.err) == (not found)


@pytest.mark.usefixtures("night")
def test_list_says_when_there_is_more(on_store: Command) -> None:
    ended = on_store("runs", "list", "--limit", "2", "-o", "json")

    assert len(ended.json) == 2
    assert (
        "showing the 2 that changed last, and there are more: a higher --limit shows them, or --all"
        in ended.err
    )


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list", "--all", "--correlation", CORRELATION],
        ["runs", "show", CORRELATION],
        ["runs", "verify", "--all"],
        ["runs", "prune"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_what_is_about_all_runs_reads_them_page_by_page(
    on_store: Command, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    asked: list[RunQuery] = []
    heads = SqlJournals.heads

    def watched(journals: SqlJournals, query: RunQuery) -> list[RunHead]:
        asked.append(query)
        found = heads(journals, query)
        assert len(found) <= query.limit
        return found

    whole = on_store(*words, "-o", "json").json
    monkeypatch.setattr(SqlJournals, "heads", watched)
    on_store(*words)
    assert max(query.limit for query in asked) <= 500
    monkeypatch.setattr(reading, "_PAGE", 1)
    paged = on_store(*words, "-o", "json").json

    assert without_times(paged) == without_times(whole)
    assert any(query.after for query in asked)


def without_times(shown: Any) -> Any:
    """Return what a command showed, but for how long it took and what time it was."""
    if isinstance(shown, dict):
        return {name: without_times(value) for name, value in shown.items() if "seconds" not in name}
    return [without_times(each) for each in shown] if isinstance(shown, list) else shown


@pytest.mark.usefixtures("night")
def test_list_shows_all_however_many_there_are(
    on_store: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE", 2)

    ended = on_store("runs", "list", "--all", "-o", "json")

    assert keys(ended) == [head.stream for head in store.runs.find_all()]
    assert len(keys(ended)) > 3
    assert "more" not in ended.err
    failed = on_store("runs", "list", "--all", "--status", "failed", "-o", "json")
    assert keys(failed) == ["broken"]
    both = on_store("runs", "list", "--all", "--limit", "2")
    assert (both.code, "not both" in both.err) == (1, True)


def test_of_a_store_without_runs_the_list_is_empty(on_store: Command) -> None:
    ended = on_store("runs", "list", "-o", "json")

    assert (ended.code, ended.json) == (0, [])
    assert "no run was recorded yet" in ended.err


@pytest.mark.usefixtures("night")
def test_no_password_of_an_error_is_shown(on_store: Command) -> None:
    for words in (["list"], ["show", "broken"], ["show", CORRELATION], ["events", "broken"]):
        for output in ("table", "plain", "json", "yaml"):
            ended = on_store("runs", *words, "-o", output)
            assert "hunter2" not in ended.out + ended.err
    assert "http://ana:***@host" in on_store("runs", "show", "broken").out


@pytest.mark.usefixtures("night")
def test_show_of_an_ambiguous_run_says_what_to_look_at_and_what_to_do(
    on_store: Command, store: Store
) -> None:
    shown = on_store("runs", "show", "killed").out
    data = on_store("runs", "show", "killed", "-o", "json").json

    assert "Status        running, nobody on it" in shown
    assert "'pay' was left in the middle" in shown
    assert "its code says ask" in shown
    assert f"runs skip-step killed pay --result JSON --reason 'why' --store-url {store.url}" in shown
    assert f"runs retry-step killed pay --reason 'why' --store-url {store.url}" in shown
    assert "runs resume killed --clear --reason 'why'" in shown
    assert [each["step"] for each in data["ambiguous"]] == ["pay"]


@pytest.mark.usefixtures("night")
def test_show_of_a_failed_run_says_why(on_store: Command) -> None:
    shown = on_store("runs", "show", "broken").out
    data = on_store("runs", "show", "broken", "-o", "json").json

    assert "1 of 4 done; 'pay' failed" in shown
    assert "What went wrong (1 transient)" in shown
    assert "read  version" in shown
    assert data["errors"] == {"transient": 1}
    assert [each["step"] for each in data["failures"]] == ["pay"]
    assert data["checkpoints"][0]["name"] == "read"
    assert "Time left" not in shown


@pytest.mark.usefixtures("night")
def test_show_of_a_run_that_asks_has_question_schema_and_command(on_store: Command) -> None:
    shown = on_store("runs", "show", "asks").out

    assert "Pay 300 euros?" in shown
    assert 'as {"type": "boolean"}' in shown
    assert "airflow agentic runs answer asks question:approve JSON" in shown
    assert "Time left   (nobody knows: it waits)" in shown


LOG = (
    "[log](http://ana:hunter2@host/log)\n\n```text\nWhat to do\n\x1b[31mairflow agentic runs forget asks\n```"
)


def test_show_has_the_details_of_a_question_marked_and_whole(on_store: Command, store: Store) -> None:
    long = "x" * 2_000
    work(store, "asks", lambda run: run.interrupt("Pay?", name="pay", details=f"{LOG}\n{long}"), Interrupted)

    shown = on_store("runs", "show", "asks").out
    [question] = on_store("runs", "show", "asks", "-o", "json").json["questions"]

    lines = shown.splitlines()
    first = lines.index("    | [log](http://ana:***@host/log)")
    assert lines[first : first + 7] == [
        "    | [log](http://ana:***@host/log)", "    | ", "    | ```text", "    | What to do",
        "    | airflow agentic runs forget asks", "    | ```", f"    | {long}",
    ]  # fmt: skip
    assert lines[first + 7].startswith("    airflow agentic runs answer asks question:pay JSON")
    assert question["details"] == f"{LOG}\n{long}".replace("hunter2", "***")


def test_show_says_until_when_a_question_can_be_answered(on_store: Command, store: Store) -> None:
    until = datetime(2040, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    work(store, "asks", lambda run: run.interrupt("Pay?", name="pay", deadline=until), Interrupted)

    assert ", until 2040-01-02T03:04:05Z)" in on_store("runs", "show", "asks").out


@pytest.mark.usefixtures("night")
def test_a_question_without_details_has_none(on_store: Command) -> None:
    [question] = on_store("runs", "show", "asks", "-o", "json").json["questions"]

    assert question["details"] == ""
    assert "|" not in on_store("runs", "show", "asks").out


def tries(on_store: Command, key: str) -> str:
    [line] = [each for each in on_store("runs", "show", key).out.splitlines() if each.startswith("Tries ")]
    return line.removeprefix("Tries").strip()


def test_show_says_how_often_it_was_tried(on_store: Command, store: Store) -> None:
    for _ in range(11):
        work(store, "broken", break_down, ConnectionError)

    data = on_store("runs", "show", "broken", "-o", "json").json
    assert tries(on_store, "broken") == "11"
    assert (data["tries"], data["tries_before"]) == (11, False)
    fork = store.fork("broken", actor="ana", reason="once more")
    assert tries(on_store, fork) == "(none since it was made)"


def test_show_says_if_more_tries_may_be_forgotten(on_store: Command, store: Store) -> None:
    for number in range(2):
        with store.run("triage", key="k", persistence="snapshot") as run:
            run.emit({"n": number})
    store.runs.prune("k")

    assert tries(on_store, "k") == "(nobody knows how many: its first records are forgotten)"
    with store.run("triage", key="k", persistence="snapshot") as run:
        run.emit({"n": 3})
    assert tries(on_store, "k") == "(at least 1: its first records are forgotten)"
    assert on_store("runs", "show", "k", "-o", "json").json["tries_before"] is True


def test_show_tells_the_time_left_by_those_that_finished(on_store: Command, store: Store) -> None:
    for number in range(3):
        work(store, f"before-{number}", finish)
    shown: list[Any] = []

    def look(run: Run) -> None:
        run.step("read", lambda: 1)
        shown.append(on_store("runs", "show", "now").out)
        shown.append(on_store("runs", "list", "--status", "running", "-o", "json").json)

    work(store, "now", look)

    assert "going by 3 finished runs of this agent" in shown[0]
    assert shown[1][0]["seconds_left"] >= 0
    assert shown[1][0]["owner"]


@pytest.mark.usefixtures("night")
def test_show_of_a_dag_run_has_all_its_runs_and_its_open_messages(on_store: Command, store: Store) -> None:
    sent = Message(source="x", recipient="desk", data=1, correlation_id=CORRELATION)
    store.bus.send(sent)
    # Of another DAG, whose task handles it: it belongs to the same conversation.
    with store.run("desk", key="elsewhere", correlation=CORRELATION) as run:
        run.step("open", lambda: 1)

    data = on_store("runs", "show", CORRELATION, "-o", "json").json
    shown = on_store("runs", "show", CORRELATION).out
    by_message = on_store("runs", "show", sent.id, "-o", "json").json

    assert {each["key"] for each in data["runs"]} == {"good", "broken", "killed", "asks", "elsewhere"}
    assert data["statuses"] == {"running": 1, "waiting": 1, "failed": 1, "finished": 2}
    assert data["errors"] == {"transient": 1}
    assert [each["mailbox"] for each in data["messages"]] == ["desk"]
    assert "5 runs: 1 running, 1 waiting, 1 failed, 2 finished" in shown
    assert "1 message on the way" in shown
    assert {each["key"] for each in by_message["runs"]} == {each["key"] for each in data["runs"]}


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize(("open_messages", "more"), [(20, ""), (25, "and 5 more: ")])
def test_show_of_a_dag_run_with_many_messages_has_the_first_and_says_how_to_see_all(
    on_store: Command, store: Store, open_messages: int, more: str
) -> None:
    store.bus.send_many(
        [
            Message(source="x", id=f"m{n}", recipient="desk", data=n, correlation_id=CORRELATION)
            for n in range(open_messages)
        ]
    )

    ended = on_store("runs", "show", CORRELATION, "-o", "plain")
    data = on_store("runs", "show", CORRELATION, "-o", "json")

    assert f"{open_messages} messages on the way" in ended.out
    assert ended.out.count("desk") == 20
    assert ("more: `airflow agentic messages trace billing:manual__1" in ended.err) == bool(more)
    assert more in ended.err
    assert f"--store-url {store.url}`" in ended.err or not more
    assert len(data.json["messages"]) == open_messages
    assert "more" not in data.err


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize("verb", ["show", "watch"])
def test_of_a_dag_run_without_durable_runs_it_is_said_why_there_are_none(
    on_store: Command, store: Store, verb: str
) -> None:
    store.bus.send(Message(source="x", recipient="desk", correlation_id="shop:manual__2"))

    for name in ("shop:manual__2", "shop:scheduled__2026-01-01T00:00:00+00:00"):
        ended = on_store("runs", verb, name)

        assert ended.code == 1
        assert "Only tasks whose agents take durable steps have runs" in ended.err
        assert f"`airflow agentic messages trace {name} --store-url {store.url}`" in ended.err
        assert f"`airflow agentic runs list --store-url {store.url}`" in ended.err
        assert "\n" not in ended.err.strip()
    for name in ("nothing", "agent/shop/scheduled__2026-01-01T00:00:00+00:00/pay"):
        ended = on_store("runs", verb, name)
        assert "durable steps" not in ended.err
        assert "`airflow agentic runs list" in ended.err


@pytest.mark.usefixtures("night")
def test_what_is_not_there_is_one_line_with_what_may_be_meant(on_store: Command) -> None:
    for words in (["show", "brokn"], ["events", "brokn"], ["watch", "brokn"], ["verify", "brokn"]):
        ended = on_store("runs", *words)

        assert ended.code == 1
        assert "there is no run 'brokn' in this store" in ended.err
        assert "Did you mean 'broken'?" in ended.err
        assert "\n" not in ended.err.strip()


@pytest.mark.parametrize("verb", ["show", "events"])
def test_a_run_or_a_file_must_be_named(on_store: Command, verb: str) -> None:
    ended = on_store("runs", verb)

    assert ended.code == 1
    assert "name a run" in ended.err


# -- events --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("night")
def test_events_are_in_order_and_can_be_picked(on_store: Command) -> None:
    everything = on_store("runs", "events", "good", "-o", "json").json
    steps = on_store("runs", "events", "good", "--type", "step", "-o", "json").json
    done = on_store("runs", "events", "good", "--type", "step.done", "--after", "3", "-o", "json").json

    assert [each["version"] for each in everything] == list(range(1, 7))
    assert everything[0]["type"] == "run.started"
    assert everything[0]["at"].endswith("Z")
    assert {each["type"] for each in steps} == {"step.intended", "step.done"}
    assert [(each["name"], each["data"]["result"]) for each in done] == [("pay", "paid")]


@pytest.mark.usefixtures("night")
def test_events_say_when_there_are_more(on_store: Command) -> None:
    ended = on_store("runs", "events", "good", "--limit", "2", "-o", "plain")

    assert "run.started" in ended.out
    assert "showing 2 of 6; --after 2 shows the next ones" in ended.err


# -- watch ---------------------------------------------------------------------------------------------------


def test_watch_tells_each_change_and_ends_with_the_run(on_store: Command, store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def look(run: Run) -> None:
        run.expect(2)
        run.step("read", lambda: 1)
        begun.set()
        assert go_on.wait(20)
        run.step("pay", lambda: time.sleep(0.5))

    worker = threading.Thread(target=work, args=(store, "now", look))
    worker.start()
    assert begun.wait(20)
    threading.Timer(0.5, go_on.set).start()

    ended = on_store("runs", "watch", "now", "--every", "0.1", "--timeout", "30")
    worker.join()

    assert ended.code == 0
    lines = [line.partition("  ")[2] for line in ended.out.splitlines()]
    assert lines[0] == "now: running, 1/2 done (read)"
    assert lines[-1] == "now: finished, 2/2 done (pay)"
    assert len(lines) == len(set(lines))


@pytest.mark.usefixtures("night")
def test_watch_of_what_does_not_end_gives_up_in_time(on_store: Command) -> None:
    ended = on_store("runs", "watch", CORRELATION, "--every", "0.1", "--timeout", "0.3")

    assert ended.code == 1
    assert "--timeout is over, and 2 runs did not end" in ended.err
    assert "killed: running, nobody on it" in ended.out
    # Nothing changed: each is told once.
    assert ended.out.count("asks:") == 1


@pytest.mark.usefixtures("night")
def test_watch_of_what_failed_ends_with_1(on_store: Command) -> None:
    ended = on_store("runs", "watch", "broken")

    assert ended.code == 1
    assert "1 run did not finish" in ended.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_are_written_over_those_before() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    lease = round(now.timestamp() * 1000) + 60_000
    head = RunHead("k\x1b[2J", "a", status="running", done=1, total=4, step="read", lease_until_ms=lease)
    one = Together((Glance(head, now, timedelta(seconds=90), 3),))
    terminal = Terminal()

    with Screen(terminal) as screen:
        screen.show(lines_of(one), now)
        screen.show(lines_of(one), now)

    first, _, second = terminal.getvalue().partition("\x1b[1F\x1b[J")
    assert first == second
    assert first.startswith("k  [#####...............]  1/4  running  read  for ")
    assert first.endswith("~ 1 min 30 s left\n")


# -- verify --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("night")
def test_journals_in_order_are_said_to_be(on_store: Command) -> None:
    ended = on_store("runs", "verify", "--all")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.strip() == "4 runs checked, all as they were written"
    assert on_store("runs", "verify", "good", "-o", "json").json == []


@pytest.mark.usefixtures("night")
def test_damage_is_named_and_is_an_error(on_store: Command, store: Store) -> None:
    def forge(record: Record) -> Record:
        return replace(record, data=record.data.replace(b"300", b"900"))

    damage(store, "good", lambda records: [*map(forge, records)])
    damage(store, "asks", lambda records: [records[0], *records[2:]])

    ended = on_store("runs", "verify", "--all", "-o", "json")

    assert ended.code == 1
    named = {(each["run"], each["version"]) for each in ended.json}
    assert {("good", 3), ("asks", 2)} <= named
    assert "missing: version 2" in " ".join(each["what"] for each in ended.json)
    assert "in 2 runs" in ended.err
    assert on_store("runs", "verify", "good").code == 1
    assert on_store("runs", "verify", "broken").code == 0


@pytest.mark.parametrize("words", [[], ["k", "--all"], ["--all", "--file", "x"]])
def test_what_to_verify_is_named_in_one_way(on_store: Command, words: list[str]) -> None:
    ended = on_store("runs", "verify", *words)

    assert ended.code == 1
    assert "in one way" in ended.err
