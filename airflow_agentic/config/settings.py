"""Frozen settings, parsed from strings with errors that name the option."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from airflow_agentic.config.options import OPTIONS, SECTION, Option
from airflow_agentic.errors import InvalidOption

# What Airflow and pydantic read as booleans.
_TRUE, _FALSE = ("true", "t", "1", "yes", "y", "on"), ("false", "f", "0", "no", "n", "off")
_BACKOFF = ("retry_base_seconds", "retry_max_seconds")


@dataclass(frozen=True)
class Settings:
    """Values of ``[agentic]``, typed. Field names are the option keys; see ``config/options.py``."""

    store_url: str = ""
    project_file: str = ""
    max_message_bytes: int = 1_048_576
    claim_check_path: str = ""
    claim_check_bytes: int = 65_536
    lease_seconds: float = 60.0
    max_attempts: int = 5
    retry_base_seconds: float = 1.0
    retry_max_seconds: float = 300.0
    poll_seconds: float = 0.5
    remind_seconds: float = 30.0
    request_timeout_seconds: float = 300.0
    heartbeat_seconds: float = 60.0
    dedup_window_seconds: float = 604_800.0
    mailbox_limit: int = 0
    mailbox_overflow: str = "refuse"
    block_seconds: float = 30.0
    mode: str = "development"
    fault_injection: bool = False

    @property
    def lease(self) -> timedelta:
        """The default lease."""
        return timedelta(seconds=self.lease_seconds)

    @classmethod
    def parse(cls, values: Mapping[str, object], where: str = f"[{SECTION}]") -> Settings:
        """Make settings from raw values; a missing or ``None`` value takes the option's default.

        Args:
            values: Option key to raw value (usually a string), as ``airflow.cfg`` or a connection gives it.
            where: What the values belong to, for error texts.

        Raises:
            InvalidOption: A value is of the wrong type, out of range or none of the choices. All faults are named at once.
        """
        parsed: dict[str, str | int | float | bool] = {}
        faults: list[str] = []
        for option in OPTIONS:
            raw = values.get(option.key)
            if raw is None or (raw == "" and (option.type != "string" or option.choices)):
                parsed[option.key] = option.default
                continue
            try:
                parsed[option.key] = _convert(option, raw)
            except ValueError as error:
                faults.append(f"{where} {option.key} = {raw!r}: {error}")
        # Of what is only partly given, the rest is somebody else's to say.
        if not faults and all(values.get(key) is not None for key in _BACKOFF):
            base, most = (float(parsed[key]) for key in _BACKOFF)
            if base > most:
                faults.append(
                    f"{where} {_BACKOFF[0]} = {base:g}: must not be more than {_BACKOFF[1]}, which is {most:g}"
                )
        if not faults and parsed["fault_injection"] and parsed["mode"] == "production":
            faults.append(f"{where} fault_injection = True: must not be set while mode is production")
        if faults:
            variables = f"airflow.cfg, or as AIRFLOW__{SECTION.upper()}__<KEY> in the environment"
            way_out = f"Set it in {variables}" if where == f"[{SECTION}]" else "Correct it there"
            raise InvalidOption(f"{'; '.join(faults)}. {way_out}.")
        return cls(**parsed)  # type: ignore[arg-type]  # the table and the fields are compared by a test


def _convert(option: Option, raw: object) -> str | int | float | bool:
    if option.type == "string":
        text = str(raw)
        if option.choices and text not in option.choices:
            raise ValueError(f"must be one of {', '.join(option.choices)}")
        return text
    if option.type == "boolean":
        if not is_true(raw) and str(raw).strip().lower() not in _FALSE:
            raise ValueError("must be True or False")
        return is_true(raw)
    try:
        number = float(str(raw))
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    if option.minimum is not None and number < option.minimum:
        raise ValueError(f"must be at least {option.minimum:g}")
    if option.type == "integer":
        if not number.is_integer():
            raise ValueError("must be a whole number")
        return int(number)
    return number


def is_true(raw: object) -> bool:
    """Whether a raw value of an option that is on or off means on."""
    return str(raw).strip().lower() in _TRUE
