"""What producers and consumers did, in files that a SIGKILL cannot take back: each word is one O_APPEND write.

``intended``  the id of a message, before it is given to ``send`` or to an ack
``sent``      its id after ``send`` returned, with fsync
``handled``   when a consumer has handled a delivery, before it acks it
``noted``     what the bus answered to an ack that came too late, or met another state
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

NAMES = ("intended", "sent", "handled", "noted")


class Handled(NamedTuple):
    """One time that a delivery was handled."""

    at: float
    mailbox: str
    delivery_id: int
    message_id: str
    key: str
    number: int


class Journal:
    """A file that many processes write to."""

    def __init__(self, folder: Path, name: str):
        self._file = os.open(folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, *lines: str, sync: bool = False) -> None:
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())
        if sync:
            os.fsync(self._file)

    def handled(self, delivery) -> None:
        message = delivery.message
        words = (
            time.monotonic(),
            delivery.mailbox,
            delivery.delivery_id,
            message.id,
            message.ordering_key or "",
            message.data["number"],
        )
        self.write("\t".join(map(str, words)))


def read(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def read_handled(folder: Path) -> list[Handled]:
    rows = (line.split("\t") for line in read(folder, "handled"))
    return [Handled(float(at), box, int(number), *rest, int(last)) for at, box, number, *rest, last in rows]
