"""What becomes of leases and delays where the clock of a process is ten minutes off.

The clock of PostgreSQL and of Redis is the server's: nothing becomes of them. SQLite has the clock of its host: it is one
clock for everybody, until somebody sets it.
"""

from __future__ import annotations

import clocks
import pytest
from puppet import puppet


@pytest.fixture(scope="module")
def tellers(server):
    """Processes at one store, of which the clock is right, ten minutes ahead and ten minutes behind."""
    with (
        puppet(server.url) as right,
        puppet(server.url, env=clocks.off_by("+10m")) as ahead,
        puppet(server.url, env=clocks.off_by("-10m")) as behind,
    ):
        right.ask("stats")
        yield right, ahead, behind


other_clock = pytest.mark.parametrize("server", ["postgresql", "redis"], indirect=True, scope="module")
its_own_clock = pytest.mark.parametrize("server", ["sqlite"], indirect=True, scope="module")


@other_clock
def test_a_lease_is_as_long_for_everybody(tellers):
    for number, holder in enumerate(tellers):
        box = f"lease-{number}"
        assert holder.ask("send", box=box, ids=[box]) == [True]
        assert holder.ask("receive", box=box) == [{"id": box, "attempt": 1}]
        assert [each.ask("receive", box=box) for each in tellers if each is not holder] == [[], []]
        assert holder.ask("ack", box=box) is None


@other_clock
def test_a_message_is_there_for_everybody_when_it_was_sent(tellers):
    for number, sender in enumerate(tellers):
        for other, receiver in enumerate(tellers):
            box = f"sent-{number}-{other}"
            assert sender.ask("send", box=box, ids=[box]) == [True]
            assert receiver.ask("receive", box=box) == [{"id": box, "attempt": 1}]
            assert receiver.ask("ack", box=box) is None


@its_own_clock
def test_a_clock_that_jumps_ahead_ends_leases_and_does_nothing_twice(tellers):
    before, after, _ = tellers
    assert before.ask("send", box="ahead", ids=["ahead"]) == [True]
    assert before.ask("receive", box="ahead") == [{"id": "ahead", "attempt": 1}]
    assert after.ask("receive", box="ahead") == [{"id": "ahead", "attempt": 2}]
    assert before.ask("ack", box="ahead", state={"effect": 1})["error"] == "StaleLease"
    assert after.ask("ack", box="ahead", state={"effect": 1}) is None
    assert after.ask("state", box="ahead", key="effect") == 1


@its_own_clock
def test_a_clock_that_is_set_back_makes_messages_and_leases_wait_and_loses_none(tellers):
    after, before, _ = tellers
    assert before.ask("send", box="back", ids=["held"]) == [True]
    assert before.ask("receive", box="back") == [{"id": "held", "attempt": 1}]
    assert before.ask("send", box="back", ids=["sent"]) == [True]
    # Until the clock is again where it was, both of them wait.
    assert after.ask("receive", box="back", most=2) == []
    found = after.ask("stats", box="back")
    assert (found["delayed"], found["leased"], found["expired"]) == (1, 1, 0)
    # Then they are there, for everybody.
    assert before.ask("ack", box="back") is None
    assert before.ask("receive", box="back") == [{"id": "sent", "attempt": 1}]
