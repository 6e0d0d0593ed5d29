"""The faults of one file while it is read, and how large a file may be."""

from __future__ import annotations

from airflow_agentic.config.tree import Origin, Path, dotted
from airflow_agentic.errors import ConfigFault

MAX_DEPTH = 100
MAX_NODES = 100_000


class Unreadable(Exception):
    """A file has a fault that leaves no tree; the report has it already."""


class Report:
    """The faults of one file, as they are found.

    Attributes:
        file: The file, as it is to be shown to people.
        faults: What was found so far.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[ConfigFault] = []

    def origin(self, line: int) -> Origin:
        """Return that line of the file as an origin."""
        return Origin(f"{self.file}:{line}", self.file, line)

    def fault(self, line: int, message: str, suggestion: str | None = None, path: Path = ()) -> None:
        """Note a fault."""
        source = f"{self.file}:{line}"
        self.faults.append(ConfigFault(self.file, line, dotted(path), message, suggestion, source))

    def unreadable(
        self, line: int, message: str, suggestion: str | None = None, path: Path = ()
    ) -> Unreadable:
        """Note a fault that ends the reading, and return what to raise."""
        self.fault(line, message, suggestion, path)
        return Unreadable(message)


def last_line(text: str) -> int:
    """Return the number of the last line of a text; a line break at the end begins no line."""
    return max(1, text.count("\n") + (not text.endswith("\n")))
