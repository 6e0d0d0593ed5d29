"""Processes whose clock is off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def off_by(skew: str) -> dict[str, str]:
    """Return what a process must have in its environment to have its clock off by so much, such as ``+10m``.

    The test is skipped where there is no libfaketime (Debian's package ``faketime``); on CI there must be one.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found and os.environ.get("CI") == "true":
        pytest.fail("libfaketime is not installed")
    if not found:
        pytest.skip("no clock can be moved here: libfaketime is not installed")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
