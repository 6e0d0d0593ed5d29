"""Whatever somebody changes in a journal behind its back is found, and named; the run is put aside and the others go on."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import postgres
import pytest

from airflow_agentic.errors import JournalCorrupt
from airflow_agentic.persistence import RunSuspended
from airflow_agentic.persistence.integrity import genesis, seal
from airflow_agentic.stores import open_store

KEY, AGENT = "dag/run/task", "agent"
COLUMNS = ("event_id", "type", "at", "name", "digest", "data")
SNAPSHOT_COLUMNS = ("event_id", "at", "chain", "digest", "state")
SPAN = 2**31


def fail():
    raise ValueError("no luck")


def work(store, persistence):
    """Write a journal with events of all kinds; return what its state comes to."""
    with contextlib.suppress(RunSuspended), store.run(AGENT, KEY, persistence) as run:
        for number in range(8):
            run.step(f"read-{number}", lambda n=number: {"n": n})
            run.emit({"seen": number, f"k-{number}": "ü"})
        run.checkpoint("half")
        for name in ("x", "y"):
            with contextlib.suppress(ValueError):
                run.step(name, fail)
        run.step("quick", lambda: 1, pure=True)
        run.interrupt("go on?", name="ask")
    by_hand = store.runs.by_hand
    by_hand.answer(KEY, "question:ask", "yes", actor="ana")
    by_hand.skip_step(KEY, "x", actor="ana", reason="done by hand", result=3)
    by_hand.set_state(KEY, actor="ana", reason="mended", patch={"more": 1})
    run = store.run(AGENT, KEY, persistence)
    with contextlib.suppress(RunSuspended):
        run.sleep_until(datetime.now(UTC) + timedelta(days=1))
    for number in range(9):
        run.emit({"late": number}, key=f"late-{number}")
    run.checkpoint("end")
    while run.version < 50:
        run.emit({"filler": run.version})
    state = run.state
    run.close()
    return state


class Tampering:
    """Changes rows past the store, and changes them back."""

    def rows(self, columns, table="agentic_event"):
        """Return the rows in order."""
        found = self.ask(f"SELECT {', '.join(columns)} FROM {table} ORDER BY event_id")
        return [tuple(bytes(each) if isinstance(each, memoryview) else each for each in row) for row in found]

    def put(self, number, column, value, table="agentic_event"):
        """Give a row another value."""
        self.ask(f"UPDATE {table} SET {column} = ? WHERE event_id = ?", value, number)

    def changed(self, number, column, value, was, table="agentic_event"):
        """Give a row another value for as long as this lasts; say whether the database takes it."""

        @contextlib.contextmanager
        def while_it_lasts():
            try:
                self.put(number, column, value, table)
            except self.refusals:
                yield False
                return
            yield True
            self.put(value if column == "event_id" else number, column, was, table)

        return while_it_lasts()

    @contextlib.contextmanager
    def without(self, numbers):
        """Take rows out."""
        names = ", ".join(COLUMNS)
        kept = [row for row in self.rows(COLUMNS) if row[0] in numbers]
        for row in kept:
            self.ask("DELETE FROM agentic_event WHERE event_id = ?", row[0])
        yield
        for row in kept:
            self.ask(f"INSERT INTO agentic_event ({names}) VALUES (?, ?, ?, ?, ?, ?)", *row)

    @contextlib.contextmanager
    def swapped(self, one, two):
        """Put two rows in each other's place."""
        aside = 2**62
        self._turn(one, two, aside)
        yield
        self._turn(one, two, aside)

    def _turn(self, one, two, aside):
        for number, place in ((one, aside), (two, one), (aside, two)):
            self.put(number, "event_id", place)


class OnSqlite(Tampering):
    refusals = (sqlite3.IntegrityError,)

    def __init__(self, path):
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")

    def ask(self, statement, *values):
        return self.connection.execute(statement, values).fetchall()

    def close(self):
        self.connection.close()


class OnPostgresql(Tampering):
    def __init__(self, url):
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True)
        self.refusals = (psycopg.errors.UniqueViolation,)

    def ask(self, statement, *values):
        cursor = self.connection.execute(statement.replace("?", "%s"), values)
        return cursor.fetchall() if cursor.description else []

    def close(self):
        self.connection.close()


def flips(value, every=1):
    """Return what a value can become by a change of one of its bytes."""
    is_number, is_text = isinstance(value, int), isinstance(value, str)
    content = value.to_bytes(8, "big", signed=True) if is_number else value.encode() if is_text else value
    for place in range(0, len(content), every):
        bit = 1 << (place % 7 if is_text else place % 8)
        other = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        if is_number:
            yield int.from_bytes(other, "big", signed=True)
        elif is_text:
            with contextlib.suppress(UnicodeDecodeError):
                yield other.decode()
        else:
            yield other


def named(store, version):
    """Whether what is wrong is found, and named by stream and version."""
    found = store.verify(KEY)
    return any((each.stream, each.version) == (KEY, version) for each in found)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A SQLite file with a journal of 50 events, and one of another run."""
    path = tmp_path_factory.mktemp("tampering") / "a.db"
    with open_store(f"sqlite:///{path}") as store:
        work(store, "hybrid")
        assert store.runs.find(KEY).version == 50
        assert len({event.type for event in store.history(KEY)}) >= 12
        assert store.verify(KEY) == []
    return path


@pytest.fixture
def copy(written, tmp_path):
    shutil.copy(written, tmp_path / "a.db")
    return tmp_path / "a.db"


@pytest.fixture
def sqlite(copy):
    with open_store(f"sqlite:///{copy}") as store, contextlib.closing(OnSqlite(copy)) as direct:
        yield store, direct


@pytest.fixture(scope="module")
def postgresql():
    with postgres.schema() as name:
        url = postgres.url_of(name)
        with open_store(url) as store, contextlib.closing(OnPostgresql(url)) as direct:
            work(store, "hybrid")
            yield store, direct


@pytest.fixture
def snapped(tmp_path):
    path = tmp_path / "a.db"
    with open_store(f"sqlite:///{path}") as store, contextlib.closing(OnSqlite(path)) as direct:
        state = work(store, "snapshot")
        yield store, direct, state


class TestOnSqlite:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_byte_of_every_record_is_sealed(self, sqlite, column):
        store, direct = sqlite
        tried = 0
        for number, was in direct.rows(("event_id", column)):
            for value in flips(was):
                with direct.changed(number, column, value, was) as is_taken:
                    if is_taken:
                        tried += 1
                        assert named(store, number % SPAN), (number % SPAN, column, was, value)
        assert store.verify(KEY) == []
        assert tried >= 50 * (6 if column == "event_id" else 3)

    @pytest.mark.parametrize("column", ["name", "type", "data", "digest"])
    def test_so_is_what_becomes_no_text_or_another_kind_of_value(self, sqlite, column):
        store, direct = sqlite
        for number, was in direct.rows(("event_id", column)):
            for value in ("CAST(x'FF' AS TEXT)", "CAST(x'FFFE00' AS TEXT)", "''", "17", "0.5"):
                direct.ask(f"UPDATE agentic_event SET {column} = {value} WHERE event_id = {number}")
                assert named(store, number % SPAN), (number % SPAN, value)
            direct.put(number, column, was)
        assert store.verify(KEY) == []

    def test_every_record_that_is_taken_out_is_missed(self, sqlite):
        store, direct = sqlite
        for (number,) in direct.rows(("event_id",)):
            with direct.without({number}):
                assert named(store, number % SPAN)
        assert store.verify(KEY) == []

    def test_any_two_records_in_each_others_place_are_found(self, sqlite):
        store, direct = sqlite
        numbers = [number for (number,) in direct.rows(("event_id",))]
        pairs = [*itertools.pairwise(numbers)]
        pairs += [tuple(sorted(random.Random(seed).sample(numbers, 2))) for seed in range(60)]
        for one, two in pairs:
            with direct.swapped(one, two):
                assert named(store, one % SPAN), (one % SPAN, two % SPAN)
        assert store.verify(KEY) == []

    def test_a_record_that_was_sealed_anew_does_not_fit_the_next_one(self, sqlite):
        store, direct = sqlite
        before = genesis(KEY)
        for number, type_, at, name, digest, data in direct.rows(COLUMNS):
            version, forged = number % SPAN, data.replace(b"{", b"{ ", 1)
            direct.put(number, "data", forged)
            direct.put(number, "digest", seal(before, version, type_, at, name, forged))
            assert named(store, version + 1 if version < 50 else 0)
            direct.put(number, "data", data)
            direct.put(number, "digest", digest)
            before = digest
        assert store.verify(KEY) == []

    def test_a_tail_that_is_cut_is_missed(self, sqlite):
        store, direct = sqlite
        numbers = [number for (number,) in direct.rows(("event_id",))]
        for left in range(len(numbers)):
            with direct.without(set(numbers[left:])):
                assert named(store, left + 1)
        for begins in range(1, len(numbers)):
            with direct.without(set(numbers[:begins])):
                assert named(store, 1)
        assert store.verify(KEY) == []

    def test_a_head_that_was_changed_is_found(self, sqlite):
        store, direct = sqlite
        [(digest,)] = direct.ask("SELECT digest FROM agentic_run")
        for version, where in ((51, 51), (2**40, 51), (49, 0), (1, 0), (0, 0), (-1, 0)):
            direct.ask("UPDATE agentic_run SET version = ?", version)
            assert named(store, where), version
        direct.ask("UPDATE agentic_run SET version = 50")
        for value in (*flips(digest), b"", digest[:-1], digest + b"x", "text", 7, 0.5):
            direct.ask("UPDATE agentic_run SET digest = ?", value)
            assert named(store, 0)
        direct.ask("UPDATE agentic_run SET digest = ?", digest)
        assert store.verify(KEY) == []

    @pytest.mark.parametrize("column", COLUMNS)
    @pytest.mark.parametrize("version", [1, 2, 17, 33, 50])
    def test_whoever_goes_on_with_the_run_is_stopped_and_it_is_put_aside(self, copy, version, column):
        with open_store(f"sqlite:///{copy}") as store, contextlib.closing(OnSqlite(copy)) as direct:
            number, was = direct.rows(("event_id", column))[version - 1]
            value = 2**55 if column == "event_id" else [*flips(was)][len([*flips(was)]) // 2]
            direct.put(number, column, value)
            is_stopped(store, version)

    @pytest.mark.parametrize(
        ("statement", "where"),
        [
            ("UPDATE agentic_run SET version = 49", 0),
            ("UPDATE agentic_run SET version = 51", 51),
            ("UPDATE agentic_run SET digest = x'00'", 0),
            ("DELETE FROM agentic_event WHERE (event_id & 2147483647) = 50", 50),
            ("DELETE FROM agentic_event WHERE (event_id & 2147483647) = 1", 1),
            ("DELETE FROM agentic_event WHERE (event_id & 2147483647) > 20", 21),
            ("DELETE FROM agentic_event", 1),
        ],
    )
    def test_so_is_whoever_meets_a_head_or_a_tail_that_was_changed(self, copy, statement, where):
        with open_store(f"sqlite:///{copy}") as store, contextlib.closing(OnSqlite(copy)) as direct:
            direct.ask(statement)
            is_stopped(store, where)


class TestOnPostgresql:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_bytes_of_records_are_sealed(self, postgresql, column):
        store, direct = postgresql
        rows = direct.rows(("event_id", column))
        tried = 0
        for number, was in (rows[0], *rows[4::7], rows[-1]):
            for value in flips(was, every=3):
                if isinstance(value, str) and "\0" in value:
                    continue
                with direct.changed(number, column, value, was) as is_taken:
                    if is_taken:
                        tried += 1
                        assert named(store, number % SPAN), (number % SPAN, column, was, value)
        assert tried >= 10
        assert store.verify(KEY) == []

    def test_records_that_are_missing_or_in_another_place_are_found(self, postgresql):
        store, direct = postgresql
        numbers = [number for (number,) in direct.rows(("event_id",))]
        for place in range(0, 50, 7):
            with direct.without({numbers[place]}):
                assert named(store, place + 1)
            with direct.without(set(numbers[place:])):
                assert named(store, place + 1)
        for one, two in [(0, 1), (10, 11), (48, 49), (3, 40)]:
            with direct.swapped(numbers[one], numbers[two]):
                assert named(store, one + 1)
        assert store.verify(KEY) == []

    def test_a_run_that_was_damaged_is_put_aside_and_the_others_go_on(self):
        with postgres.schema() as name:
            url = postgres.url_of(name)
            with open_store(url) as store, contextlib.closing(OnPostgresql(url)) as direct:
                work(store, "hybrid")
                number, was = direct.rows(("event_id", "data"))[20]
                direct.put(number, "data", was + b" ")
                is_stopped(store, 21)


class TestSnapshots:
    @pytest.mark.parametrize("column", SNAPSHOT_COLUMNS)
    def test_every_byte_is_sealed_and_the_state_is_made_again_from_the_events(self, snapped, column):
        store, direct, state = snapped
        rows = direct.rows(("event_id", column), "agentic_snapshot")
        assert len(rows) >= 3  # two that have names, and the newest
        number, was = rows[-1]
        for place, value in enumerate(flips(was)):
            with direct.changed(number, column, value, was, "agentic_snapshot") as is_taken:
                is_here = column != "event_id" or value // SPAN == number // SPAN
                if is_taken and is_here:
                    assert named(store, (value if column == "event_id" else number) % SPAN)
                if place % 5 == 0 or column != "state":
                    assert store.at(KEY, store.runs.find(KEY).version).state == state
        assert store.verify(KEY) == []

    def test_a_run_goes_on_with_the_right_state_when_all_snapshots_are_damaged(self, snapped):
        store, direct, state = snapped
        direct.ask("UPDATE agentic_snapshot SET state = ?", b'{"schema":1,"state":{"forged":true}}')
        run = store.run(AGENT, KEY, "snapshot")
        assert run.state == state
        run.emit({"after": 1})
        run.close()
        assert store.run(AGENT, KEY, "snapshot").state == {**state, "after": 1}

    def test_the_snapshot_of_another_journal_is_not_taken_for_ones_own(self, tmp_path):
        path = tmp_path / "a.db"
        with open_store(f"sqlite:///{path}") as store, contextlib.closing(OnSqlite(path)) as direct:
            for key in ("a", "b"):
                with store.run(AGENT, key, "snapshot") as run:
                    run.emit({"mine": key})
            mine, other = direct.rows(SNAPSHOT_COLUMNS, "agentic_snapshot")
            for column, value in list(zip(SNAPSHOT_COLUMNS, other, strict=True))[1:]:
                direct.put(mine[0], column, value, "agentic_snapshot")
            assert store.run(AGENT, "a", "snapshot").state == {"mine": "a"}
            assert [damage.version for damage in store.verify("a")] == [mine[0] % SPAN]


def is_stopped(store, version):
    """Go on with the damaged run, and see that it is refused and put aside; then work on another one."""
    with pytest.raises(JournalCorrupt) as caught:
        store.run(AGENT, KEY, "hybrid")
    assert (caught.value.stream, caught.value.version) == (KEY, version)
    assert store.runs.find(KEY).status == "quarantined"
    with pytest.raises(JournalCorrupt, match="in quarantine"):
        store.run(AGENT, KEY, "hybrid")
    with store.run(AGENT, "another") as run:
        run.emit({"fine": True})
    assert store.verify("another") == []
