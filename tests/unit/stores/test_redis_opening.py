"""How a store on Redis is opened, and what is said of a server that is not fit to be one."""

from __future__ import annotations

import logging
import socket
import sys
import threading

import pytest
import redis_server

from airflow_agentic.errors import InvalidOption, SchemaTooNew, StoreError, StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store


@pytest.fixture
def prefix():
    with redis_server.prefix() as name:
        yield name


@pytest.fixture
def store(prefix):
    with open_store(redis_server.url_of(prefix)) as opened:
        yield opened


@pytest.fixture
def direct(prefix):
    with redis_server.client() as client:
        yield client


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    with redis_server.private(tmp_path_factory.mktemp("redis")) as server:
        yield server


def message(data=None):
    return Message(source="test", recipient="box", data=data)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("redis://", "names no server"),
            ("redis:///0", "names no server"),
            ("redis://host:0", "names no server"),
            ("redis://host#x", "names no server"),
            ("redis://host:port/0", "cannot be read"),
            ("redis://host/zero", "is no number"),
            ("redis://host/0/1", "is no number"),
            ("redis://host?prefx=a", "unknown option 'prefx': did you mean 'prefix'?"),
            ("redis://host?socket=a", "unknown option 'socket': known are prefix, timeout"),
            ("redis://host?ssl_ca_certs=a", "unknown option 'ssl_ca_certs'"),
            ("redis://host?prefix=", "prefix of the store URL is ''"),
            ("redis://host?prefix=a%20b", "prefix of the store URL is 'a b'"),
            ("redis://host?timeout=soon", "timeout of the store URL is 'soon'"),
            ("redis://host?timeout=0", "timeout of the store URL is '0'"),
            ("redis://host?timeout=inf", "timeout of the store URL is 'inf'"),
        ],
    )
    def test_a_url_that_cannot_be_used_is_refused_with_what_is_wrong(self, url, text):
        with pytest.raises(InvalidOption) as caught:
            open_store(url)
        assert text in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hunter2@",
            "redis://user:hunter2@host:hunter2/0",
            "redis://user:hunter2@host/zero",
            "redis://user:hunter2@host?password=hunter2",
            "redis://user:hunter2@127.0.0.1:1/0",
            "rediss://user:hunter2@127.0.0.1:1/0",
        ],
    )
    def test_a_password_is_not_repeated(self, url):
        with pytest.raises((InvalidOption, StoreUnavailable)) as caught:
            open_store(url)
        seen = [caught.value, caught.value.__cause__, caught.value.__context__ or ""]
        assert "hunter2" not in " ".join(map(str, seen))

    def test_a_certificate_that_is_not_there_is_told(self):
        with pytest.raises(StoreError, match="rediss://127"):
            open_store("rediss://127.0.0.1:6379/0?ssl_ca_certs=/nowhere.pem")

    def test_without_the_driver_it_says_how_to_get_it(self, monkeypatch):
        for name in list(sys.modules):
            if name.startswith("airflow_agentic.stores.redis."):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(InvalidOption, match=r"pip install 'airflow-provider-agentic\[redis\]'"):
            open_store("redis://127.0.0.1:6379/0")


class TestOpening:
    def test_a_store_that_is_opened_again_keeps_what_it_was_given(self, prefix, store):
        store.bus.send(message("kept"))
        store.close()
        with open_store(redis_server.url_of(prefix)) as again:
            assert [each.message.data for each in again.bus.receive("box")] == ["kept"]

    def test_stores_with_different_prefixes_know_nothing_of_each_other(self, store):
        with redis_server.prefix() as other, open_store(redis_server.url_of(other)) as theirs:
            store.bus.send(message("mine"))
            assert theirs.bus.mailboxes() == []

    def test_a_probe_names_the_versions_and_leaves_no_trace(self, prefix, store, direct):
        store.bus.send(message())
        before = {key: direct.dump(key) for key in direct.keys(f"{prefix}:*")}
        version = direct.info("server")["redis_version"]
        assert store.probe() == f"redis {version}, schema 1"
        assert {key: direct.dump(key) for key in direct.keys(f"{prefix}:*")} == before

    @pytest.mark.parametrize("schema", ["2", "100", "of mine"])
    def test_a_store_of_a_newer_version_is_refused(self, prefix, direct, schema):
        direct.set(f"{prefix}:schema", schema)
        with pytest.raises(SchemaTooNew, match=rf"schema {schema}, this version knows up to 1"):
            open_store(redis_server.url_of(prefix))

    @pytest.mark.parametrize(
        ("answer", "version"),
        [
            (b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.2.7\r\n", "6.2.7"),
            (b"-ERR unknown command `HELLO`, with args beginning with: \r\n", "5.0 or older"),
        ],
    )
    def test_a_server_that_is_too_old_is_refused_with_its_version(self, answer, version):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve():
                connection, _ = listening.accept()
                with connection:
                    while asked := connection.recv(4096):
                        # The driver introduces itself, twice in one packet or in two.
                        connection.sendall(answer if b"HELLO" in asked else b"+OK\r\n" * asked.count(b"*4"))

            serving = threading.Thread(target=serve)
            serving.start()
            with pytest.raises(StoreError, match=rf"runs Redis {version}; it takes 7.0 or newer"):
                open_store(f"redis://127.0.0.1:{listening.getsockname()[1]}/0?timeout=5")
            serving.join()


class TestDurability:
    @pytest.fixture
    def warned(self, private, caplog):
        """Open the store on a server that is set so, and return what was logged."""

        def warned(**settings):
            with redis_server.client(private.url) as client:
                for name, value in {"appendonly": "yes", "appendfsync": "always", **settings}.items():
                    client.config_set(name.replace("_", "-"), value)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                open_store(f"{private.url}?prefix=durable").close()
            return [record.getMessage() for record in caplog.records]

        yield warned
        with redis_server.client(private.url) as client:
            client.config_set("appendonly", "yes", "appendfsync", "always", "maxmemory-policy", "noeviction")

    def test_a_server_that_writes_before_it_answers_is_fine(self, warned):
        assert warned() == []

    @pytest.mark.parametrize("setting", ["everysec", "no"])
    def test_a_server_that_writes_later_is_warned_of_once(self, warned, setting):
        [text] = warned(appendfsync=setting)
        assert "may lose about a second of messages (set appendfsync always)" in text

    def test_a_server_that_does_not_write_is_warned_of_once(self, warned):
        [text] = warned(appendonly="no")
        assert "may lose all messages since its last snapshot" in text

    def test_a_server_that_drops_what_it_has_no_room_for_is_warned_of(self, warned):
        [text] = warned(appendfsync="everysec", maxmemory_policy="allkeys-lru")
        assert "about a second" in text
        assert "maxmemory-policy is allkeys-lru: set noeviction" in text
