"""A process that counts in documents of guards until it is killed: ``python counters.py URL``.

Each time it adds one to all of them in one change, and then says the new number. What it said is done.
"""

from __future__ import annotations

import sys

from airflow_agentic.resilience.ports import GuardChange, GuardKey
from airflow_agentic.stores import open_store

KEYS = (GuardKey("budget", "calls"), GuardKey("limit", "calls"), GuardKey("limit", "tokens"))


def main(url: str) -> None:
    with open_store(url) as store:
        while True:
            found = store.guards.read(KEYS).entries
            versions = [found[key].version if key in found else 0 for key in KEYS]
            number = str(versions[0] + 1)
            changes = [
                GuardChange(key, number.encode(), version)
                for key, version in zip(KEYS, versions, strict=True)
            ]
            if store.guards.change(changes):
                print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
