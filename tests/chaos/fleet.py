"""Processes that go through guards of one store at the same time: ``python fleet.py URL WHAT SETTINGS``.

Prints what each of them saw, as a list in JSON. With ``hold`` it is one process that holds what it was given until it is
killed, and says so.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from airflow_agentic.errors import NotAdmitted, ServiceError
from airflow_agentic.resilience import Policy, spend
from airflow_agentic.stores import open_store

if TYPE_CHECKING:
    from airflow_agentic.resilience import Guard

KEY = "conn:primary"
_PATIENCE = 60


def dead(guard: Guard, told: dict[str, Any]) -> dict[str, Any]:
    """Call what is dead so many times; tell how many calls reached it."""
    reached = 0

    def call():
        nonlocal reached
        reached += 1
        time.sleep(0.02)
        raise ServiceError("down")

    for _ in range(told["calls"]):
        try:
            guard.call(call)
        except (ServiceError, NotAdmitted):
            continue
    return {"reached": reached}


def probes(guard: Guard, told: dict[str, Any]) -> dict[str, Any]:
    """Call what is dead again and again; tell in which eras of the breaker calls reached it."""
    eras, end = [], time.monotonic() + told["seconds"]
    while time.monotonic() < end:
        try:
            with guard.attempt() as attempt:
                eras.append(attempt.entry.era)
                time.sleep(0.01)
                raise ServiceError("down")  # noqa: TRY301  # as of the other side
        except (ServiceError, NotAdmitted):
            time.sleep(0.002)
    return {"eras": eras}


def rates(guard: Guard, told: dict[str, Any]) -> dict[str, Any]:
    """Call as often as may be; tell when calls went, by the store's clock and by that of the machine."""
    turns, went, end = [], [], time.monotonic() + told["seconds"]
    while time.monotonic() < end:
        try:
            with guard.attempt() as attempt:
                turns.append(attempt.entry.go_at)
                went.append(time.monotonic())
        except NotAdmitted:
            continue
    return {"turns": turns, "went": went}


def buy(guard: Guard, told: dict[str, Any]) -> dict[str, Any]:
    """Spend until nothing is left."""
    calls = tokens = 0

    def call():
        nonlocal calls, tokens
        calls += 1
        tokens += 1 + calls % told["tokens"]
        spend(tokens=1 + calls % told["tokens"])

    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            guard.call(call)
        except NotAdmitted:
            break
    return {"calls": calls, "tokens": tokens}


def _one(url: str, what: str, told: dict[str, Any], start: Any, answers: Any) -> None:
    try:
        with open_store(url) as store:
            guard = store.guard(Policy.model_validate(told["policy"]), told.get("key", KEY))
            start.wait(_PATIENCE)
            answers.put(globals()[what](guard, told))
    except BaseException:  # noqa: BLE001  # the test is to see it
        answers.put({"error": traceback.format_exc()})


def _hold(url: str, told: dict[str, Any]) -> None:
    with open_store(url) as store:
        guard = store.guard(Policy.model_validate(told["policy"]), told.get("key", KEY))
        with guard.attempt():
            print("held", flush=True)
            time.sleep(600)


def main(url: str, what: str, settings: str) -> None:
    told = json.loads(settings)
    if what == "hold":
        _hold(url, told)
        return
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(told["processes"]), context.Queue()
    children = [
        context.Process(target=_one, args=(url, what, told, start, answers), daemon=True)
        for _ in range(told["processes"])
    ]
    for child in children:
        child.start()
    print(json.dumps([answers.get(timeout=2 * _PATIENCE + told.get("seconds", 0)) for _ in children]))


if __name__ == "__main__":
    main(*sys.argv[1:])
