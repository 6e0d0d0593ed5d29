"""A storm of SIGKILLs over a bus, and the books afterwards. Run as a script: it prints them as JSON.

Two producers and three consumers work on one store while one of them, chosen at random, is killed every now and
then and replaced. Or their connections are: then the processes go on, and send or ack what may be lost again. Each keeps a journal of its own, written with O_APPEND, which a SIGKILL cannot take back:

``intended``  before a message is given to ``send``
``sent``      after ``send`` returned, with fsync
``handled``   when a consumer handles a message, before it acks it
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path

import postgres

from airflow_agentic.errors import StaleLease, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message, MessageBus
from airflow_agentic.stores import open_store

BOX = "storm"
OPTIONS = BusOptions(lease=timedelta(seconds=2), poll=timedelta(seconds=0.02), max_attempts=100)
PRODUCERS, CONSUMERS = 2, 3
HANDLING_SECONDS = 0.006


class EarlyAckBus(MessageBus):
    """The mutant: takes a message off the books when it is received instead of when it was handled."""

    def receive(self, *arguments, **values):
        deliveries = super().receive(*arguments, **values)
        if deliveries:
            super().ack(*deliveries)
        return deliveries

    def ack(self, *deliveries, send=()):
        pass


BUSES = {"real": MessageBus, "cut off": MessageBus, "mutant": EarlyAckBus}


class Journal:
    def __init__(self, path: Path):
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, word: str, *, sync: bool = False) -> None:
        os.write(self._file, f"{word}\n".encode())
        if sync:
            os.fsync(self._file)


def url_of(folder: Path) -> str:
    return (folder / "url").read_text()


def open_bus(folder: Path, kind: str):
    store = open_store(url_of(folder), options=OPTIONS)
    return store, BUSES[kind](store.bus._store, OPTIONS)


def insist(call, *arguments) -> None:
    """Do it again while it is not known whether it was done."""
    while True:
        try:
            call(*arguments)
        except StoreUnavailable:
            continue
        return


def produce(folder: Path, kind: str) -> None:
    _, bus = open_bus(folder, kind)
    intended, sent = Journal(folder / "intended"), Journal(folder / "sent")
    me, number = uuid.uuid4().hex[:8], 0
    while True:
        batch = []
        for _ in range(random.choice((1, 1, 1, 5))):
            number += 1
            batch.append(Message(source="producer", recipient=BOX, id=f"{me}-{number}"))
        for message in batch:
            intended.write(message.id)
        insist(bus.send_many, batch)
        for message in batch:
            sent.write(message.id, sync=True)
        time.sleep(random.uniform(0, 0.01) * len(batch))


def consume(folder: Path, kind: str, until_empty: bool = False) -> None:
    store, bus = open_bus(folder, kind)
    handled = Journal(folder / "handled")
    while True:
        deliveries = bus.receive(BOX, max_messages=random.randint(1, 8))
        if not deliveries:
            if until_empty and bus.stats(BOX).open == 0:
                store.close()
                return
            time.sleep(0.02)
        for delivery in deliveries:
            time.sleep(0 if until_empty else random.uniform(0, 2 * HANDLING_SECONDS))
            handled.write(delivery.message.id)
            try:
                insist(bus.ack, delivery)
            except StaleLease:
                handled.write(f"stale {delivery.message.id}")


def end_a_connection(folder: Path) -> None:
    [[ended]] = postgres.query(
        """SELECT count(pg_terminate_backend(pid)) FROM (
            SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY random() LIMIT 1) AS victim""",
        folder.name,
    )
    assert ended == 1, "there was nobody to lose a connection"


def rage(folder: Path, kind: str, kills: int, seconds: float) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [produce] * PRODUCERS + [consume] * CONSUMERS

    def start(job):
        process = context.Process(target=job, args=(folder, kind), daemon=True)
        process.start()
        return process

    processes = [start(job) for job in jobs]
    pause = seconds / (kills + 1)
    for _ in range(kills):
        time.sleep(random.uniform(0.5, 1.5) * pause)
        if kind == "cut off":
            end_a_connection(folder)
            continue
        victim = random.randrange(len(jobs))
        os.kill(processes[victim].pid, signal.SIGKILL)
        processes[victim].join()
        assert processes[victim].exitcode == -signal.SIGKILL, "it had ended by itself: see stderr"
        processes[victim] = start(jobs[victim])
    time.sleep(pause)
    for process in processes:
        assert process.is_alive(), "it ended by itself: see stderr"
        process.kill()
        process.join()


def books(folder: Path, kills: int) -> dict[str, object]:
    read = {name: (folder / name).read_text().splitlines() for name in ("intended", "sent", "handled")}
    handled = Counter(word for word in read["handled"] if not word.startswith("stale "))
    with open_store(url_of(folder)) as store:
        stats = store.bus.stats(BOX)
        dead = {record.message.id for record in store.bus.dead_letters(limit=1_000_000)}
        database = store.agents._db
        [[stored]] = database.fetch("SELECT count(*) FROM agentic_message")
        check = "PRAGMA integrity_check" if store.url.startswith("sqlite") else "SELECT 'ok'"
        [[integrity]] = database.fetch(check)
    return {
        # The end of the storm is one more SIGKILL for each of them.
        "kills": kills + PRODUCERS + CONSUMERS,
        "sent": len(read["sent"]),
        "stored": stored,
        "handled": len(handled),
        "lost": len(set(read["sent"]) - set(handled) - dead),
        "ghosts": len(set(handled) - set(read["intended"])),
        "duplicates": sum(count - 1 for count in handled.values()),
        "stale": len(read["handled"]) - sum(handled.values()),
        "open": stats.open,
        "done": stats.done,
        "dead": stats.dead,
        "integrity": integrity,
    }


def main(folder: Path, kind: str, kills: int, seconds: float) -> None:
    open_store(url_of(folder)).close()
    rage(folder, kind, kills, seconds)
    consume(folder, kind, until_empty=True)
    print(json.dumps(books(folder, kills)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
