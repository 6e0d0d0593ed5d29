"""Who is let go in the triggerer when a breaker is half open: as many as there are probes, and the others in time."""

from __future__ import annotations

import asyncio

import pytest

from airflow_agentic.errors import ServiceError
from airflow_agentic.resilience import Breaker, Policy
from airflow_agentic.triggers import resilience
from airflow_agentic.triggers.resilience import AdmissionTrigger

KEY = "conn:half"
POLICY = Policy(breaker=Breaker(minimum_calls=2, window_size=2, open_seconds=0.5, half_open_calls=2))


@pytest.fixture(autouse=True)
def nobody_went():
    AdmissionTrigger._probing.clear()


def fail():
    raise ServiceError("down")


async def waiting(count):
    async def wait():
        async for event in AdmissionTrigger(None, KEY).run():
            return event.payload
        return None

    return [asyncio.create_task(wait()) for _ in range(count)]


def opened(store):
    guard = store.guard(POLICY, KEY)
    for _ in range(2):
        with pytest.raises(ServiceError):
            guard.call(fail)
    return guard


def test_so_many_go_as_there_are_probes_and_all_when_it_has_closed(store):
    guard = opened(store)

    async def watch():
        tasks = await waiting(6)
        await asyncio.sleep(2.5)
        went = sum(task.done() for task in tasks)
        for _ in range(2):
            await guard.acall(asyncio.sleep, 0)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        return went

    assert asyncio.run(watch()) == 2


def test_when_those_that_went_have_died_others_go(store, monkeypatch):
    opened(store)
    monkeypatch.setattr(resilience, "_ON_THE_WAY_SECONDS", 1.0)

    async def watch():
        tasks = await waiting(4)
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

    asyncio.run(watch())


def test_what_it_carries_comes_with_the_event(store):
    async def watch():
        async for event in AdmissionTrigger(None, KEY, carried={"rounds": 3}).run():
            return event.payload
        return None

    assert asyncio.run(watch()) == {"waited_for": KEY, "carried": {"rounds": 3}}
