from __future__ import annotations

import contextvars
import threading
import time

import pytest

from airflow_agentic.errors import DeadlineExceeded, WorkCancelled
from airflow_agentic.resilience import check, deadline, deadlines, remaining


def test_without_one_there_is_no_hurry():
    assert remaining() is None
    assert deadlines.ends_at() is None
    check()


def test_of_nested_ones_the_earliest_counts():
    with deadline(50):
        with deadline(100):
            assert remaining() <= 50
        with deadline(5):
            assert remaining() <= 5
        assert 5 < remaining() <= 50
    assert remaining() is None


def test_when_it_has_passed_the_work_is_told_to_stop():
    with deadline(0.01):
        check()
        time.sleep(0.02)
        assert remaining() == 0
        with pytest.raises(DeadlineExceeded, match="has passed"):
            check()


def test_nobody_waits_for_what_would_come_too_late():
    began = time.monotonic()
    with deadline(1), pytest.raises(DeadlineExceeded, match=r"before 5 s of waiting end"):
        deadlines.pause(5)
    assert time.monotonic() - began < 0.5


def test_who_waits_is_woken_when_the_work_is_cancelled():
    with deadline() as mine:
        assert remaining() is None
        threading.Timer(0.05, mine.cancel, ["the task was cleared"]).start()
        began = time.monotonic()
        with pytest.raises(WorkCancelled, match="the task was cleared"):
            deadlines.pause(20)
        assert time.monotonic() - began < 5


def test_what_is_nested_is_cancelled_with_what_is_around_it():
    with deadline(10) as outer, deadline(5):
        outer.cancel("no longer wanted")
        with pytest.raises(WorkCancelled, match="no longer wanted"):
            check()


def test_it_goes_with_the_context_into_another_thread():
    seen = []
    with deadline(10):
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: seen.append(remaining()),))
    thread.start()
    thread.join()
    assert 0 < seen[0] <= 10
