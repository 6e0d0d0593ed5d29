"""When a mailbox is announced to the DAGs that watch it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.messaging import MailboxStats
from airflow_agentic.messaging.announcer import Announcer


def box(newest):
    return MailboxStats("m", ready=0 if newest is None else 1, newest_claimable=newest)


def test_new_messages_are_announced_at_once_and_a_burst_shares_one_announcement():
    announcer = Announcer(30)
    assert announcer.is_due(box(1), 0.0)
    assert not announcer.is_due(box(2), 0.5)
    assert not announcer.is_due(box(5), 0.9)
    assert announcer.is_due(box(5), 1.0)
    assert not announcer.is_due(box(5), 2.0)


def test_an_empty_mailbox_is_not_announced():
    announcer = Announcer(30)
    assert not any(announcer.is_due(box(None), t) for t in range(100))


def test_what_nobody_takes_is_announced_again_ever_more_seldom():
    announcer = Announcer(30)
    times = [t for t in range(4_000) if announcer.is_due(box(7), float(t))]
    assert times == [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330, 3930]


def test_progress_makes_the_next_reminder_quick_again():
    announcer = Announcer(30)
    assert announcer.is_due(box(1), 0.0)
    assert announcer.is_due(box(1), 30.0)
    assert not announcer.is_due(box(None), 40.0)
    assert announcer.is_due(box(2), 41.0)
    assert not announcer.is_due(box(2), 70.0)
    assert announcer.is_due(box(2), 71.0)


def test_a_message_that_comes_back_after_a_failed_attempt_is_announced_again():
    announcer = Announcer(30)
    assert announcer.is_due(box(9), 0.0)
    assert not announcer.is_due(box(None), 1.0)  # a task holds it
    assert not announcer.is_due(box(9), 20.0)  # given back
    assert announcer.is_due(box(9), 30.0)


@given(st.lists(st.one_of(st.none(), st.integers(1, 50)), min_size=1, max_size=200))
def test_whatever_waits_for_ten_minutes_has_been_announced_since(newest):
    announcer, waiting_since, announced_at = Announcer(30), None, float("-inf")
    for minute, number in enumerate(newest):
        now = minute * 60.0
        due = announcer.is_due(box(number), now)
        waiting_since = None if number is None else waiting_since if waiting_since is not None else now
        announced_at = now if due else announced_at
        if waiting_since is not None and now - waiting_since >= 600:
            assert announced_at >= now - 600
