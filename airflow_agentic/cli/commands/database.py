"""``airflow agentic db``: the schema of the store."""

from __future__ import annotations

from argparse import Namespace

from airflow_agentic.cli.access import exists, find_target, has_schema, revision
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.output import listing, say
from airflow_agentic.errors import InvalidOption, StoreUnavailable
from airflow_agentic.runtime import StoreTarget


@command
def check_schema(args: Namespace) -> None:
    """Compare the revision of the store with the one this version needs; exit 1 if they differ."""
    from airflow_agentic.stores.sql import schema

    target = _sql_target(args)
    present = revision(target) if exists(target) else None
    answer = {"store": target.shown, "origin": target.origin, "revision": present, "needed": schema.HEAD}
    listing(args.output, [answer], [{**answer, "revision": present or "none"}])
    if present is None:
        raise StoreUnavailable(
            f"the store {target.shown} does not exist, or has no tables of this provider. It is made by its first "
            "use, or by `airflow agentic db upgrade`."
        )
    schema.check(present, target.shown)


@command
@recorded
def upgrade_schema(args: Namespace) -> None:
    """Create the store, or bring its schema to this version."""
    from airflow_agentic.stores.sql import connect, schema

    target = _sql_target(args)
    database = connect(target.url)
    try:
        before = schema.current(database)
        schema.upgrade(database)
        after = schema.current(database)
    finally:
        database.close()
    if before == after:
        say(f"the store {target.shown} is at schema {after} already: nothing to do")
    elif before is None:
        say(f"created the store {target.shown} with schema {after}")
    else:
        say(f"upgraded the store {target.shown} from schema {before} to {after}")


def _sql_target(args: Namespace) -> StoreTarget:
    target = find_target(args)
    if not has_schema(target):
        raise InvalidOption(
            f"the store {target.shown!r} (from {target.origin}) has no schema. Name one like "
            "sqlite:////absolute/path/agentic.db or postgresql://user@host:5432/database."
        )
    return target
