"""What is particular about documents of guards on each store; what all of them promise is in the conformance suite."""

from __future__ import annotations

import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import clocked
import postgres
import pytest

from airflow_agentic.errors import StoreError
from airflow_agentic.resilience.ports import KEEP, GuardChange, GuardKey
from airflow_agentic.stores import open_store
from airflow_agentic.stores.memory import MemoryGuards
from airflow_agentic.stores.sql.dialects import POSTGRESQL, SQLITE
from airflow_agentic.stores.sql.guards import _change_all, _read, _statements_of
from airflow_agentic.testing import FakeClock, memory_store

DAY_MS = 86_400_000


def key(name, kind="breaker"):
    return GuardKey(kind, name)


def put(name, expected, value=b"1", kind="breaker"):
    return GuardChange(key(name, kind), value, expected)


@pytest.fixture(params=clocked.STORES)
def guards(request, tmp_path):
    with clocked.opened(request.param, tmp_path, FakeClock()) as store:
        yield store.guards


class TestOnEveryStore:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("x" * 401, "has 401 characters, and a store keeps 400"),
            ("a\0b", "a NUL"),
            ("a\ud800", "half a character"),
        ],
    )
    def test_a_name_that_not_every_store_keeps_is_refused_on_each_and_everywhere(self, guards, name, says):
        for call in (
            lambda: guards.read([key("fine"), key(name)]),
            lambda: guards.change([put("fine", 0), put(name, 0)]),
            lambda: guards.entries("breaker", name),
        ):
            with pytest.raises(StoreError, match=says) as caught:
                call()
            assert len(str(caught.value)) < 250
        assert guards.entries("breaker") == []

    def test_a_document_that_grew_too_large_is_refused_with_its_name_and_a_way_out(self, guards):
        guards.change([put("conn:primary", 0)])
        with pytest.raises(
            StoreError, match=r"'conn:primary' would have 262,145 bytes.*more keys, or reset it"
        ):
            guards.change([put("conn:primary", 1, b"x" * 262_145)])

    def test_one_change_cannot_name_a_document_twice(self, guards):
        with pytest.raises(StoreError, match="names a document twice"):
            guards.change([put("a", 0), put("b", 0), put("a", 0)])
        assert guards.entries("breaker") == []

    def test_those_who_change_the_same_in_another_order_do_not_stop_each_other(self, guards):
        def toggle(names):
            done = 0
            while done < 30:
                found = guards.read([key(name) for name in names]).entries
                versions = {name: found[key(name)].version if key(name) in found else 0 for name in names}
                # One of them stays, and the other one comes and goes.
                changes = [
                    put(name, version, None if name == "a" and version else b"1")
                    for name, version in versions.items()
                ]
                done += guards.change(changes) is not None

        with ThreadPoolExecutor(2) as pool:
            for toggled in [pool.submit(toggle, names) for names in ("ab", "ba")]:
                toggled.result()
        assert guards.read([key("a"), key("b")]).entries.keys() == {key("b")}
        assert guards.read([key("b")]).entries[key("b")].version == 60

    def test_many_documents_are_changed_read_and_listed_at_once(self, guards):
        names = [f"n-{number:04}" for number in range(1_100)]
        assert guards.change([put(name, 0) for name in names])
        assert guards.change([put(name, 1, b"2") for name in names])
        assert len(guards.read([key(name) for name in names]).entries) == 1_100
        assert [name for name, _ in guards.entries("breaker", "n-", 1_050)] == names[:1_050]


@pytest.mark.parametrize("kind", [kind for kind in clocked.STORES if kind != "memory"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_a_store_says_what_the_one_in_memory_says(tmp_path, kind, seed):
    clock, chance = FakeClock(), random.Random(seed)
    model = MemoryGuards(clock)
    keys = [key(name, kind) for kind in ("breaker", "retries") for name in ("a", "b", "%")]

    def change(each):
        found = model.read([each]).entries.get(each)
        version = found.version if found else 0
        expected = version if chance.random() < 0.8 else chance.randrange(3)
        return GuardChange(each, None if chance.random() < 0.25 else chance.randbytes(3), expected)

    with clocked.opened(kind, tmp_path, clock) as store:
        for _ in range(200):
            changes = [change(each) for each in chance.sample(keys, chance.randrange(1, 4))]
            assert store.guards.change(changes) == model.change(changes), changes
            if chance.random() < 0.2:
                clock.advance(chance.choice([KEEP["retries"] / 2, KEEP["retries"], KEEP["breaker"] / 3]))
            if chance.random() < 0.05:
                assert store.guards.purge() == model.purge()
            assert store.guards.read(keys) == model.read(keys)
            assert store.guards.entries("retries") == model.entries("retries")


def test_documents_of_a_store_in_memory_move_with_its_clock():
    clock = FakeClock()
    with memory_store(clock) as store:
        store.guards.change([put("a", 0)])
        clock.advance(KEEP["breaker"])
        assert store.guards.read([]).now == clock.now
        assert store.guards.entries("breaker")
        clock.advance(1)
        assert store.guards.entries("breaker") == []


class TestOnSqlite:
    @pytest.mark.parametrize(
        "statement",
        [
            _read(SQLITE, 3),
            _change_all(SQLITE, 3),
            _statements_of(SQLITE).change,
            _statements_of(SQLITE).forget,
            _statements_of(SQLITE).entries.format(end="AND name < :end"),
        ],
        ids=["read", "change several", "change", "forget", "list"],
    )
    def test_no_statement_reads_the_whole_table(self, tmp_path, statement):
        with open_store(f"sqlite:///{tmp_path / 'a.db'}") as store:
            store.guards.change([put("a", 0)])
            plan = [row.detail for row in store.agents._db.fetch(f"EXPLAIN QUERY PLAN {statement}", values())]
        assert any("agentic_guard" in step or "g USING INDEX" in step for step in plan), plan
        assert not any(step.startswith(("SCAN agentic_guard", "SCAN g")) for step in plan), plan

    def test_a_change_that_is_refused_writes_nothing(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store:
            store.guards.change([put("a", 0), put("b", 0)])
            before = wal_frames(path)
            store.guards.change([put("a", 2)])
            store.guards.change([put("a", 1), put("b", 2)])
            store.guards.change([put("a", 1), put("c", 1)])
            assert wal_frames(path) == before


class TestOnPostgresql:
    @pytest.fixture
    def store(self, url):
        with open_store(url) as opened:
            yield opened

    def test_reading_and_changing_asks_the_server_once_however_many_documents_there_are(self, store):
        several = [put(name, 1) for name in "abc"]
        store.guards.change([put(name, 0) for name in "abcd"])
        for call in (
            lambda: store.guards.read([each.key for each in several]),
            lambda: store.guards.change(several),
            lambda: store.guards.change([put("d", 1)]),
            lambda: store.guards.change([put("e", 0)]),
            lambda: store.guards.change([put("e", 1, None)]),
            lambda: store.guards.entries("breaker"),
        ):
            assert postgres.asked(store, call) == 1

    def test_a_change_writes_no_new_entry_into_the_index(self, store, name):
        store.guards.change([put("a", 0)])
        for version in range(1, 50):
            store.guards.change([put("a", version, str(version).encode() * 20)])
        store.agents._db.fetch("SELECT pg_stat_force_next_flush()")
        [(updated, hot)] = postgres.query(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
            " WHERE schemaname = %s AND relname = 'agentic_guard'",
            name,
        )
        assert updated == 49
        assert hot >= 0.8 * updated

    @pytest.mark.parametrize(
        "statement",
        [
            _read(POSTGRESQL, 3),
            _change_all(POSTGRESQL, 3),
            _statements_of(POSTGRESQL).change,
            _statements_of(POSTGRESQL).entries.format(end="AND name < :end"),
        ],
        ids=["read", "change several", "change", "list"],
    )
    def test_no_statement_reads_the_whole_table(self, store, statement):
        database = store.agents._db
        database.execute(
            "INSERT INTO agentic_guard (kind, name, value, version, updated_at)"
            " SELECT 'breaker', 'n-' || n, '', 1, 9e15 FROM generate_series(1, 5000) n"
        )
        database.execute("ANALYZE agentic_guard")
        plan = "\n".join(row[0] for row in database.fetch(f"EXPLAIN {statement}", values()))
        assert "agentic_guard_pkey" in plan
        assert "Seq Scan on agentic_guard" not in plan


class TestOnRedis:
    def test_reading_and_changing_asks_the_server_once_however_many_documents_there_are(
        self, on_redis, emptied
    ):
        several = [put(name, 1) for name in "abc"]
        on_redis.guards.change([put(name, 0) for name in "abc"])
        on_redis.guards.read([])
        for call in (
            lambda: on_redis.guards.read([each.key for each in several]),
            lambda: on_redis.guards.change(several),
        ):
            emptied.config_resetstat()
            call()
            assert emptied.info("commandstats")["cmdstat_evalsha"]["calls"] == 1

    def test_a_listing_looks_at_what_it_returns_and_at_nothing_else(self, on_redis, emptied):
        on_redis.guards.change([put(f"{letter}-{number}", 0) for letter in "abc" for number in range(200)])
        on_redis.guards.entries("breaker")
        emptied.config_resetstat()
        assert len(on_redis.guards.entries("breaker", "b-1", 50)) == 50
        commands = emptied.info("commandstats")
        assert commands["cmdstat_get"]["calls"] == 50
        assert not {"cmdstat_scan", "cmdstat_keys", "cmdstat_zscan"} & commands.keys()

    @pytest.mark.parametrize("kind", list(KEEP))
    def test_a_document_ends_by_itself_and_its_name_with_the_next_purge(self, on_redis, emptied, kind):
        on_redis.guards.change([put("a", 0, kind=kind), put("b", 0, kind=kind)])
        keep = KEEP[kind].total_seconds() * 1000
        assert keep < emptied.pttl(f"agentic:guard:{kind}:a") <= keep + 1000
        emptied.pexpire(f"agentic:guard:{kind}:a", 1)
        while emptied.exists(f"agentic:guard:{kind}:a"):
            pass
        assert [name for name, _ in on_redis.guards.entries(kind, limit=1)] == ["b"]
        assert on_redis.guards.purge() == 1
        assert emptied.zrange(f"agentic:guards:{kind}", 0, -1) == ["b"]
        assert on_redis.guards.change([put("a", 0, kind=kind)])

    def test_what_somebody_else_wrote_there_is_no_document_and_is_replaced(self, on_redis, emptied):
        emptied.set("agentic:guard:breaker:a", "mine")
        assert on_redis.guards.read([key("a")]).entries == {}
        assert on_redis.guards.change([put("a", 1)]) is None
        assert on_redis.guards.change([put("a", 0)])
        assert on_redis.guards.read([key("a")]).entries[key("a")].version == 1

    def test_slots_can_be_given_back_when_the_memory_is_full(self, on_redis, emptied):
        on_redis.guards.change([put("a", 0)])
        emptied.config_set("maxmemory", "1mb")
        try:
            assert on_redis.guards.change([put("a", 1, b"[]")])
        finally:
            emptied.config_set("maxmemory", "0")


def values():
    found = {"kind": "breaker", "name": "a", "prefix": "a", "end": "b", "limit": 9, "keep": 1}
    found |= {"value": b"1", "expected": 1}
    for number in range(3):
        found |= {f"kind{number}": "breaker", f"name{number}": "a", f"value{number}": b"1"}
        found |= {f"expected{number}": 1, f"keep{number}": 1}
    return found


def wal_frames(path):
    """How much was written: every commit appends to the write-ahead log."""
    with sqlite3.connect(path) as database:
        found = path.with_name(f"{path.name}-wal").stat().st_size
    database.close()
    return found
