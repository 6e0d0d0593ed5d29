"""A project file, YAML or TOML, as a tree in which every value knows the line it is written in."""

from __future__ import annotations

import re
from pathlib import PurePath

from airflow_agentic.config.files.report import Report, Unreadable
from airflow_agentic.config.files.toml_lines import read_toml
from airflow_agentic.config.tree import Node
from airflow_agentic.errors import ConfigFault

SUFFIXES = (".yaml", ".yml", ".toml")

_LINE_END = re.compile(rb"\r\n|\r|\n")


def read_text(text: str, file: str) -> tuple[Node | None, list[ConfigFault]]:
    """Read a project file into a tree.

    A map entry has the line of its key, a list item its own. What came through an alias or a merge key of YAML has
    the line where it was written. A value that cannot be used is null in the tree.

    Args:
        text: What is in the file.
        file: Its name; the suffix says whether it is YAML or TOML.

    Returns:
        The tree, a map; ``None`` if there is no use in looking further. And every fault that was found, by line.
    """
    suffix = PurePath(file).suffix.lower()
    if suffix not in SUFFIXES:
        message = "the name does not say whether this is YAML or TOML"
        known = "name it " + ", ".join(f"*{each}" for each in SUFFIXES[:-1]) + f" or *{SUFFIXES[-1]}"
        return None, [ConfigFault(file, None, "", message, known, file)]
    report = Report(file)
    try:
        root = _read(text.removeprefix("\ufeff"), suffix, report)
    except Unreadable:
        root = None
    return root, sorted(report.faults, key=lambda fault: fault.line or 0)


def read_bytes(data: bytes, file: str) -> tuple[Node | None, list[ConfigFault]]:
    """Read a project file, as it is on the disk, into a tree.

    Args:
        data: What is in the file: UTF-8, with or without a byte order mark.
        file: Its name; the suffix says whether it is YAML or TOML.

    Returns:
        As :func:`read_text`.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        report = Report(file)
        line = len(_LINE_END.findall(data, 0, error.start)) + 1
        report.fault(line, "this line has bytes that are not UTF-8", "save the file as UTF-8")
        return None, report.faults
    return read_text(text, file)


def _read(text: str, suffix: str, report: Report) -> Node:
    if suffix == ".toml":
        return read_toml(text, report)
    # Late: a process that reads TOML need not load PyYAML.
    from airflow_agentic.config.files.yaml_nodes import read_yaml

    return read_yaml(text, report)
