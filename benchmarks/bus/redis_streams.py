"""On Redis: a server of our own that syncs its file before it answers (``appendfsync always``)."""

from __future__ import annotations

import queue
from typing import Any

from benchmarks.bus.contender import BODY, CONTENT, MAILBOX, Contender
from benchmarks.bus.peers import package

_GROUP = "readers"
_FIELD = b"data"


class RawRedis(Contender):
    """What can be had: redis-py on a stream with a group; what is sent or ended together is one MULTI.

    Args:
        url: The server.
    """

    name = "raw redis-py"
    note = "the least that can: XADD, XREADGROUP, XACK and XDEL; no envelope, no dedup, no delays, no dead letters"

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None
        self._stream = f"raw:{MAILBOX}"

    def setup(self) -> None:
        """Make the stream."""
        self._client = package("redis").Redis.from_url(self._url)
        self._client.xgroup_create(self._stream, _GROUP, mkstream=True)

    def cycle(self, batch: int, count: int) -> int:
        """Three commands a batch."""
        return sum(self._once(batch) for _ in range(count // batch))

    def _once(self, batch: int) -> int:
        client, stream = self._client, self._stream
        if batch == 1:
            client.xadd(stream, {_FIELD: CONTENT})
        else:
            with client.pipeline(transaction=True) as together:
                for _ in range(batch):
                    together.xadd(stream, {_FIELD: CONTENT})
                together.execute()
        ((_, found),) = client.xreadgroup(_GROUP, "bench", {stream: ">"}, count=batch)
        numbers = [number for number, _ in found]
        with client.pipeline(transaction=True) as together:
            together.xack(stream, _GROUP, *numbers)
            together.xdel(stream, *numbers)
            together.execute()
        return sum(1 for _, fields in found if len(fields[_FIELD]) == len(CONTENT))

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()


class Kombu(Contender):
    """kombu's Redis transport: a queue bound to a channel, acked by hand.

    Args:
        url: The server.
    """

    name = "kombu"
    note = "a list and a table of what is not acked, with one timeout for all; no batches, no dedup, no dead letters"
    batches = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._producer: Any = None
        self._queue: Any = None

    def setup(self) -> None:
        """Declare the queue."""
        kombu = package("kombu")
        self._connection = kombu.Connection(self._url)
        channel = self._connection.channel()
        self._queue = kombu.Queue(MAILBOX, kombu.Exchange(MAILBOX, type="direct"), routing_key=MAILBOX)(
            channel
        )
        self._queue.declare()
        self._producer = kombu.Producer(channel, self._queue.exchange, routing_key=MAILBOX, serializer="json")

    def cycle(self, batch: int, count: int) -> int:
        """Publish, get and ack one after the other; there are no batches."""
        ended = 0
        for _ in range(count // batch):
            for _ in range(batch):
                self._producer.publish(BODY, delivery_mode=2)
            for message in [self._queue.get(no_ack=False) for _ in range(batch)]:
                ended += message.payload == BODY
                message.ack()
        return ended

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class Dramatiq(Contender):
    """dramatiq, as its users have it: an actor's messages are enqueued, and a worker with one thread runs them.

    Args:
        url: The server.
    """

    name = "dramatiq"
    note = "runs a handler in its worker; retries with backoff, dead letters for a time; no batches, no dedup"
    batches = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._broker: Any = None
        self._actor: Any = None
        self._worker: Any = None
        self._acked: queue.SimpleQueue[str] = queue.SimpleQueue()

    def setup(self) -> None:
        """Declare the actor."""
        self.refresh()

    def refresh(self) -> None:
        """Make a broker and its actor anew: each worker leaves something at its broker."""
        dramatiq, brokers = package("dramatiq"), package("dramatiq.brokers.redis")
        self.close()
        self._broker = brokers.RedisBroker(url=self._url, namespace=self.name)
        self._broker.add_middleware(_acks(dramatiq.Middleware, self._acked))
        self._actor = dramatiq.actor(
            self._handle, broker=self._broker, queue_name=MAILBOX, actor_name=MAILBOX
        )

    def _handle(self, text: str) -> None:
        assert len(text) > 0

    def cycle(self, batch: int, count: int) -> int:
        """Enqueue all, then let a worker handle and ack them."""
        for _ in range(count // batch * batch):
            self._actor.send(**BODY)
        self._worker = package("dramatiq").Worker(self._broker, worker_threads=1, worker_timeout=100)
        self._worker.start()
        return len([self._acked.get(timeout=60) for _ in range(count)])

    def rest(self) -> None:
        """Stop the worker, which waits for its threads."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def close(self) -> None:
        """Close the broker."""
        self.rest()
        if self._broker is not None:
            self._broker.close()


def _acks(middleware: Any, acked: queue.SimpleQueue[str]) -> Any:
    """Return what notes each ack: the worker says of no message that it is done."""

    class Acks(middleware):  # type: ignore[misc]  # the package is not there for everybody
        def after_ack(self, broker: Any, message: Any) -> None:  # noqa: ARG002  # as it is called
            acked.put(message.message_id)

    return Acks()


class DramatiqByHand(Dramatiq):
    """dramatiq without its worker: messages are taken from its broker's consumer and acked there."""

    name = "dramatiq, by hand"
    note = "its broker and consumer without worker and handler; no batches, no dedup"

    def cycle(self, batch: int, count: int) -> int:
        """Enqueue, take and ack."""
        ended = 0
        consumer = self._broker.consume(self._actor.queue_name, prefetch=batch, timeout=100)
        for _ in range(count // batch):
            for _ in range(batch):
                self._actor.send(**BODY)
            for message in [next(consumer) for _ in range(batch)]:
                ended += message.kwargs == BODY
                consumer.ack(message)
        consumer.close()
        return ended
