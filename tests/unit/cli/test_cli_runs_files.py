from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commandline import Run as Command

from airflow_agentic.persistence import Interrupted, Run
from airflow_agentic.stores import Store

SECRET = "correct horse battery staple"


def fail() -> None:
    raise ConnectionError(SECRET)


def break_down(run: Run) -> None:
    run.step("read", lambda: SECRET)
    run.emit({"seen": SECRET})
    run.step("pay", fail)


@pytest.fixture
def broken(store: Store) -> None:
    with pytest.raises(ConnectionError), store.run("triage", key="broken", task="dag/run/task") as run:
        break_down(run)


def finished(store: Store, *keys: str, persistence: str = "hybrid", agent: str = "triage") -> None:
    for key in keys:
        with store.run(agent, key=key, persistence=persistence) as run:
            run.emit({"n": 1})
            run.emit({"n": 2})


def keys(store: Store) -> set[str]:
    return {head.stream for head in store.runs.find_all()}


def test_the_details_of_a_question_are_data(on_store: Command, store: Store, tmp_path: Path) -> None:
    bare, full = tmp_path / "bare.zip", tmp_path / "full.zip"
    with pytest.raises(Interrupted), store.run("triage", key="asks") as run:
        run.interrupt("May I?", details=f"{SECRET}\nWhat to do\nairflow agentic runs list")

    on_store("runs", "export", "asks", bare)
    on_store("runs", "export", "asks", full, "--include-data")
    store.runs.forget("asks")
    shown = [on_store("runs", "show", "--file", file).out for file in (bare, full)]
    on_store("runs", "import", full)

    assert SECRET.encode() not in bare.read_bytes()
    assert SECRET not in shown[0]
    assert "question:question" in shown[0]
    # All of them, whatever they look like; and no command, for nothing can be done with a file.
    assert f"    | {SECRET}\n    | What to do\n    | airflow agentic runs list\n" in shown[1]
    assert "runs answer" not in shown[0] + shown[1]
    assert store.runs.views.of("asks", datetime.now(UTC)).questions[0].details.startswith(SECRET)


@pytest.mark.usefixtures("broken")
def test_what_is_exported_has_no_data_and_can_be_shown_and_verified(
    on_store: Command, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "broken.zip"

    ended = on_store("runs", "export", "broken", file)
    store.runs.forget("broken")
    shown = on_store("runs", "show", "--file", file)
    events = on_store("runs", "events", "--file", file, "-o", "json")
    verified = on_store("runs", "verify", "--file", file)

    assert ended.code == 0
    assert "left out: " in ended.out
    assert "--include-data puts the data in" in ended.err
    assert "Run         broken" in shown.out
    assert "'pay' failed" in shown.out
    assert "airflow agentic runs resume" not in shown.out
    assert [each["type"] for each in events.json][-2:] == ["step.failed", "run.failed"]
    assert set(events.json[-1]["data"]) == {"category", "left_out"}
    assert (verified.code, verified.err.splitlines()[-1]) == (0, "1 run checked, all as they were written")
    for part in zipfile.ZipFile(file).namelist():
        assert SECRET.encode() not in zipfile.ZipFile(file).read(part)
    assert SECRET not in ended.out + shown.out + events.out


@pytest.mark.usefixtures("broken")
def test_nobody_else_may_read_the_file_and_none_is_written_over(on_store: Command, tmp_path: Path) -> None:
    file = tmp_path / "broken.zip"
    on_store("runs", "export", "broken", file)
    before = file.read_bytes()

    again = on_store("runs", "export", "broken", file, "--include-data")

    assert file.stat().st_mode & 0o777 == 0o600
    assert again.code == 1
    assert "is there already" in again.err
    assert file.read_bytes() == before
    assert on_store("runs", "export", "broken", file, "--include-data", "--yes").code == 0
    assert file.read_bytes() != before
    assert [each.name for each in tmp_path.iterdir() if "zip" in each.name] == ["broken.zip"]


@pytest.mark.usefixtures("broken")
def test_an_export_without_data_is_not_imported(on_store: Command, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "broken.zip"
    on_store("runs", "export", "broken", file)

    ended = on_store("runs", "import", file, "--to", "again")

    assert ended.code == 1
    assert "made without data, so it cannot be resumed" in ended.err
    assert keys(store) == {"broken"}


@pytest.mark.usefixtures("broken")
def test_an_export_with_data_can_be_imported_and_goes_on(
    on_store: Command, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "broken.zip"
    exported = on_store("runs", "export", "broken", file, "--include-data", "-o", "json")

    taken = on_store("runs", "import", file)
    beside = on_store("runs", "import", file, "--to", "beside", "-o", "json")
    store.runs.forget("broken")
    back = on_store("runs", "import", file, "-o", "json")

    assert exported.json["data"] == "included"
    assert "also what is secret or classified" in exported.err
    assert "there is a run 'broken' in this store already" in taken.err
    assert (beside.code, beside.json[0]["status"]) == (0, "failed")
    assert "sealed anew" in beside.err
    assert back.json[0]["digest"] == exported.json["run"]["digest"]
    assert "the same chain" in back.err
    with store.run("triage", key="beside") as run:
        assert run.step("read", lambda: "other", on_change="keep") == SECRET
    assert on_store("runs", "verify", "--all").code == 0


@pytest.mark.usefixtures("broken")
def test_a_damaged_file_is_refused_and_named(on_store: Command, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "broken.zip"
    on_store("runs", "export", "broken", file, "--include-data")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"correct horse", b"correct mouse"))

    for words in (["import", file, "--to", "again"], ["verify", "--file", file], ["show", "--file", file]):
        ended = on_store("runs", *words)
        assert ended.code == 1
        assert "the archive" in ended.err
        assert "is damaged" in ended.err
        assert "Traceback" not in ended.err
    assert keys(store) == {"broken"}


@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_file_that_cannot_be_used_is_one_line(
    on_store: Command, store: Store, tmp_path: Path, verb: str
) -> None:
    finished(store, "k")
    words = (
        ["import", tmp_path / "no" / "x.zip"]
        if verb == "import"
        else ["export", "k", tmp_path / "no" / "x.zip"]
    )

    ended = on_store("runs", *words)

    assert ended.code == 1
    assert "No such file or directory" in ended.err
    assert "\n" not in ended.err.strip()


def test_a_fork_can_take_the_place_of_the_run_that_it_came_from(
    on_store: Command, store: Store, tmp_path: Path
) -> None:
    with store.run("triage", key="k") as run:
        run.emit({"n": 1})
        run.checkpoint("well")
        run.emit({"n": 2})

    for words in (
        ["fork", "k", "--at", "well", "--to", "k~1", "--reason", "back"],
        ["export", "k~1", tmp_path / "fork.zip", "--include-data"],
        ["forget", "k", "--reason", "back", "--yes"],
        ["import", tmp_path / "fork.zip", "--to", "k"],
    ):
        ended = on_store("runs", *words)
        assert ended.code == 0, ended.err

    with store.run("triage", key="k") as run:
        assert run.state == {"n": 1}
        assert not run.was_finished
    assert store.verify("k") == []


# -- prune and forget ----------------------------------------------------------------------------------------


def test_prune_forgets_events_that_can_be_spared_and_no_run(on_store: Command, store: Store) -> None:
    finished(store, "a", "b", persistence="snapshot")
    finished(store, "c")
    before = len(store.history("c"))

    ended = on_store("runs", "prune", "-o", "json")

    assert (ended.code, ended.json["runs"], ended.json["looked_at"]) == (0, 2, 3)
    assert ended.json["events"] > 0
    assert len(store.history("c")) == before
    assert store.at("a", store.runs.find("a").version).state == {"n": 2}
    assert store.verify("a") == []


def test_prune_of_what_keeps_everything_says_so(on_store: Command, store: Store) -> None:
    finished(store, "c")

    assert "--whole forgets runs" in on_store("runs", "prune").err


@pytest.mark.usefixtures("broken")
def test_whole_runs_are_forgotten_but_for_the_newest_and_those_that_are_not_finished(
    on_store: Command, store: Store
) -> None:
    finished(store, "a1", "a2", "a3")
    finished(store, "b1", agent="other")

    unsaid = on_store("runs", "prune", "--whole")
    unconfirmed = on_store("runs", "prune", "--whole", "--keep", "1")
    young = on_store("runs", "prune", "--whole", "--older-than", "1d", "--yes")
    assert len(keys(store)) == 5
    ended = on_store("runs", "prune", "--whole", "--keep", "1", "--yes", "-o", "json")

    assert "say which stay" in unsaid.err
    assert "Forget 2 finished runs, whole? Say so with --yes" in unconfirmed.err
    assert "forgot 0 runs" in young.out
    assert ended.json["runs"] == 2
    left = keys(store)
    assert {"broken", "b1"} < left
    assert len(left) == 3


def test_forget_asks_unless_it_is_told(on_store: Command, store: Store) -> None:
    finished(store, "k")

    refused = on_store("runs", "forget", "k", "--reason", "x")
    assert (refused.code, keys(store)) == (1, {"k"})
    assert "Say so with --yes" in refused.err

    assert on_store("runs", "forget", "k", "--reason", "x", "--yes").code == 0
    assert keys(store) == set()
    gone = on_store("runs", "forget", "k", "--reason", "x", "--yes")
    assert (gone.code, "there is no run 'k'" in gone.err) == (1, True)


def test_the_manifest_is_for_people_and_programs(on_store: Command, store: Store, tmp_path: Path) -> None:
    finished(store, "k", persistence="snapshot")
    on_store("runs", "export", "k", tmp_path / "k.zip")

    with zipfile.ZipFile(tmp_path / "k.zip") as made:
        manifest: dict[str, Any] = json.loads(made.read("manifest.json"))

    assert (manifest["run"]["stream"], manifest["run"]["agent"], manifest["data"]) == (
        "k",
        "triage",
        "left out",
    )
    assert manifest["records"] == len(store.history("k"))
    assert set(manifest["files"]) == {"events.jsonl", "snapshots.jsonl"}
