"""A disk, or a memory, without room: what cannot be kept is refused, what was kept is kept, and it goes on with room."""

from __future__ import annotations

import os
import resource

import clusters
import disks
import pytest
import redis_server
import servers
from puppet import puppet

from airflow_agentic.errors import StoreError, StoreNotWritable, StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store

SIZE = 8_000
"""Of a message, in bytes."""


def sent_until_refused(bus):
    """Send until there is no room; return the ids of what was sent, and what was said then."""
    sent = []
    try:
        while True:
            # Of random digits, so that no server makes it small.
            data = os.urandom(SIZE // 2).hex()
            bus.send(Message(source="here", recipient="box", id=f"id-{len(sent)}", data=data))
            sent.append(f"id-{len(sent)}")
    except StoreError as error:
        return sent, error


@pytest.fixture(params=["small disk", "limited file"])
def small(request, tmp_path):
    """A process with a SQLite store that can be left without room, and how; and what is said then."""
    folder = tmp_path / "small"
    folder.mkdir()
    url = f"sqlite:///{folder}/agentic.db"
    if request.param == "limited file":
        # The system says something else then, but it also writes no byte more.
        with puppet(url) as there:
            room = (lambda: there.ask("limit", size=600_000)), (lambda: there.ask("limit", size=-1))
            yield there, *room, ("StoreUnavailable", "I/O error")
        return
    if reason := disks.refusal():
        pytest.skip(f"no disk can be mounted here, the limited file must do: {reason}")
    with puppet(url, inside=disks.inside(folder, "8m")) as there:
        ballast = str(folder / "ballast")
        room = (lambda: there.ask("fill", path=ballast)), (lambda: there.ask("make_room", path=ballast))
        yield there, *room, ("StoreNotWritable", "Make room on the disk")


def test_sqlite_refuses_what_has_no_room_and_keeps_the_rest(small):
    there, fill, make_room, (error, text) = small
    sent = []
    assert there.ask("send", ids=["before"]) == [True]
    fill()
    for number in range(1_000):
        answer = there.ask("send", ids=[f"id-{number}"], size=SIZE)
        if answer != [True]:
            break
        sent.append(f"id-{number}")
    assert answer["error"] == error
    assert text in answer["text"]
    # Nothing of what was refused is there, and all of the rest.
    assert there.ask("stats")["ready"] == len(sent) + 1
    make_room()
    # The one that was refused was not sent, and can be.
    assert there.ask("send", ids=[f"id-{len(sent)}"], size=SIZE) == [True]
    received = there.ask("receive", most=2_000)
    assert [each["id"] for each in received] == ["before", *sent, f"id-{len(sent)}"]
    assert there.ask("ack") is None
    assert there.ask("stats")["done"] == len(sent) + 2


def test_an_ack_that_has_no_room_can_be_repeated_when_there_is_some(small):
    there, fill, make_room, (error, text) = small
    ids = [f"id-{number}" for number in range(400)]
    assert there.ask("send", ids=ids) == [True] * len(ids)
    assert len(there.ask("receive", most=len(ids))) == len(ids)
    fill()
    effect = {"effect": "x" * 1_000_000}
    answer = there.ask("ack", state=effect)
    assert (answer["error"], text in answer["text"]) == (error, True)
    make_room()
    assert there.ask("state", key="effect") == 0
    assert there.ask("stats")["leased"] == len(ids)
    assert there.ask("ack", state=effect) is None
    assert there.ask("stats")["done"] == len(ids)


@pytest.fixture
def tablespace(tmp_path):
    """A server with a small disk for its tables, seen from outside."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a disk for a server that must not be root")
    if reason := disks.refusal():
        pytest.skip(f"no disk can be mounted here: {reason}")
    with clusters.private(small_disk="12m") as cluster:
        yield cluster


def test_postgresql_refuses_what_has_no_room_and_keeps_the_rest(tablespace):
    url = f"{tablespace.url}&options=-cdefault_tablespace%3Dsmall"
    with open_store(url) as store:
        sent, error = sent_until_refused(store.bus)
        assert isinstance(error, StoreNotWritable)
        assert "Make room on the server's disk" in str(error)
        assert len(sent) > 100
        assert store.bus.stats("box").ready == len(sent)
        tablespace.make_room()
        store.bus.send(Message(source="here", recipient="box", id=f"id-{len(sent)}"))
        received = store.bus.receive("box", max_messages=5_000)
        assert [each.message.id for each in received] == [*sent, f"id-{len(sent)}"]
        store.bus.ack(*received)
        assert store.bus.stats("box").done == len(sent) + 1


def test_redis_refuses_what_its_memory_has_no_room_for_and_keeps_the_rest(tmp_path):
    with servers.of_kind("redis", tmp_path) as server, open_store(server.url) as store:
        with redis_server.client(server.url) as direct:
            direct.config_set("maxmemory", direct.info("memory")["used_memory"] + 1_000_000)
        sent, error = sent_until_refused(store.bus)
        assert isinstance(error, StoreNotWritable)
        assert "memory is full" in str(error)
        assert len(sent) > 20
        with redis_server.client(server.url) as direct:
            direct.config_set("maxmemory", 0)
        store.bus.send(Message(source="here", recipient="box", id=f"id-{len(sent)}"))
        received = store.bus.receive("box", max_messages=5_000)
        assert [each.message.id for each in received] == [*sent, f"id-{len(sent)}"]


def test_redis_ends_when_it_cannot_write_its_log_and_has_what_it_acknowledged_when_it_is_back(tmp_path):
    with servers.of_kind("redis", tmp_path) as server, open_store(server.url) as store:
        resource.prlimit(server.private.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        sent, error = sent_until_refused(store.bus)
        assert isinstance(error, StoreUnavailable)
        assert len(sent) > 20
        server.restart()
        store.bus.send(Message(source="here", recipient="box", id=f"id-{len(sent)}"))
        received = store.bus.receive("box", max_messages=5_000)
        assert [each.message.id for each in received] == [*sent, f"id-{len(sent)}"]
