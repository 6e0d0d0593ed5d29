"""Draws the graphs in the pages from their DAGs: `python docs/pictures.py`, with Airflow installed.

After `<!-- picture: NAME -->` stands the graph of the DAG that the function NAME of the page's examples makes. A test compares
them.
"""  # noqa: INP001  # a script

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGES = (Path(__file__).parent / "workflows.md",)

_BLOCK = re.compile(r"^```(python|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml))\n")
_PICTURE = re.compile(r"<!-- picture: (\w+) -->\n(?:\n```mermaid\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
_PROJECT = "AIRFLOW__AGENTIC__PROJECT_FILE"


def drawn(page: Path) -> str:
    """Return the text of a page with the pictures that its DAGs make."""
    from airflow_agentic.workflows import picture

    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, _within(Path(folder)):
        names = _executed(text, page, Path(folder))
        return _PICTURE.sub(
            lambda found: f"<!-- picture: {found[1]} -->\n\n```mermaid\n{picture(names[found[1]]())}\n```\n",
            text,
        )


def _executed(text: str, page: Path, folder: Path) -> Mapping[str, Any]:
    names: dict[str, Any] = {"__name__": "snippet"}
    for language, block in _BLOCK.findall(text):
        named = _FILE.match(block)
        if named:
            (folder / named[1]).write_text(block, encoding="utf-8")
            if language == "python":
                importlib.invalidate_caches()
                names |= {
                    name: value
                    for name, value in vars(importlib.import_module(Path(named[1]).stem)).items()
                    if not name.startswith("__")
                }
            else:
                os.environ[_PROJECT] = str(folder / named[1])
        elif language == "python":
            exec(compile(block, str(page), "exec"), names)  # noqa: S102  # our own page
    return names


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    """Let the modules in a folder be found, and forget them afterwards."""
    before, project = set(sys.modules), os.environ.get(_PROJECT)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        os.environ.pop(_PROJECT, None)
        if project is not None:
            os.environ[_PROJECT] = project


def main() -> None:
    """Draw all pictures of all pages."""
    for page in PAGES:
        page.write_text(drawn(page), encoding="utf-8")


if __name__ == "__main__":
    main()
