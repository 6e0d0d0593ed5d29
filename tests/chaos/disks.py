"""Small disks: file systems in memory that only one process and its children see, so that nothing is left of them."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def inside(folder: Path, size: str, *options: str) -> tuple[str, ...]:
    """Return what stands before a command that has a disk of a size at a folder."""
    mounted = shlex.join(
        ("mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "none", str(folder))
    )
    return *_unshare(), "sh", "-c", f'{mounted} && exec "$@"', "sh"


def _unshare() -> tuple[str, ...]:
    return ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--mount", "--map-root-user")


@functools.cache
def refusal() -> str | None:
    """Why there can be no such disk here; ``None`` if there can."""
    try:
        asked = subprocess.run(
            [*_unshare(), "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return asked.stderr.strip() or None if asked.returncode else None
