"""What failures mean: of errors that their libraries really raise."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import httpx
import postgres
import psycopg
import pytest
import redis
import redis_server
import requests
import sqlalchemy
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_agentic.errors import (
    BudgetExceeded,
    Category,
    CircuitOpen,
    ErrorReply,
    InjectedFault,
    LimitExceeded,
    MailboxFull,
    ServiceRefused,
    ServiceThrottled,
    StoreUnavailable,
    WorkCancelled,
)
from airflow_agentic.resilience import Classifier, FailureRule, category_of
from airflow_agentic.resilience.failures import retry_after_seconds

TRANSIENT, PERMANENT, CONFIGURATION = Category.TRANSIENT, Category.PERMANENT, Category.CONFIGURATION
EXHAUSTED, CANCELLED, LATE = Category.RESOURCE_EXHAUSTION, Category.CANCELLED, Category.DEADLINE_EXCEEDED

HEALTH = {
    **dict.fromkeys((500, 502, 503, 504, 408, 425, 429, 507), True),
    **dict.fromkeys((400, 401, 403, 404, 409, 410, 422, 501), False),
}
CATEGORIES = {
    **dict.fromkeys((500, 502, 503, 504, 408, 425), TRANSIENT),
    **dict.fromkeys((429, 507), EXHAUSTED),
    **dict.fromkeys((401, 403), CONFIGURATION),
    **dict.fromkeys((400, 404, 409, 410, 422, 501), PERMANENT),
}
NOBODY = "http://127.0.0.1:9/"


def raised(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError("nothing was raised")


def araised(function):
    async def run():
        try:
            await function()
        except BaseException as error:  # noqa: BLE001
            return error
        raise AssertionError("nothing was raised")

    return asyncio.run(run())


def by_requests(url, timeout=5):
    return raised(lambda: requests.get(url, timeout=timeout).raise_for_status())


def by_httpx(url, timeout=5):
    return raised(lambda: httpx.get(url, timeout=timeout, trust_env=False).raise_for_status())


def by_aiohttp(url, timeout=5):
    async def ask():
        total = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=total) as session, session.get(url) as answer:
            answer.raise_for_status()

    return araised(ask)


CLIENTS = pytest.mark.parametrize("ask", [by_requests, by_httpx, by_aiohttp])


@CLIENTS
@pytest.mark.parametrize("status", CATEGORIES)
def test_statuses_mean_the_same_whoever_asks(httpserver, ask, status):
    httpserver.expect_request("/").respond_with_data("no", status, {"Retry-After": "7"})
    failure = Classifier().failure(ask(httpserver.url_for("/")))
    assert (failure.category, failure.status, failure.retry_after_seconds) == (CATEGORIES[status], status, 7)
    # A refusal is a sign of life.
    assert failure.is_unhealthy is HEALTH[status]


@CLIENTS
def test_nobody_there_is_transient(ask):
    failure = Classifier().failure(ask(NOBODY))
    assert (failure.category, failure.is_unhealthy) == (TRANSIENT, True)


@CLIENTS
def test_no_answer_in_time_is_late(httpserver, ask):
    httpserver.expect_request("/").respond_with_handler(lambda _: time.sleep(0.5))
    assert category_of(ask(httpserver.url_for("/"), 0.1)) is LATE


@CLIENTS
@pytest.mark.parametrize("url", ["nonsense", "gopher://example.org/"])
def test_an_address_that_is_none_is_for_somebody_to_change(ask, url):
    assert category_of(ask(url)) is CONFIGURATION


def test_what_airflows_http_hook_raises_means_what_it_wraps(httpserver):
    from airflow.providers.http.hooks.http import HttpHook

    httpserver.expect_request("/busy").respond_with_data("no", 503, {"Retry-After": "9"})
    httpserver.expect_request("/wrong").respond_with_data("no", 422)
    answers = {path: requests.get(httpserver.url_for(path), timeout=5) for path in ("/busy", "/wrong")}
    busy = Classifier().failure(raised(HttpHook().check_response, answers["/busy"]))
    assert (busy.category, busy.status, busy.retry_after_seconds) == (TRANSIENT, 503, 9)
    assert category_of(raised(HttpHook().check_response, answers["/wrong"])) is PERMANENT


def test_an_error_without_meaning_means_what_it_was_raised_from(httpserver):
    httpserver.expect_request("/").respond_with_data("no", 429)

    def wrapped(cause):
        raise RuntimeError("it did not work") from cause

    assert category_of(raised(wrapped, by_httpx(httpserver.url_for("/")))) is EXHAUSTED
    assert category_of(raised(wrapped, ValueError("what?"))) is TRANSIENT
    # What was handled before has nothing to do with it.
    try:
        raise by_httpx(httpserver.url_for("/"))
    except httpx.HTTPStatusError:
        assert category_of(raised(int, "x")) is TRANSIENT


def test_errors_of_sqlite():
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO t VALUES (1)")
        assert category_of(raised(database.execute, "INSERT INTO t VALUES (1)")) is PERMANENT
        assert category_of(raised(database.execute, "SELECT ?", ())) is PERMANENT
    database.close()


def test_errors_of_sqlalchemy(tmp_path):
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path}/a.db", pool_size=1, max_overflow=0, pool_timeout=0.05,
        poolclass=sqlalchemy.pool.QueuePool, connect_args={"timeout": 0},
    )  # fmt: skip
    with engine.begin() as held:
        held.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        held.exec_driver_sql("BEGIN IMMEDIATE")
        assert category_of(raised(engine.connect)) is EXHAUSTED
        other = sqlalchemy.create_engine(
            f"sqlite:///{tmp_path}/a.db", connect_args={"timeout": 0}, poolclass=sqlalchemy.pool.NullPool
        )
        with other.connect() as second:
            locked = raised(second.exec_driver_sql, "BEGIN IMMEDIATE")
            assert "locked" in str(locked)
            assert category_of(locked) is TRANSIENT
    with engine.begin() as held:
        held.exec_driver_sql("INSERT INTO t VALUES (1)")
    with engine.connect() as held:
        twice = raised(held.exec_driver_sql, "INSERT INTO t VALUES (1)")
        assert category_of(twice) is PERMANENT
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize(
    ("statement", "category"),
    [
        ("SELECT * FROM nowhere_at_all", PERMANENT),
        ("SELECT 1/0", PERMANENT),
        ("SELEKT", PERMANENT),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$", TRANSIENT),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$", TRANSIENT),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53300'; END $$", EXHAUSTED),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501'; END $$", CONFIGURATION),
        ("SELECT pg_terminate_backend(pg_backend_pid())", TRANSIENT),
        ("SET statement_timeout = 10; SELECT pg_sleep(5)", TRANSIENT),
    ],
)
def test_errors_of_postgresql_alone_and_through_sqlalchemy(statement, category):
    postgres.require()
    with psycopg.connect(postgres.server(), autocommit=True) as connection:
        assert category_of(raised(connection.execute, statement)) is category
    url = postgres.server().replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        assert category_of(raised(connection.exec_driver_sql, statement)) is category
        connection.invalidate()


def test_a_database_that_cannot_be_reached_is_transient():
    gone = "host=127.0.0.1 port=9 connect_timeout=1"
    assert category_of(raised(psycopg.connect, gone)) is TRANSIENT


def test_errors_of_redis(tmp_path):
    with redis_server.private(tmp_path, "--maxmemory", "1mb", "--requirepass", "open-sesame") as server:
        stranger = redis.Redis(port=server.port)
        assert category_of(raised(stranger.get, "a")) is CONFIGURATION
        stranger.close()
        with redis.Redis(port=server.port, password="open-sesame") as client:
            full = raised(lambda: [client.set(f"k{n}", "x" * 100_000) for n in range(100)])
            assert category_of(full) is EXHAUSTED
            client.config_set("maxmemory", 0)
            client.set("text", "a")
            assert category_of(raised(client.lpush, "text", 1)) is PERMANENT
        slow = redis.Redis(port=server.port, password="open-sesame", socket_timeout=0.1, retry=None)
        assert category_of(raised(slow.blpop, "nothing", 5)) is LATE
        slow.close()
    assert category_of(raised(redis.Redis(port=server.port).ping)) is TRANSIENT


def test_errors_of_airflow():
    from airflow.sdk import exceptions as sdk

    assert category_of(sdk.AirflowFailException("no")) is PERMANENT
    assert category_of(sdk.AirflowNotFoundException("no conn")) is CONFIGURATION
    assert category_of(sdk.AirflowTaskTimeout("late")) is LATE
    assert category_of(sdk.AirflowException("?")) is TRANSIENT


def test_errors_of_asyncio():
    async def cancel():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async def late():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(1)

    assert category_of(araised(late)) is LATE
    assert category_of(araised(lambda: asyncio.wait_for(asyncio.sleep(1), 0.01))) is LATE

    async def told():
        task = asyncio.create_task(cancel())
        await asyncio.wait([task])
        return raised(task.result)

    assert category_of(asyncio.run(told())) is CANCELLED
    future = Future()
    future.cancel()
    assert category_of(raised(future.result)) is CANCELLED


@pytest.mark.parametrize(
    ("error", "category", "unhealthy"),
    [
        (KeyboardInterrupt(), CANCELLED, None),
        (SystemExit(1), CANCELLED, None),
        (WorkCancelled("stop"), CANCELLED, None),
        (OSError(28, "no space"), EXHAUSTED, True),
        (ConnectionResetError(), TRANSIENT, True),
        (MemoryError(), EXHAUSTED, True),
        (ModuleNotFoundError("x"), CONFIGURATION, None),
        (ZeroDivisionError(), TRANSIENT, True),
        (CircuitOpen("open"), TRANSIENT, None),
        (LimitExceeded("full"), EXHAUSTED, None),
        (BudgetExceeded("spent"), EXHAUSTED, None),
        (MailboxFull("full"), EXHAUSTED, True),
        (StoreUnavailable("gone"), TRANSIENT, True),
        (ServiceThrottled("busy", 429, 3.0), EXHAUSTED, True),
        (ServiceRefused("no", 400), PERMANENT, False),
        (ErrorReply("no", "resource_exhaustion"), EXHAUSTED, True),
        (InjectedFault("made", "deadline_exceeded"), LATE, True),
    ],
)
def test_errors_of_python_and_our_own(error, category, unhealthy):
    failure = Classifier().failure(error)
    assert (failure.category, failure.is_unhealthy) == (category, unhealthy)


def test_a_guard_that_refuses_says_when_to_come_back():
    at = datetime.now(UTC) + timedelta(seconds=30)
    failure = Classifier().failure(CircuitOpen("open", "conn:x", at))
    assert 29 < failure.retry_after_seconds <= 30
    assert not failure.begun


def test_the_first_rule_that_fits_decides(httpserver):
    httpserver.expect_request("/").respond_with_data("no", 404)
    error = by_httpx(httpserver.url_for("/"))
    rules = [
        FailureRule(error="OSError", category="cancelled"),
        FailureRule(error="httpx:HTTPStatusError", status=(5,), category="cancelled"),
        FailureRule(status=(4,), contains="404", category="transient", retry_after_seconds=60),
        FailureRule(error="Exception", category="cancelled"),
    ]
    failure = Classifier(rules).failure(error)
    assert (failure.category, failure.status, failure.retry_after_seconds) == (TRANSIENT, 404, 60)
    assert Classifier(rules).failure(KeyError("x")).category is CANCELLED


def test_a_rule_may_say_what_an_error_of_ones_own_means():
    class ThrottledError(Exception):
        pass

    class VeryThrottledError(ThrottledError):
        pass

    name = f"{ThrottledError.__module__}:ThrottledError"
    rules = Classifier([FailureRule(error=name, category="resource_exhaustion")])
    assert rules.failure(VeryThrottledError()).category is EXHAUSTED
    assert rules.failure(ValueError()).category is TRANSIENT


NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 1.5 ", 1.5),
        ("0", 0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Tue, 01 Jan 2030 01:00:00 +0100", 0),
        ("Tuesday, 01-Jan-30 00:00:30 GMT", 30),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
        ("9" * 400, 31 * 86_400),
    ],
)
def test_both_forms_of_retry_after_are_read(header, seconds):
    assert retry_after_seconds(header, NOW) == seconds


@given(
    st.text() | st.from_regex(r"(Mon, )?\d+ [A-Z][a-z]{2} \d+ \d+:\d+(:\d+)? ?[A-Z+0-9-]*", fullmatch=True)
)
@example("Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
@example("Wed, 21 Oct 2026 07:28:00 -9999")
def test_no_header_breaks_anything(text):
    found = retry_after_seconds(text)
    assert found is None or 0 <= found <= 31 * 86_400


def test_an_error_with_a_property_that_fails_is_an_error_like_others():
    class OddError(Exception):
        @property
        def status_code(self):
            raise RuntimeError("not now")

        response = headers = threading.Lock()

    assert category_of(OddError()) is TRANSIENT
