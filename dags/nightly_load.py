"""An ordinary DAG that can fail, to see what becomes of it (``incident_triage.py``).

Each night six shops deliver a file; their sums go to a warehouse. ``faults`` says what is wrong with the files of which
shops: ``column`` (it has another name, for which the code has no answer), ``file`` (there is none), ``total`` (the rows
come to something else than the shop says). ``warehouse`` is where the sums go, as ``host:port``; if nobody listens there,
the tasks fail until somebody does. For example::

    airflow dags trigger nightly_load --conf '{"faults": {"north": "column", "south": "column", "west": "file",
        "east": "total"}, "warehouse": "127.0.0.1:8777"}'
"""

from __future__ import annotations

import csv
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from airflow_agentic.notifications.messaging import AgenticNotifier

SHOPS = ("north", "south", "east", "west", "centre", "harbour")
FAULTS = ("column", "file", "total")
CENT = 0.005


class BooksDifferError(Exception):
    """A file does not say what its shop says."""


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
    # All that a DAG needs to come under the triage.
    default_args={"retries": 0, "on_failure_callback": AgenticNotifier()},
    params={
        "faults": Param({}, type="object", additionalProperties={"enum": list(FAULTS)}),
        "warehouse": Param("", type="string"),
    },
)
def nightly_load() -> None:
    """Receive the files, load each, close the books."""

    @task
    def receive() -> list[str]:
        """Stand in for the shops: write a file for each, with what is wrong with it."""
        ctx = get_current_context()
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
        folder = home / "nightly_load" / re.sub(r"\W+", "_", str(ctx["run_id"]))
        folder.mkdir(parents=True, exist_ok=True)
        faults = ctx["params"]["faults"]
        return [deliver(folder, shop, faults.get(shop)) for shop in SHOPS]

    @task(map_index_template="{{ shop }}")
    def load(file: str) -> float:
        """Add up the rows of a shop, hold them against what it says, and tell the warehouse."""
        ctx: Any = get_current_context()
        shop = ctx["shop"] = Path(file).stem
        with Path(file).open(newline="", encoding="utf-8") as opened:
            *rows, last = csv.DictReader(opened)
        total = sum(float(row["amount"]) for row in rows)
        if abs(total - float(last["amount"])) > CENT:
            raise BooksDifferError(f"the rows of {shop} come to {total:.2f}, and it says {last['amount']}")
        if warehouse := ctx["params"]["warehouse"]:
            tell(warehouse, {"shop": shop, "total": total})
        return total

    @task
    def close_books(totals: list[float]) -> float:
        """Add up the shops."""
        return sum(totals)

    close_books(load.expand(file=receive()))  # type: ignore[arg-type]


def deliver(folder: Path, shop: str, fault: str | None) -> str:
    """Write the file of a shop: an order a row, and in the last row what they come to."""
    file = folder / f"{shop}.csv"
    if fault == "file":
        return str(file)
    amounts = [10.0 * (SHOPS.index(shop) + order) for order in range(1, 4)]
    said = sum(amounts) + (1 if fault == "total" else 0)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["order", "sum" if fault == "column" else "amount"])
        writer.writerows([[f"{shop}-{number}", amount] for number, amount in enumerate(amounts, start=1)])
        writer.writerow(["total", said])
    return str(file)


def tell(warehouse: str, what: dict[str, Any]) -> None:
    """Send the warehouse a line of JSON."""
    host, _, port = warehouse.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(json.dumps(what).encode() + b"\n")


nightly_load()
