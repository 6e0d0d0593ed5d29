from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path

import clocked
import postgres
import pytest

from airflow_agentic.errors import InvalidOption, StoreError, StoreNotWritable, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store

NOBODY = 65534


def url_of(path):
    return f"sqlite:///{path}"


def note():
    return Message(source="test", recipient="box", data="kept")


class TestAnyStore:
    @pytest.fixture(params=clocked.STORES)
    def url(self, request, tmp_path):
        if request.param == "postgresql":
            with postgres.schema() as name:
                yield postgres.url_of(name)
        else:
            yield "memory://" if request.param == "memory" else url_of(tmp_path / "agentic.db")

    def test_it_holds_messages_and_agents(self, url):
        with open_store(url) as store:
            assert store.bus.send(note())
            assert store.bus.stats("box").ready == 1
            assert list(store.agents.list()) == []

    def test_its_bus_has_the_options_and_the_owner_it_was_opened_with(self, url):
        options = BusOptions(max_attempts=1)
        with open_store(url, options=options, owner="me:1") as store:
            store.bus.send(note())
            [delivery] = store.bus.receive("box")
            assert delivery.max_attempts == 1
            assert store.bus.options is options
            assert store.bus.find(DeliveryQuery())[0].owner == "me:1"

    def test_it_can_be_probed(self, url):
        with open_store(url) as store:
            assert store.probe()

    def test_its_url_is_that_it_was_opened_with(self, url):
        with open_store(url) as store:
            assert store.url == url


class TestSqlite:
    def test_a_new_file_gets_its_schema_and_keeps_what_it_was_given(self, tmp_path):
        with open_store(url_of(tmp_path / "new.db")) as store:
            store.bus.send(note())
        with open_store(url_of(tmp_path / "new.db")) as store:
            [delivery] = store.bus.receive("box")
            assert delivery.message.data == "kept"

    def test_an_empty_file_counts_as_new(self, tmp_path):
        (tmp_path / "empty.db").touch()
        with open_store(url_of(tmp_path / "empty.db")) as store:
            assert store.bus.send(note())

    def test_a_probe_leaves_no_trace(self, tmp_path):
        with open_store(url_of(tmp_path / "a.db")) as store:
            store.bus.send(note())
            before = store.bus.find(DeliveryQuery())
            store.probe()
            assert store.bus.find(DeliveryQuery()) == before

    def test_a_path_may_have_blanks_and_letters_of_any_language(self, tmp_path):
        folder = tmp_path / "mein ördner"
        folder.mkdir()
        with open_store(url_of(folder / "störe 1.db")) as store:
            assert store.bus.send(note())
        assert (folder / "störe 1.db").exists()

    def test_a_file_that_is_no_database_is_named_and_left_alone(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("These are notes, and not a database. " * 100)
        with pytest.raises(StoreUnavailable, match=r"notes\.txt is not a store"):
            open_store(url_of(path))
        assert path.read_text().startswith("These are notes")

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(StoreUnavailable, match=r"the directory .*/missing does not exist"):
            open_store(url_of(tmp_path / "missing" / "agentic.db"))
        assert not (tmp_path / "missing").exists()

    def test_a_directory_is_no_store(self, tmp_path):
        with pytest.raises(StoreUnavailable, match="unable to open"):
            open_store(url_of(tmp_path))

    def test_a_database_of_somebody_else_keeps_its_tables(self, tmp_path):
        with sqlite3.connect(tmp_path / "theirs.db") as theirs:
            theirs.execute("CREATE TABLE precious (value)")
            theirs.execute("INSERT INTO precious VALUES (42)")
        theirs.close()
        with open_store(url_of(tmp_path / "theirs.db")) as store:
            assert store.bus.send(note())
        with sqlite3.connect(tmp_path / "theirs.db") as theirs:
            assert theirs.execute("SELECT value FROM precious").fetchall() == [(42,)]
        theirs.close()


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("", "no store of kind ''"),
            ("agentic.db", "no store of kind ''"),
            ("/var/lib/agentic.db", "no store of kind ''"),
            ("postgres://host/db", "no store of kind 'postgres'"),
            ("valkey://host", "no store of kind 'valkey'"),
            ("sqlite://", "names no file"),
            ("sqlite:///", "names no file"),
            ("sqlite:///:memory:", "names no file"),
            ("sqlite://relative.db", "names no file"),
            ("sqlite:agentic.db", "cannot be read"),
        ],
    )
    def test_a_url_that_is_no_store_is_refused_with_the_right_form(self, url, text):
        with pytest.raises(InvalidOption, match=text) as caught:
            open_store(url)
        assert "sqlite:////absolute/path/agentic.db" in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql+asyncpg://user:hunter2@host/db",
            "postgresql://user:hunter2@host",
            "postgresql://user:hunter2@host:port/db",
            "mysql://host/db?password=hunter2",
            "sqlite://user:hunter2@host/agentic.db",
            "sqlite:user:hunter2@host",
            "user:hunter2@host/db",
        ],
    )
    def test_a_password_in_a_refused_url_is_not_repeated(self, url):
        with pytest.raises(InvalidOption) as caught:
            open_store(url)
        seen = [caught.value, caught.value.__cause__, caught.value.__context__ or ""]
        assert "hunter2" not in " ".join(map(str, seen))


def as_nobody(call):
    """Run ``call`` as a user without rights and return its text; root may do anything."""
    if os.geteuid() != 0:
        return call()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  # its coverage cannot be collected
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            text = call()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is shown
            text = f"unexpected {error!r}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def refusal(url):
    def call():
        try:
            with open_store(url) as store:
                return f"opened, and sent: {store.bus.send(note())}"
        except StoreError as error:
            return f"{type(error).__name__}: {error}"

    return call


class TestRights:
    @pytest.fixture
    def folder(self):
        # Not tmp_path: only its owner may enter that.
        folder = Path(tempfile.mkdtemp(prefix="agentic-rights-"))
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o700)
        shutil.rmtree(folder)

    @pytest.fixture
    def path(self, folder):
        path = folder / "agentic.db"
        open_store(url_of(path)).close()
        path.chmod(0o666)
        return path

    def test_with_all_rights_it_can_be_used(self, path):
        assert as_nobody(refusal(url_of(path))) == "opened, and sent: True"

    def test_a_file_that_cannot_be_written_is_refused_when_it_is_opened(self, path):
        path.chmod(0o444)
        text = as_nobody(refusal(url_of(path)))
        assert text.startswith("StoreNotWritable:")
        assert f"the store {path} cannot be written" in text

    def test_a_file_that_cannot_be_written_is_refused_also_while_others_use_it(self, path):
        with open_store(url_of(path)) as store:
            store.bus.send(note())
            for beside in path.parent.iterdir():
                beside.chmod(0o444)
            assert as_nobody(refusal(url_of(path))).startswith("StoreNotWritable:")

    def test_a_directory_that_cannot_be_written_is_refused(self, path):
        path.parent.chmod(0o555)
        text = as_nobody(refusal(url_of(path)))
        assert text.startswith("StoreNotWritable:")
        assert "its directory" in text

    def test_a_new_file_in_a_directory_that_cannot_be_written_is_refused(self, folder):
        folder.chmod(0o555)
        assert as_nobody(refusal(url_of(folder / "new.db"))).startswith("StoreNotWritable:")

    def test_a_directory_that_cannot_be_entered_is_named(self, path):
        path.parent.chmod(stat.S_IRUSR | stat.S_IWUSR)
        text = as_nobody(refusal(url_of(path)))
        assert text.startswith("StoreUnavailable:")
        assert str(path.parent) in text

    def test_rights_that_are_taken_away_later_are_told_when_something_is_sent(self, tmp_path):
        with open_store(url_of(tmp_path / "a.db")) as store:
            store.agents._db.execute("PRAGMA query_only=ON")
            with pytest.raises(StoreNotWritable, match="cannot be written"):
                store.bus.send(note())
            with pytest.raises(StoreNotWritable, match="cannot be written"):
                store.probe()
