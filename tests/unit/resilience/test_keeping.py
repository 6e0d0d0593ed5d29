from __future__ import annotations

import logging
import threading
import time

import pytest

from airflow_agentic.resilience.keeping import Keeper


@pytest.fixture
def keeper():
    return Keeper()


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


def test_what_is_kept_is_renewed_until_it_is_dropped(keeper):
    renewed = []
    keeper.keep("a", 0.01, lambda: renewed.append("a") or True)
    until(lambda: len(renewed) >= 5)
    keeper.drop("a")
    time.sleep(0.05)
    count = len(renewed)
    time.sleep(0.05)
    assert len(renewed) == count
    keeper.drop("a")


def test_what_is_there_no_longer_is_not_renewed_again(keeper):
    renewed = []
    keeper.keep("a", 0.01, lambda: renewed.append("a") and False)
    until(lambda: renewed)
    time.sleep(0.05)
    assert renewed == ["a"]


def test_one_thread_renews_all_each_in_its_time(keeper):
    renewed = []
    for name, every in (("slow", 0.2), ("quick", 0.02)):
        keeper.keep(name, every, lambda name=name: renewed.append((name, threading.current_thread())) or True)
    until(lambda: sum(name == "slow" for name, _ in renewed) >= 2)
    assert len({thread for _, thread in renewed}) == 1
    assert sum(name == "quick" for name, _ in renewed) >= 5


def test_what_takes_the_place_of_what_has_ended_is_kept(keeper):
    renewed = []

    def ends():
        keeper.keep("a", 0.01, lambda: renewed.append("second") or True)
        return False

    keeper.keep("a", 0.01, ends)
    until(lambda: len(renewed) >= 2)


def test_one_that_fails_is_said_and_harms_no_other(keeper, caplog):
    renewed = []

    def fails():
        raise RuntimeError("not now")

    with caplog.at_level(logging.ERROR):
        keeper.keep("bad", 0.01, fails)
        keeper.keep("good", 0.01, lambda: renewed.append("good") or True)
        until(lambda: len(renewed) >= 3 and len(caplog.records) >= 2)
    keeper.drop("bad")
    keeper.drop("good")
