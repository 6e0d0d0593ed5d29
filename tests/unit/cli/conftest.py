"""Commands are called as Airflow calls them: through its parser, on a store in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Ended, Run

from airflow_agentic.stores import Store, open_store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # The warnings of Airflow's own start-up are not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/agentic.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url, owner="worker-1:42") as opened:
        yield opened


@pytest.fixture
def agentic(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``airflow agentic …`` in this process."""
    from airflow.cli.cli_parser import get_parser

    def run(*words: object) -> Ended:
        capsys.readouterr()
        code, last = 0, ""
        try:
            args = get_parser().parse_args(["agentic", *map(str, words)])
            args.func(args)
        except SystemExit as end:
            # As the interpreter does it: a text goes to stderr and means 1.
            code, last = (end.code or 0, "") if not isinstance(end.code, str) else (1, end.code)
        captured = capsys.readouterr()
        return Ended(int(code), captured.out, captured.err + last)

    return run


@pytest.fixture
def on_store(agentic: Run, store: Store) -> Run:
    """Run ``airflow agentic … --store-url <the test's store>``."""
    return lambda *words: agentic(*words, "--store-url", store.url)
