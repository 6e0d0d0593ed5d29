"""The result of one check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from airflow_agentic.errors import AgenticError


class Result(StrEnum):
    """How bad it is. Only ``FAIL`` makes the doctor exit with 1."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: What was looked at.
        result: How bad it is.
        text: What was found.
        way_out: What to do about it; a command where there is one.
    """

    check: str
    result: Result
    text: str
    way_out: str = ""


def examined(check: str, look: Callable[[], Finding]) -> Finding:
    """Run a check. One that breaks is a finding too, and the others go on."""
    try:
        return look()
    except AgenticError as error:
        return Finding(check, Result.FAIL, str(error))
    except Exception as error:  # noqa: BLE001  # a broken installation fails in any way it likes
        return Finding(
            check,
            Result.FAIL,
            f"{type(error).__name__}: {error}",
            "run `airflow agentic doctor -v` for the log",
        )
