"""What is particular about durable runs on each store; what all of them promise is in the conformance suite."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from datetime import timedelta

import clocked
import postgres
import pytest
import redis_server

from airflow_agentic.errors import NotRecordable, RunTaken, StoreError, StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import RunQuery, RunStatus, current_step
from airflow_agentic.persistence.integrity import genesis, seal, seal_snapshot
from airflow_agentic.persistence.journal import Draft, Journal
from airflow_agentic.persistence.ports import Append, Record, RunHead, RunStores, SnapshotRecord
from airflow_agentic.persistence.verification import verified
from airflow_agentic.stores import open_store
from airflow_agentic.stores.memory import MemoryJournals
from airflow_agentic.stores.sql.dialects import POSTGRESQL, SQLITE
from airflow_agentic.stores.sql.runs import listing, statements_of
from airflow_agentic.testing import FakeClock

LEASE = timedelta(minutes=1)
NOW_MS = 1_900_000_000_000
QUERIES = {
    "all": RunQuery(),
    "prefix": RunQuery(prefix="dag/9"),
    "prefix and status": RunQuery(prefix="dag/9", statuses=(RunStatus.FINISHED,)),
    "prefix and agent": RunQuery(prefix="dag/9", agent="a-1"),
    "correlation": RunQuery(correlation="c-7"),
    "correlation and prefix": RunQuery(correlation="c-7", prefix="dag/9"),
    "status": RunQuery(statuses=(RunStatus.FAILED,)),
    "statuses": RunQuery(statuses=(RunStatus.FAILED, RunStatus.WAITING)),
    "agent": RunQuery(agent="a-1"),
    "agent and status": RunQuery(agent="a-1", statuses=(RunStatus.QUARANTINED,)),
    "streams": RunQuery(streams=("dag/900", "dag/901")),
    "streams and status": RunQuery(streams=("dag/900",), statuses=(RunStatus.FINISHED,)),
    "a page of all": RunQuery(after=(10_000, "dag/10000")),
    "a page of a status": RunQuery(statuses=(RunStatus.FAILED,), after=(10_000, "dag/10000")),
    "a page of an agent": RunQuery(agent="a-1", after=(10_000, "dag/10000")),
    "a page of a correlation": RunQuery(correlation="c-7", after=(10_000, "dag/10000")),
    "a page of a prefix": RunQuery(prefix="dag/9", after=(10_000, "dag/10000")),
}


def append(store, stream="a", names=("x",), state=None, outgoing=(), **head):
    """Add records behind what there is."""
    found = next(iter(store.runs.heads(RunQuery(streams=(stream,)))), None)
    before = found or RunHead(stream, "agent", owner="me", created_at_ms=NOW_MS)
    version, digest, records = before.version, before.digest or genesis(stream), []
    for version, name in enumerate(names, before.version + 1):
        digest = seal(digest, version, "event", NOW_MS, name, b"{}")
        records.append(Record(version, "event", NOW_MS, name, b"{}", digest))
    snapshot = None
    if state is not None:
        made = seal_snapshot(digest, version, NOW_MS, state)
        snapshot = SnapshotRecord(version, NOW_MS, state, digest, made)
    after = replace(before, **{"version": version, "digest": digest, "updated_at_ms": NOW_MS, **head})
    return store.journals.append(Append(after, before.version, records, snapshot, outgoing))


@pytest.fixture(params=clocked.STORES)
def store(request, tmp_path):
    with clocked.opened(request.param, tmp_path, FakeClock()) as opened:
        yield opened


@pytest.fixture(scope="module")
def many_on_sqlite(tmp_path_factory):
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('runs') / 'a.db'}") as opened:
        fill(opened.agents._db, 20_000)
        yield opened


@pytest.fixture(scope="module")
def many_on_postgresql():
    with postgres.schema() as name, open_store(postgres.url_of(name)) as opened:
        fill(opened.agents._db, 20_000)
        opened.agents._db.execute("ANALYZE agentic_run")
        yield opened


class TestOnEveryStore:
    @pytest.mark.parametrize(
        ("name", "says"),
        [("x" * 1_001, "has 1,001 characters"), ("a\0b", "a NUL"), ("a\ud800", "half a character")],
    )
    def test_a_name_that_not_every_store_keeps_is_refused_before_it_is_sealed(self, store, name, says):
        journal = Journal(store.run_stores, RunHead("a", "agent", owner="me"), NOW_MS, LEASE)
        journal.write([Draft("event", "fine", b"{}")])
        with pytest.raises(NotRecordable, match=says) as caught:
            journal.write([Draft("event", "fine", b"{}"), Draft("event", name, b"{}")])
        assert len(str(caught.value)) < 250
        journal.write([Draft("event", "x" * 1_000, b"{}")])
        assert journal.version == 2
        assert verified(store.run_stores, "a") == []

    def test_a_run_whose_error_no_store_keeps_as_it_is_fails_with_what_is_left_of_it(self, store):
        with pytest.raises(ValueError, match="bad"), store.run("agent", key="a"):
            raise ValueError("bad \0 \ud800 text")
        head = store.runs.find("a")
        assert head.status == "failed"
        assert head.error.startswith("ValueError: bad ")
        assert store.verify("a") == []

    def test_a_stream_that_no_store_keeps_is_nobodys(self, store):
        append(store.run_stores, "a\ufffd")
        for name in ("a\0", "a\ud800"):
            query = RunQuery(streams=(name,))
            assert store.run_stores.runs.heads(query) == []
            assert store.run_stores.runs.heads(replace(query, streams=(name, "a\ufffd")))

    def test_a_message_that_was_sent_before_stops_no_record(self, store):
        message = Message(source="s", recipient="box", data=1, id="m-1")
        assert store.bus.send(message)
        assert append(store.run_stores, outgoing=store.bus.outgoing([message, message]))
        assert store.bus.stats("box").total == 1

    def test_records_of_a_thousand_and_more_are_appended_at_once(self, store):
        names = [f"n-{number}" for number in range(1_500)]
        assert append(store.run_stores, names=names, state=b"{}")
        assert [each.name for each in store.run_stores.journals.index("a")] == names
        assert verified(store.run_stores, "a") == []
        assert store.run_stores.runs.forget("a")

    def test_two_who_work_on_one_run_do_not_take_each_other_for_damage(self, store):
        first, second = store.run("agent", key="a"), store.run("agent", key="a")
        first.emit({"n": 1})
        with pytest.raises(RunTaken):
            second.emit({"n": 2})
        assert store.verify("a") == []
        assert store.runs.find("a").status == "running"


@pytest.mark.parametrize("kind", [kind for kind in clocked.STORES if kind != "memory"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_a_store_says_what_the_one_in_memory_says(tmp_path, kind, seed):
    clock, chance = FakeClock(), random.Random(seed)
    journals = MemoryJournals(clock)
    model = RunStores(journals, journals)
    with clocked.opened(kind, tmp_path, clock) as opened:
        for _ in range(150):
            actions = ["append"] * 6 + ["hold"] * 3 + ["prune", "mark", "forget"]
            asked_for = (
                chance.choice(actions),
                chance.choice(STREAMS),
                chance.choice(OWNERS),
                chance.randrange(10),
            )
            before = round(clock().timestamp() * 1000)
            call = call_of(model, before, *asked_for)
            assert call(opened.run_stores) == call(model), asked_for
            if chance.random() < 0.2:
                clock.advance(chance.choice([1, 3, 60]))
            assert all_of(opened.run_stores) == all_of(model)


STREAMS, OWNERS = ("a", "a/b", "%"), ("me", "you")


def call_of(model, now_ms, action, stream, owner, number):
    """Return what is to be done to each of two stores."""
    if action == "hold":
        gone = OWNERS[number % 2] if number > 7 else None
        return lambda on: on.runs.hold(stream, owner, timedelta(seconds=number - 2), gone)
    if action == "prune":
        return lambda on: on.journals.prune(stream, number)
    if action == "forget":
        return lambda on: number == 0 and on.runs.forget(stream)
    if action == "mark":
        return lambda on: on.runs.mark(stream, [*RunStatus][number % 5], f"e-{number}", "x")
    found = next(iter(model.runs.heads(RunQuery(streams=(stream,)))), None)
    head = found or RunHead(stream, f"agent-{number % 2}", owner=owner, correlation=stream[:1])
    version = head.version + 1 + number % 2
    records = [
        Record(each, "event", number, f"n-{number}", bytes([number]), bytes([number]) * 32)
        for each in range(head.version + 1, version + 1)
    ]
    snapshot = SnapshotRecord(version, number, bytes([number]), b"c", b"d", number == 4)
    changed = replace(
        head, version=version, digest=bytes([number]), owner=owner, status=str([*RunStatus][number % 5]),
        updated_at_ms=NOW_MS + number * 20_000, lease_until_ms=number % 3 * (now_ms + 1_000), step=f"s-{number}",
    )  # fmt: skip
    # An append that expects too much is refused by both.
    write = Append(changed, head.version + (number == 9), records, snapshot if number < 6 else None)
    return lambda on: on.journals.append(write)


def all_of(on):
    """Return all that there is on a store."""
    found = [
        [
            on.journals.read(each, 1, 5),
            on.journals.index(each),
            *(on.journals.latest_snapshot(each, at) for at in (None, 3)),
        ]
        for each in STREAMS
    ]
    queries = RunQuery(), RunQuery(prefix="a"), RunQuery(agent="agent-1", limit=1), RunQuery(correlation="a")
    pages = [replace(query, after=(NOW_MS + 80_000, "a/b")) for query in queries]
    return found, [on.runs.heads(query) for query in (*queries, *pages)]


def plan_of(database, query):
    statement, values = listing(database.dialect, query)
    word = "EXPLAIN" if database.dialect is POSTGRESQL else "EXPLAIN QUERY PLAN"
    rows = database.fetch(f"{word} {statement}", values)
    return "\n".join(row.detail if word != "EXPLAIN" else row[0] for row in rows)


def fill(database, count):
    """Put in many runs of which nearly all are finished."""
    made = "generate_series(1, {0}) AS made(n)" if database.dialect is POSTGRESQL else "made"
    start = "" if database.dialect is POSTGRESQL else (
        "WITH RECURSIVE made(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n < {0}) "
    )  # fmt: skip
    columns = "task, digest, step, waiting, error, category, owner"
    status = "CASE WHEN n = n / 1000 * 1000 THEN 'failed' ELSE 'finished' END"
    database.execute(
        (
            "INSERT INTO agentic_run (stream, agent, mode, status, correlation, version, done, total, lease_until,"
            f" created_at, updated_at, updated_minute, {columns}) {start}"
            f"SELECT 'dag/' || n, 'a-' || (n - n / 10 * 10), 'hybrid', {status}, 'c-' || (n - n / 5000 * 5000), 1, 1, 1, 0, n, n, n / 60000,"
            f" '', '', '', '', '', '', '' FROM {made}"
        ).format(count)
    )


class TestOnSqlite:
    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    def test_no_listing_reads_all_runs(self, many_on_sqlite, query):
        plan = plan_of(many_on_sqlite.agents._db, query)
        assert "SCAN agentic_run" not in plan, plan
        index = (
            "stream" if query.prefix or query.streams else "correlation" if query.correlation else "status"
        )
        index = "agent" if query.agent and index == "status" else index
        assert f"USING INDEX agentic_run_{index} " in plan, plan
        if query.after and index in ("status", "agent"):
            assert "AND updated_minute<?)" in plan, plan  # a page reads nothing of those before it

    @pytest.mark.parametrize("name", ["read", "index", "snapshot", "look", "hold", "advance"])
    def test_no_statement_reads_a_whole_table(self, many_on_sqlite, name):
        values = dict.fromkeys(statement_names(statements_of(SQLITE)), 1)
        statement = getattr(statements_of(SQLITE), name)
        plan = [
            row.detail for row in many_on_sqlite.agents._db.fetch(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
        assert not any(step.startswith("SCAN agentic") for step in plan), plan

    def test_a_record_writes_two_pages_and_those_of_the_indexes_only_when_it_must(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store:
            append(store.run_stores)
            frames = []
            for changes in ({}, {}, {"status": "failed"}, {"status": "failed"}):
                before = path.with_name("a.db-wal").stat().st_size
                append(store.run_stores, **changes)
                frames.append((path.with_name("a.db-wal").stat().st_size - before) // 4120)
        assert frames[:2] == [2, 2]
        assert frames[2] > 2
        assert frames[3] == 2

    def test_an_append_is_four_statements_and_twice_as_many_when_the_indexes_change(self, tmp_path):
        usual, tried = ["BEGIN", "UPDATE", "INSERT", "COMMIT"], ["BEGIN", "UPDATE", "ROLLBACK"]
        with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
            append(store.run_stores)
            said = []
            store.agents._db.connection.connection.dbapi_connection.set_trace_callback(said.append)
            for changes, wanted in (
                ({}, usual),
                ({"status": "failed"}, tried + usual),
                ({"status": "failed"}, usual),
                ({"owner": "you"}, tried + tried),
            ):
                said.clear()
                append(store.run_stores, **changes)
                assert [each.split()[0] for each in said if not each.strip().startswith("SELECT")] == wanted
            said.clear()
            append(store.run_stores, outgoing=store.bus.outgoing([Message(source="s", recipient="box")]))
            assert sum(each.split()[:2] == ["UPDATE", "agentic_run"] for each in said) == 1

    def test_records_of_a_kilobyte_take_little_more_on_disk(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store, store.run("agent", key="a") as run:
            before = size(path)
            for number in range(300):
                run.step(f"turn-{number}", lambda: "x" * 1000)
        assert size(path) - before <= 3 * 300 * 1000

    def test_an_append_that_is_refused_writes_nothing(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store:
            append(store.run_stores)
            before = path.with_name("a.db-wal").stat().st_size
            assert not append(store.run_stores, owner="you")
            assert path.with_name("a.db-wal").stat().st_size == before

    def test_an_append_that_is_interrupted_in_its_middle_is_undone(self, tmp_path, monkeypatch):
        with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
            append(store.run_stores)
            database, ask = store.agents._db, store.agents._db._ask

            def interrupted(driver, statement, parameters):
                if "INSERT INTO agentic_event" in statement:
                    raise KeyboardInterrupt
                return ask(driver, statement, parameters)

            monkeypatch.setattr(database, "_ask", interrupted)
            with pytest.raises(KeyboardInterrupt):
                append(store.run_stores)
            monkeypatch.undo()
            assert store.runs.find("a").version == 1
            assert append(store.run_stores)
            assert verified(store.run_stores, "a") == []

    def test_a_name_that_is_no_text_any_more_is_read_and_is_another_one(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store:
            append(store.run_stores, names=("x", "y"))
            with sqlite3.connect(path) as direct:
                direct.execute(
                    "UPDATE agentic_event SET name = CAST(x'FF' AS TEXT), at = 'z' WHERE name = 'y'"
                )
            direct.close()
            [damage] = verified(store.run_stores, "a")
            assert (damage.stream, damage.version) == ("a", 2)
            str(damage).encode()


class TestOnPostgresql:
    @pytest.fixture
    def store(self, url):
        with open_store(url) as opened:
            yield opened

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    def test_no_listing_reads_all_runs(self, many_on_postgresql, query):
        plan = plan_of(many_on_postgresql.agents._db, query)
        assert "Seq Scan on agentic_run" not in plan, plan
        index = (
            "stream" if query.prefix or query.streams else "correlation" if query.correlation else "status"
        )
        index = "agent" if query.agent and index == "status" else index
        # Where few runs stand so, that is as good.
        usable = {f"agentic_run_{index}"} | (
            {"agentic_run_status"} if query.statuses and query.agent else set()
        )
        assert any(each in plan for each in usable), plan

    def test_an_append_asks_the_server_once_also_with_a_snapshot(self, store):
        append(store.run_stores)
        for state in (None, b"{}"):
            for stream in ("a", "b"):
                found = next(iter(store.run_stores.runs.heads(RunQuery(streams=(stream,)))), None)
                made = found or RunHead(stream, "agent", owner="me")
                journal = Journal(store.run_stores, made, NOW_MS, LEASE)
                drafts = [Draft("event", name, b"{}") for name in "xyz"]
                assert postgres.asked(store, lambda j=journal, d=drafts, s=state: j.write(d, state=s)) == 1
                assert verified(store.run_stores, stream) == []
        assert postgres.asked(store, lambda: store.run_stores.journals.read("a")) == 1
        assert postgres.asked(store, lambda: store.run_stores.runs.hold("a", "me", LEASE)) == 1

    def test_a_message_costs_its_transaction_and_no_more_for_the_records(self, store):
        append(store.run_stores)
        [head] = store.run_stores.runs.heads(RunQuery())
        journal = Journal(store.run_stores, head, NOW_MS, LEASE)
        sent = store.bus.outgoing([Message(source="s", recipient="box")])
        times = postgres.asked(
            store, lambda: journal.write([Draft("event", "x", b"{}")], state=b"{}", outgoing=sent)
        )
        # BEGIN, the append, message, delivery, COMMIT, and a hint for those who wait.
        assert times <= 6

    def test_a_record_writes_no_new_entry_into_the_indexes_of_heads(self, store, name):
        append(store.run_stores)
        for number in range(60):
            append(store.run_stores, step=f"s-{number}")
        store.agents._db.fetch("SELECT pg_stat_force_next_flush()")
        [(updated, hot)] = postgres.query(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
            " WHERE schemaname = %s AND relname = 'agentic_run'",
            name,
        )
        assert updated == 60
        assert hot >= 0.8 * updated


class TestOnRedis:
    def test_an_append_asks_the_server_once_with_all_that_goes_with_it(self, on_redis, emptied):
        append(on_redis.run_stores)
        [head] = on_redis.run_stores.runs.heads(RunQuery())
        journal = Journal(on_redis.run_stores, head, NOW_MS, LEASE)
        sent = on_redis.bus.outgoing([Message(source="s", recipient="box")])
        on_redis.run_stores.journals.append(Append(head, 0, (Record(1, "e", 1, "", b"", b""),)))
        emptied.config_resetstat()
        journal.write([Draft("event", "x", b"{}")], state=b"{}", outgoing=sent)
        asked_for = emptied.info("commandstats")
        assert asked_for["cmdstat_evalsha"]["calls"] == 1
        assert "cmdstat_eval" not in asked_for
        assert on_redis.bus.stats("box").ready == 1

    def test_a_listing_looks_at_what_it_returns_and_at_nothing_else(self, on_redis, emptied):
        for number in range(300):
            append(
                on_redis.run_stores, f"a/{number:03}", status="failed" if number % 100 == 0 else "finished"
            )
        emptied.config_resetstat()
        assert len(on_redis.run_stores.runs.heads(RunQuery(prefix="a/01"))) == 10
        assert len(on_redis.run_stores.runs.heads(RunQuery(statuses=(RunStatus.FAILED,)))) == 3
        assert len(on_redis.run_stores.runs.heads(RunQuery(limit=5))) == 5
        assert len(on_redis.run_stores.runs.heads(RunQuery(limit=5, after=(NOW_MS, "a/150")))) == 5
        commands = emptied.info("commandstats")
        assert commands["cmdstat_hgetall"]["calls"] == 23
        assert commands["cmdstat_zrange"]["calls"] < 50
        assert not {"cmdstat_scan", "cmdstat_keys"} & commands.keys()

    def test_nothing_is_left_of_what_is_forgotten(self, on_redis, emptied):
        before = set(emptied.keys("*"))
        append(on_redis.run_stores, "a", state=b"{}", correlation="c")
        append(on_redis.run_stores, "a", state=b"{}", status="failed")
        assert set(emptied.keys("*")) - before
        assert on_redis.run_stores.runs.forget("a")
        assert set(emptied.keys("*")) == before

    def test_a_run_can_be_given_back_when_the_memory_is_full(self, on_redis, emptied):
        append(on_redis.run_stores)
        [head] = on_redis.run_stores.runs.heads(RunQuery())
        emptied.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreError, match="memory is full"):
                append(on_redis.run_stores)
            assert on_redis.run_stores.runs.hold("a", head.owner, timedelta(0)).taken
            assert on_redis.run_stores.runs.mark("a", RunStatus.FAILED, "no room", "x")
        finally:
            emptied.config_set("maxmemory", "0")

    def test_records_that_somebody_else_put_behind_the_head_are_not_written_over(self, on_redis, emptied):
        append(on_redis.run_stores)
        emptied.xadd("agentic:log:a", {"t": "event"}, id="2-0")
        before = emptied.hmget("agentic:run:a", "version", "status", "updated_at_ms")
        with pytest.raises(StoreError, match="has records behind its head"):
            append(on_redis.run_stores, state=b"{}")
        assert emptied.hmget("agentic:run:a", "version", "status", "updated_at_ms") == before
        assert not emptied.exists("agentic:snaps:a")
        assert [damage.version for damage in verified(on_redis.run_stores, "a")] == [0, 2]

    def test_a_snapshot_that_somebody_else_changed_is_passed_over(self, on_redis, emptied):
        with on_redis.run("agent", key="a", persistence="snapshot") as run:
            run.emit({"n": 1})
        [version] = emptied.zrange("agentic:snaps:a", 0, -1)
        for value in ("", "mine", "1 2 3", "1 99999999 32 x"):
            emptied.hset("agentic:snap:a", version, value)
            assert [damage.version for damage in on_redis.verify("a")] == [int(version)]
            assert on_redis.run("agent", key="a").state == {"n": 1}

    def test_a_lost_answer_is_told_and_the_journal_finds_out(self, on_redis, emptied):
        with on_redis.run("agent", key="a") as run:
            run.emit({"n": 1})
            emptied.client_kill_filter(_type="normal", skipme=True)
            run.emit({"n": 2})
        assert on_redis.verify("a") == []
        assert on_redis.at("a", 3).state == {"n": 2}

    def test_a_server_that_is_gone_is_told(self, tmp_path):
        with redis_server.private(tmp_path) as private, open_store(private.url) as on_redis:
            append(on_redis.run_stores)
            private.kill()
            with pytest.raises(StoreUnavailable) as caught:
                append(on_redis.run_stores)
            assert caught.value.retry_helps


def statement_names(statements):
    import re

    texts = [text for text in vars(statements).values() if isinstance(text, str)]
    return {name for text in texts for name in re.findall(r"(?<![:\w]):([a-z]\w*)", text)}


def size(path):
    """How much a store takes when all of it is in its file."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path.stat().st_size


def test_what_a_step_sends_is_there_when_its_result_is(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store, store.run("agent", key="a") as run:
        run.step("tell", lambda: current_step().outbox.append(Message(source="s", recipient="box", data=1)))
        assert store.bus.stats("box").ready == 1
