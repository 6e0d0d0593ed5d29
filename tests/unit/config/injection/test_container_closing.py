from __future__ import annotations

import contextlib
import gc
import logging
from contextlib import AbstractContextManager
from typing import Any

import pytest
from wiring import Cache, assert_runs, logged, want

from airflow_agentic.config.injection.container import Provider, Services
from airflow_agentic.errors import LifecycleError


class Connection(AbstractContextManager):
    def __init__(self, log, fails=False):
        self.log, self.fails = log, fails

    def __enter__(self):
        self.log.append("+connection")
        if self.fails:
            raise ZeroDivisionError
        return self

    def __exit__(self, *exc):
        self.log.append("-connection")


class Both(Connection):
    async def __aenter__(self):
        raise AssertionError

    async def __aexit__(self, *exc):
        raise AssertionError


def failing(name, log, error):
    def factory():
        log.append(f"+{name}")
        yield name
        log.append(f"!{name}")
        raise error

    return Provider(name, factory)


class TestClosing:
    def test_scopes_close_in_reverse_order_and_the_process_after_the_runs(self):
        log = []
        services = Services(
            [
                logged("a", log, "process"),
                logged("b", log, "process", ["a"]),
                logged("c", log, needs=["a"]),
                logged("d", log, needs=["c", "b"]),
            ]
        )
        for _ in range(2):
            with services.open({}) as scope:
                scope.supply(want("d"))
        services.close()
        assert log == ["+a", "+c", "+b", "+d", "-d", "-c", "+c", "+d", "-d", "-c", "-b", "-a"]

    def test_closing_twice_closes_once(self):
        log = []
        services = Services([logged("a", log), logged("b", log, "process")])
        scope = services.open({})
        scope.supply(want("a", "b"))
        for _ in range(2):
            scope.close()
            services.close()
        assert log == ["+a", "+b", "-a", "-b"]

    def test_a_closed_scope_builds_nothing(self):
        log = []
        services = Services([logged("a", log), logged("b", log, "process")])
        scope = services.open({})
        services.close()
        with (
            services.open({}),
            pytest.raises(LifecycleError, match="needs service 'b', and its scope is closed"),
        ):
            scope.get(Any, "b")
        scope.close()
        with pytest.raises(LifecycleError, match="the caller asks a scope that is closed"):
            scope.get(Any, "a")
        assert log == []

    def test_services_can_be_used_again_after_closing(self):
        log = []
        services = Services([logged("a", log, "process")])
        for _ in range(2):
            with services.open({}) as scope:
                scope.get(Any, "a")
            services.close()
        assert log == ["+a", "-a", "+a", "-a"]

    def test_they_are_closed_when_the_body_failed_and_its_error_is_the_one(self):
        log = []
        services = Services([logged("a", log), logged("b", log)])
        with pytest.raises(ZeroDivisionError), services.open({}) as scope:  # noqa: PT012
            scope.supply(want("a", "b"))
            raise ZeroDivisionError
        assert log == ["+a", "+b", "-b", "-a"]

    def test_they_are_closed_when_a_factory_fails_in_the_middle(self):
        log = []

        def fails():
            log.append("+fails")
            raise ZeroDivisionError

        def fails_as_generator():
            fails()
            yield

        for factory in (fails, fails_as_generator):
            log.clear()
            services = Services([logged("a", log), logged("b", log), Provider("c", factory)])
            with pytest.raises(ZeroDivisionError) as caught, services.open({}) as scope:
                scope.supply(want("a", "b", "c"))
            assert log == ["+a", "+b", "+fails", "-b", "-a"]
            assert len(caught.value.__notes__) == 1

    def test_they_are_closed_when_one_fails_to_close_which_is_logged(self, caplog):
        log = []
        services = Services([logged("a", log), failing("b", log, ZeroDivisionError("no")), logged("c", log)])
        with caplog.at_level(logging.WARNING), services.open({}) as scope:
            scope.supply(want("a", "b", "c"))
        assert log == ["+a", "+b", "+c", "-c", "!b", "-a"]
        (record,) = caplog.records
        assert "clean up failed for" in record.getMessage()
        assert "'b'" in record.getMessage()
        assert record.exc_info[0] is ZeroDivisionError

    def test_they_are_closed_when_closing_is_interrupted(self):
        log = []
        services = Services(
            [
                logged("a", log),
                failing("b", log, KeyboardInterrupt()),
                failing("c", log, SystemExit()),
                logged("d", log),
            ]
        )
        with pytest.raises((KeyboardInterrupt, SystemExit)), services.open({}) as scope:
            scope.supply(want("a", "b", "c", "d"))
        assert log == ["+a", "+b", "+c", "+d", "-d", "!c", "!b", "-a"]

    def test_what_is_a_context_manager_is_entered_and_exited(self):
        log = []
        managed = contextlib.contextmanager(logged("managed", log).factory)
        services = Services([Provider("a", lambda: Connection(log)), Provider("b", managed)])
        with services.open({}) as scope:
            assert type(scope.get(Any, "a")) is Connection
            assert scope.get(Any, "b") == "managed"
        assert log == ["+connection", "+managed", "-managed", "-connection"]

    def test_what_is_an_async_context_manager_too_is_entered_as_the_other(self):
        log = []
        with Services([Provider("a", lambda: Both(log))]).open({}) as scope:
            scope.get(Any, "a")
        assert log == ["+connection", "-connection"]

    def test_what_failed_to_enter_is_not_exited(self):
        log = []
        services = Services([logged("a", log), Provider("b", lambda: Connection(log, fails=True))])
        with pytest.raises(ZeroDivisionError) as caught, services.open({}) as scope:
            scope.supply(want("a", "b"))
        assert log == ["+a", "+connection", "-a"]
        assert caught.value.__notes__[0].startswith("while building service 'b' for the caller")

    def test_given_values_and_overrides_are_not_entered(self):
        log = []
        services = Services([Provider("a", Cache)], given=[Connection]).with_overrides({"a": Connection(log)})
        with services.open({Connection: Connection(log)}) as scope:
            scope.get(Connection)
            scope.get(Any, "a")
        assert log == []

    def test_a_scope_that_nobody_closed_is_warned_of(self):
        services = Services([logged("a", [])])
        with pytest.warns(ResourceWarning, match="pending cleanups"):
            self.forget(services)

    @staticmethod
    def forget(services):
        services.open({}).get(Any, "a")
        gc.collect()

    def test_what_has_process_scope_is_closed_when_python_exits(self):
        out = assert_runs("""
            def make():
                yield X()
                print("closed")
            services = Services([Provider("x", make, scope="process", provides=X)])
            services.open({}).get(X)
            del services
            print("end")
        """)
        assert out.split() == ["end", "closed"]

    def test_a_fork_builds_its_own_and_leaves_that_of_its_parent_to_it(self):
        out = assert_runs("""
            def make():
                yield os.getpid()
                print("closed in", "parent" if os.getpid() == parent else "child", flush=True)
            parent = os.getpid()
            services = Services([Provider("x", make, scope="process")])
            assert services.open({}).get(object, "x") == parent
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0
            else:
                assert services.open({}).get(object, "x") == os.getpid()
                services.close()
        """)
        assert out.splitlines() == ["closed in child", "closed in parent"]

    def test_a_fork_that_builds_nothing_closes_nothing(self):
        out = assert_runs("""
            def make():
                yield os.getpid()
                print("closed in", "parent" if os.getpid() == parent else "child", flush=True)
            parent = os.getpid()
            services = Services([Provider("x", make, scope="process")])
            services.open({}).get(object, "x")
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0
        """)
        assert out.splitlines() == ["closed in parent"]
