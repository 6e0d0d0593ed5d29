"""On PostgreSQL: one client, ``synchronous_commit`` on for everybody."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from benchmarks.bus.contender import BODY, CONTENT, LEASE_SECONDS, MAILBOX, Contender, new_key
from benchmarks.bus.peers import package
from benchmarks.bus.servers import Postgres

_LEASE = timedelta(seconds=LEASE_SECONDS)
_SCHEMA = """
CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE delivery (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message bigint NOT NULL, mailbox text NOT NULL,
  state smallint NOT NULL DEFAULT 0, visible_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts integer NOT NULL DEFAULT 0, token uuid, lease_until timestamptz
) WITH (fillfactor = 70);
CREATE INDEX open_delivery ON delivery (mailbox, visible_at, id) WHERE state < 2;
"""
_SEND = """
WITH sent AS (INSERT INTO message (data) VALUES (%b) RETURNING id)
INSERT INTO delivery (message, mailbox) SELECT id, %s FROM sent
"""
_SEND_MANY = """
WITH sent AS (INSERT INTO message (data) SELECT unnest(%b::bytea[]) RETURNING id)
INSERT INTO delivery (message, mailbox) SELECT id, %s FROM sent ORDER BY id
"""
_SEND_WITH_ID = """
WITH sent AS (
  INSERT INTO message (key, data) SELECT * FROM unnest(%b::text[], %b::bytea[]) ON CONFLICT (key) DO NOTHING
  RETURNING id
)
INSERT INTO delivery (message, mailbox) SELECT id, %s FROM sent ORDER BY id
"""
_CLAIM = """
WITH found AS MATERIALIZED (
  SELECT id FROM delivery
  WHERE mailbox = %(mailbox)s AND state < 2 AND visible_at <= clock_timestamp()
  ORDER BY visible_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE delivery SET state = 1, attempts = attempts + 1, token = %(token)s,
    lease_until = clock_timestamp() + %(lease)s,
    visible_at = clock_timestamp() + %(lease)s
  FROM found WHERE delivery.id = found.id
  RETURNING delivery.id, delivery.message, delivery.token
)
SELECT claimed.id, claimed.token, message.data FROM claimed JOIN message ON message.id = claimed.message
"""
_ACK = "UPDATE delivery SET state = 2 WHERE id = %s AND token = %s"
_ACK_MANY = """
UPDATE delivery SET state = 2 FROM unnest(%b::bigint[], %b::uuid[]) AS held (id, token)
WHERE delivery.id = held.id AND delivery.token = held.token
"""


class RawPsycopg(Contender):
    """What can be had: psycopg 3, two tables, one connection in autocommit, prepared statements.

    Args:
        database: Where its schema goes.
    """

    name = "raw psycopg"
    note = "the least that can: no envelope, no dedup, no routing, no priorities, no order, no dead letters"

    _schema = _SCHEMA

    def __init__(self, database: Postgres) -> None:
        self._database = database
        self._connection: Any = None

    def setup(self) -> None:
        """Make the tables."""
        import psycopg

        url = self._database.schema(type(self).__name__.lower())
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        self._connection.execute(self._schema, prepare=False)

    def cycle(self, batch: int, count: int) -> int:
        """Three statements a batch, each a transaction."""
        return sum(self._once(batch) for _ in range(count // batch))

    def _once(self, batch: int) -> int:
        run = self._connection.execute
        self._send(batch)
        wanted = {"mailbox": MAILBOX, "limit": batch, "token": uuid.uuid4(), "lease": _LEASE}
        claimed = run(_CLAIM, wanted, binary=True).fetchall()
        if batch == 1:
            run(_ACK, claimed[0][:2])
        else:
            run(_ACK_MANY, [[row[0] for row in claimed], [row[1] for row in claimed]])
        return sum(1 for _, _, data in claimed if self._is_whole(data))

    def _send(self, batch: int) -> None:
        if batch == 1:
            self._connection.execute(_SEND, [CONTENT, MAILBOX])
        else:
            self._connection.execute(_SEND_MANY, [[CONTENT] * batch, MAILBOX])

    def _is_whole(self, data: bytes) -> bool:
        return len(data) == len(CONTENT)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class RawPsycopgWithId(RawPsycopg):
    """The same, and nearer to what a bus must do.

    Args:
        database: Where its schema goes.
    """

    name = "raw psycopg, with id"
    note = "the same; JSON is made and read, and duplicates are known by an id"

    _schema = _SCHEMA.replace("data bytea", "key text NOT NULL UNIQUE, data bytea")

    def _send(self, batch: int) -> None:
        keys, data = (
            [new_key() for _ in range(batch)],
            [json.dumps(BODY).encode() for _ in range(batch)],
        )
        self._connection.execute(_SEND_WITH_ID, [keys, data, MAILBOX])

    def _is_whole(self, data: bytes) -> bool:
        return bool(json.loads(data) == BODY)


class Pgmq(Contender):
    """pgmq-python on the SQL objects that its package brings along.

    Args:
        database: Where its schema ``pgmq`` goes.
    """

    name = "pgmq-python"
    note = (
        "visibility timeout without a token, read counter; no dead letters, no dedup; ended messages deleted"
    )

    def __init__(self, database: Postgres) -> None:
        self._database = database
        self._queue: Any = None

    def setup(self) -> None:
        """Install the objects, and make a queue."""
        pgmq, install = package("pgmq"), package("pgmq.install")
        logging.getLogger("pgmq").setLevel(logging.WARNING)
        install.install_pgmq_from_sql(dsn=self._database.url)
        config = {"conn_string": self._database.url, "pool_size": 1, "init_extension": False}
        self._queue = pgmq.PGMQueue(**config, vt=LEASE_SECONDS)
        self._queue.create_queue(MAILBOX)

    def cycle(self, batch: int, count: int) -> int:
        """Send, read and delete."""
        queue, ended = self._queue, 0
        for _ in range(count // batch):
            if batch == 1:
                queue.send(MAILBOX, BODY)
                found = queue.read(MAILBOX)
                ended += queue.delete(MAILBOX, found.msg_id)
            else:
                queue.send_batch(MAILBOX, [BODY] * batch)
                held = [found.msg_id for found in queue.read_batch(MAILBOX, batch_size=batch)]
                ended += len(queue.delete_batch(MAILBOX, held))
        return ended

    def close(self) -> None:
        """Close its pool."""
        if self._queue is not None:
            self._queue.close()


class _Async(Contender):
    """A peer that lives in an event loop; it gets one that stays."""

    def __init__(self, database: Postgres) -> None:
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None

    def setup(self) -> None:
        """Open it in the loop."""
        self._loop = asyncio.new_event_loop()
        self._run(self._open())

    def cycle(self, batch: int, count: int) -> int:
        """Do it in the loop."""
        return int(self._run(self._cycle(batch, count)))

    def close(self) -> None:
        """Close it, and the loop."""
        if self._loop is not None:
            self._run(self._end())
            self._loop.close()
            self._loop = None

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return self._loop.run_until_complete(work)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _cycle(self, batch: int, count: int) -> int:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError


class Procrastinate(_Async):
    """procrastinate, as its users have it: jobs are deferred, and a worker runs them.

    Args:
        database: Where its schema goes.
    """

    name = "procrastinate"
    note = "runs a handler in its worker, keeps a log of each job; locks by key; no lease: stalled jobs need a task"
    by_hand = False

    def __init__(self, database: Postgres) -> None:
        super().__init__(database)
        self._app: Any = None
        self._task: Any = None
        self._worker = 0
        self._handled = 0

    async def _open(self) -> None:
        procrastinate = package("procrastinate")
        url = self._database.schema(type(self).__name__.lower())
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
        self._task = self._app.task(name="handle", queue=MAILBOX)(self._handle)
        await self._app.open_async()
        await self._app.schema_manager.apply_schema_async()
        self._worker = await self._app.job_manager.register_worker()

    async def _handle(self, text: str) -> None:
        self._handled += len(text) > 0

    async def _cycle(self, batch: int, count: int) -> int:
        """Defer all, so many at a time, then let the worker work until nothing is left."""
        self._handled = 0
        await self._send(batch, count)
        await self._app.run_worker_async(
            queues=[MAILBOX],
            concurrency=min(batch, 10),
            wait=False,
            listen_notify=False,
            install_signal_handlers=False,
        )
        return self._handled

    async def _send(self, batch: int, count: int) -> None:
        for _ in range(count // batch):
            if batch == 1:
                await self._task.defer_async(**BODY)
            else:
                await self._task.batch_defer_async(*[BODY] * batch)

    async def _end(self) -> None:
        if self._app is not None:
            await self._app.close_async()


class ProcrastinateByHand(Procrastinate):
    """procrastinate without its worker: jobs are fetched and finished by its job manager."""

    name = "procrastinate, by hand"
    note = "its job manager without worker and handler; keeps a log of each job; no batches but in defer"

    async def _cycle(self, batch: int, count: int) -> int:
        jobs, ended = self._app.job_manager, 0
        done = package("procrastinate.jobs").Status.SUCCEEDED
        for _ in range(count // batch):
            await self._send(batch, batch)
            held = [await jobs.fetch_job(queues=[MAILBOX], worker_id=self._worker) for _ in range(batch)]
            for job in held:
                await jobs.finish_job(job=job, status=done, delete_job=False)
                ended += len(job.task_kwargs["text"]) > 0
        return ended


class PgQueuer(_Async):
    """PGQueuer, as its users have it: jobs are enqueued, and its queue manager runs them.

    Args:
        database: Where its schema goes.
    """

    name = "PGQueuer"
    note = (
        "runs a handler, keeps a log of each job; a heartbeat for a lease; dedup by key, not asked for here"
    )

    def __init__(self, database: Postgres) -> None:
        super().__init__(database)
        self._connection: Any = None
        self._driver: Any = None
        self._queries: Any = None
        self._handled = 0

    async def _open(self) -> None:
        asyncpg, queries = package("asyncpg"), package("pgqueuer.queries")
        schema = type(self).__name__.lower()
        self._database.schema(schema)
        settings = {"search_path": schema}
        self._connection = await asyncpg.connect(self._database.url, server_settings=settings)
        self._driver = package("pgqueuer.db").AsyncpgDriver(self._connection)
        self._queries = queries.Queries(self._driver)
        await self._queries.install()

    async def _cycle(self, batch: int, count: int) -> int:
        """Enqueue all, so many at a time, then let a queue manager work until nothing is left."""
        types, qm = package("pgqueuer.types"), package("pgqueuer.qm")
        self._handled = 0
        await self._send(batch, count)
        manager = qm.QueueManager(self._queries)
        manager.entrypoint(MAILBOX, accepts_context=False)(self._handle)
        await manager.run(
            batch_size=batch, mode=types.QueueExecutionMode.drain, dequeue_timeout=timedelta(seconds=0.01)
        )
        return self._handled

    async def _handle(self, job: Any) -> None:
        self._handled += len(job.payload) == len(CONTENT)

    async def _send(self, batch: int, count: int) -> None:
        for _ in range(count // batch):
            if batch == 1:
                await self._queries.enqueue(MAILBOX, CONTENT)
            else:
                await self._queries.enqueue([MAILBOX] * batch, [CONTENT] * batch, [0] * batch)

    async def _end(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class PgQueuerByHand(PgQueuer):
    """PGQueuer without its queue manager: jobs are dequeued and logged by its queries."""

    name = "PGQueuer, by hand"
    note = "its queries without manager and handler; keeps a log of each job"

    async def _cycle(self, batch: int, count: int) -> int:
        queries, ended, me = self._queries, 0, uuid.uuid4()
        entry = package("pgqueuer.queries").EntrypointExecutionParameter(concurrency_limit=0)
        for _ in range(count // batch):
            await self._send(batch, batch)
            held = await queries.dequeue(
                batch_size=batch, entrypoints={MAILBOX: entry}, queue_manager_id=me, global_concurrency_limit=None,
                heartbeat_timeout=_LEASE,
            )  # fmt: skip
            await queries.log_jobs([(job, "successful", None) for job in held])
            ended += sum(len(job.payload) == len(CONTENT) for job in held)
        return ended
