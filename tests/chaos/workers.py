"""Producers and consumers that live until they are killed. As a script: a crowd of them, and somebody who kills.

A producer sends messages of every sort, alone and in batches, some with an ordering key that is its own. A consumer
handles what comes to three mailboxes; what it does is kept in the store in one commit with its ack:

* an *effect* for each message, whose version says how often it was done;
* for each key, the list of the numbers in the order in which they were done;
* for a message of the sort ``chain``, one more message in the mailbox ``second``.

Messages of the sort ``mirrored`` come to two mailboxes, and only the inbox keeps their effect from being done twice.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import select
import signal
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path

from journals import Journal
from mutants import opened

from airflow_agentic.errors import AlreadyHandled, StaleLease, StateConflict, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.routing import Subscription

MAIN, MIRROR, SECOND = BOXES = ("storm", "mirror", "second")
TOPIC = "storm.mirrored"
CONSUMER = "consumer"
SORTS = {"plain": 60, "chain": 18, "mirrored": 12, "flaky": 5, "poison": 5}
THROUGH_THE_INBOX = ("chain", "mirrored")
KEYS, NUMBERS_OF_A_KEY = 3, 40
HANDLING_SECONDS = 0.006


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a storm is, and what it is like; the processes are told by a file.

    Attributes:
        folder: Of the journals.
        url: Of the store.
        mutant: Which promise is broken, if any.
        lease: Seconds.
        producers: How many.
        consumers: How many.
        kills: How many SIGKILLs, or SIGSTOPs.
        seconds: How long all of it takes.
        stops: Whether consumers are stopped past their lease instead of being killed.
        pace: 1 for work that takes a little time, 0 for none.
    """

    folder: str
    url: str
    mutant: str = ""
    lease: float = 2
    producers: int = 2
    consumers: int = 3
    kills: int = 0
    seconds: float = 8
    stops: bool = False
    pace: float = 1

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def open(self):
        """Open the store, however long that takes."""
        options = BusOptions(
            lease=timedelta(seconds=self.lease),
            poll=timedelta(seconds=0.02),
            max_attempts=100,
            subscriptions=(Subscription(MAIN, TOPIC), Subscription(MIRROR, TOPIC)),
        )
        return insist(opened, self.url, options, self.mutant)


def insist(call, *arguments, **values):
    """Do it again while it is not known whether it was done."""
    while True:
        try:
            return call(*arguments, **values)
        except StoreUnavailable:
            time.sleep(random.uniform(0, 0.05))


class Producer:
    def __init__(self, place: Place):
        self.place, self.bus = place, place.open().bus
        self.intended, self.sent = (Journal(place.path, name) for name in ("intended", "sent"))
        self.me, self.made, self.keyed = uuid.uuid4().hex[:8], 0, [0] * KEYS

    def run(self) -> None:
        for _ in watched():
            batch = [self.message() for _ in range(random.choice((1, 1, 1, 5)))]
            self.intended.write(*(message.id for message in batch))
            insist(self.bus.send_many, batch)
            self.sent.write(*(message.id for message in batch), sync=True)
            time.sleep(random.uniform(0, 0.02) * len(batch) * self.place.pace)

    def message(self) -> Message:
        [sort] = random.choices(list(SORTS), SORTS.values())
        self.made += 1
        address = {"topic": TOPIC} if sort == "mirrored" else {"recipient": MAIN}
        if sort == "mirrored" or random.random() < 0.6:
            key, number = None, self.made
        else:
            which = random.randrange(KEYS)
            self.keyed[which] += 1
            number = self.keyed[which]
            key = f"{self.me}-{which}-{number // NUMBERS_OF_A_KEY}"
        return Message(
            source="producer",
            id=f"{self.me}-{self.made}",
            type=sort,
            ordering_key=key,
            data={"number": number},
            **address,
        )


class Consumer:
    def __init__(self, place: Place):
        self.place, self.store, self.pace = place, place.open(), place.pace
        self.bus = self.store.bus
        self.intended, self.handled, self.noted = (
            Journal(place.path, name) for name in ("intended", "handled", "noted")
        )

    def run(self) -> None:
        for _ in watched():
            if not self.take_from_all():
                time.sleep(0.02)

    def drain(self, seconds: float) -> None:
        """Handle what is left, and come back when nothing is, or time is up: the books will show it."""
        self.pace, deadline = 0, time.monotonic() + seconds
        with self.store:
            while time.monotonic() < deadline:
                if self.take_from_all():
                    continue
                if not sum(insist(self.bus.stats, box).open for box in BOXES):
                    return
                time.sleep(0.05)

    def take_from_all(self) -> int:
        return sum(self.take(box) for box in BOXES)

    def take(self, box: str) -> int:
        deliveries = insist(self.bus.receive, box, max_messages=random.randint(1, 8))
        if box == SECOND:
            self.take_in_one_commit(deliveries)
        else:
            for delivery in deliveries:
                try:
                    self.handle(delivery)
                except StaleLease:
                    self.note_late(delivery)
        return len(deliveries)

    def take_in_one_commit(self, deliveries) -> None:
        """Ack the last ones and receive the next ones, fused."""
        while deliveries:
            for delivery in deliveries:
                self.work(delivery)
            try:
                deliveries = insist(self.bus.ack_and_receive, *deliveries, max_messages=random.randint(1, 8))
            except StaleLease:
                self.note_late(*deliveries)
                return

    def handle(self, delivery) -> None:
        sort = delivery.message.type
        if sort == "flaky" and delivery.attempt == 1:
            insist(delivery.nack, delay=timedelta(0), reason="flaky")
        elif sort == "poison":
            insist(delivery.reject, reason="poison")
        else:
            self.work(delivery)
            self.finish(delivery)

    def work(self, delivery) -> None:
        time.sleep(random.uniform(0, 2 * HANDLING_SECONDS) * self.pace)
        self.handled.handled(delivery)

    def finish(self, delivery) -> None:
        message = delivery.message
        state, versions = {f"effect {message.id}": True}, {}
        if message.ordering_key is not None:
            lane = f"lane {message.ordering_key}"
            done, versions[lane] = insist(self.bus.state(delivery.mailbox).read, lane)
            state[lane] = [*(done or ()), message.data["number"]]
        inbox = CONSUMER if message.type in THROUGH_THE_INBOX else None
        try:
            insist(delivery.ack, self.produced(message), state, versions, inbox)
        except AlreadyHandled:
            insist(delivery.ack)
        except StateConflict:
            self.noted.write(f"conflict\t{message.id}")
            insist(delivery.release)

    def produced(self, message: Message) -> list[Message]:
        if message.type != "chain":
            return []
        child = Message(
            source="consumer",
            recipient=SECOND,
            type="child",
            ordering_key=message.ordering_key,
            causation_id=message.id,
            data=message.data,
        )
        self.intended.write(child.id)
        return [child]

    def note_late(self, *deliveries) -> None:
        self.noted.write(*(f"stale\t{delivery.message.id}" for delivery in deliveries))


def watched():
    """Yield for ever, while the parent lives: nobody is left behind when a test is killed."""
    parent = os.getppid()
    while os.getppid() == parent:
        yield


class Crowd:
    """The processes of a storm, and who kills or stops one of them now and then."""

    def __init__(self, place: Place):
        self.place = place
        self.jobs = [Producer] * place.producers + [Consumer] * place.consumers
        self.processes = [self.start(job) for job in self.jobs]

    def start(self, job):
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(job, self.place), daemon=True
        )
        process.start()
        return process

    def kill(self) -> None:
        index = random.randrange(len(self.jobs))
        victim = self.processes[index]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert victim.exitcode == -signal.SIGKILL, "it had ended by itself: see stderr"
        self.processes[index] = self.start(self.jobs[index])

    def stop(self) -> None:
        victim = self.processes[random.randrange(self.place.producers, len(self.jobs))]
        os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(1.3 * self.place.lease)
        os.kill(victim.pid, signal.SIGCONT)

    def rage(self) -> None:
        pause = self.place.seconds / (self.place.kills + 1)
        disturb = self.stop if self.place.stops else self.kill
        for _ in range(self.place.kills):
            time.sleep(random.uniform(0.5, 1.5) * pause)
            disturb()
        time.sleep(pause)
        # The end of the storm is one more SIGKILL for each of them.
        for process in self.processes:
            assert process.is_alive(), "it ended by itself: see stderr"
            process.kill()
            process.join()


def _work(job, place: Place) -> None:
    job(place).run()


def main(path: Path) -> None:
    place = Place(**json.loads(path.read_text()))
    if "FAKETIME" in os.environ:
        # Its library moves the clock that Python's own sleep reads, and not the one that it sleeps by.
        time.sleep = lambda seconds: select.select((), (), (), seconds)
    # The schema is made once; and what is imported now is there in every fork.
    place.open().close()
    Crowd(place).rage()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
