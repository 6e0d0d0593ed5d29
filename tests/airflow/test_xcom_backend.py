"""Results of tasks with ``AgenticXComBackend``, in DAGs that really run."""

from __future__ import annotations

import copy
import datetime as dt
import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
from airflow.providers.common.io.xcom import backend as common_io
from airflow.sdk import DAG, dag, get_current_context, task
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import task_runner, xcom

from airflow_agentic import runtime
from airflow_agentic.errors import (
    ClaimCheckDamaged,
    InvalidOption,
    InvalidResult,
    MessageNotFound,
    StoreUnavailable,
    UndecodableMessage,
)
from airflow_agentic.messaging import Message
from airflow_agentic.operators.messaging import SendMessageOperator
from airflow_agentic.xcom.backend import AgenticXComBackend
from airflow_agentic.xcom.messaging import OUTBOX_KEY, outbox, received
from airflow_agentic.xcom.references import MessageReference

NAME = "airflow_agentic.xcom.backend.AgenticXComBackend"
COMMON_IO = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
LARGE = [{"name": f"package-{i}", "license": "MIT"} for i in range(200)]
WHOSE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "key": "return_value"}


@pytest.fixture
def place(tmp_path):
    return tmp_path / "xcom"


@pytest.fixture
def use(monkeypatch, place):
    """Configure the XCom backend as a deployment does; Airflow reads that once, when a task process starts."""

    def use(name=NAME, *, threshold=1_000, compression="", path=f"file://{place}"):
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", name)
        monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", path)
        monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", str(threshold))
        monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION", compression)
        for remembered in (common_io._get_base_path, common_io._get_threshold, common_io._get_compression):
            remembered.cache_clear()
        chosen = xcom.resolve_xcom_backend()
        monkeypatch.setattr(xcom, "XCom", chosen)
        monkeypatch.setattr(task_runner, "XCom", chosen)
        return chosen

    yield use
    for remembered in (common_io._get_base_path, common_io._get_threshold, common_io._get_compression):
        remembered.cache_clear()


def files(place):
    return sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".agentic")


def stored(value, **whose):
    return AgenticXComBackend.serialize_value(value, **{**WHOSE, **whose})


def pulled(value):
    """What comes out of what went into Airflow's database, where everything is JSON."""
    return AgenticXComBackend.deserialize_value(SimpleNamespace(value=json.loads(json.dumps(value))))


class TestInDags:
    def test_a_large_result_lies_elsewhere_and_the_next_task_gets_it_whole(self, use, run_dag, place):
        use()

        @dag
        def audits():
            @task
            def scan():
                return LARGE

            @task
            def count(found):
                assert found == LARGE
                return len(found)

            count(scan())

        run = run_dag(audits())
        assert (run.state, run.xcom("count")) == ("success", 200)
        [kept] = files(place)
        assert json.loads(kept.read_text()) == LARGE
        shown = run.xcom("scan")
        assert shown["__agentic__"] == "claim-check"
        assert shown["path"] == f"file://{kept}"
        assert shown["size"] == kept.stat().st_size
        assert shown["of"] == {**WHOSE, "dag_id": "audits", "run_id": run.run_id, "task_id": "scan"}
        assert "package-" not in json.dumps(shown)

    def test_tasks_are_mapped_over_large_results_and_give_large_results(self, use, run_dag, place):
        use()

        @dag
        def mapped():
            @task
            def scan():
                return LARGE[:40]

            @task
            def grow(record):
                return [record["name"]] * 200

            @task
            def total(lists):
                return sum(len(each) for each in lists)

            total(grow.expand(record=scan()))

        run = run_dag(mapped())
        assert (run.state, run.xcom("total")) == ("success", 8_000)
        assert len(files(place)) == 41

    def test_a_damaged_result_fails_the_task_that_reads_it_and_names_the_one_that_wrote_it(
        self, use, run_dag, place
    ):
        use()
        said = []

        with DAG("damaged") as dag_:

            @task
            def scan():
                return LARGE

            @task
            def vandal():
                [kept] = files(place)
                kept.write_text(kept.read_text().replace("MIT", "GPL", 1))

            @task
            def read():
                with pytest.raises(ClaimCheckDamaged) as damaged:
                    get_current_context()["ti"].xcom_pull("scan")
                said.append(str(damaged.value))

            scan() >> vandal() >> read()

        run = run_dag(dag_)
        assert run.state == "success"
        assert said[0].startswith(
            f"the XCom 'return_value' of task 'scan' in DAG 'damaged', run '{run.run_id}' cannot be read"
        )
        assert "Clear that task" in said[0]

    def test_a_retry_removes_what_the_try_before_kept(self, use, run_dag, place):
        use()
        tries = []

        with DAG("again", default_args={"retries": 1, "retry_delay": dt.timedelta(0)}) as dag_:

            @task
            def scan():
                tries.append(1)
                ti = get_current_context()["ti"]
                ti.xcom_push("found", [f"try {len(tries)}"] * 200)
                if len(tries) == 1:
                    raise RuntimeError("the first one fails")

            @task
            def read():
                return get_current_context()["ti"].xcom_pull("scan", key="found")[0]

            scan() >> read()

        run = run_dag(dag_)
        assert (run.state, run.xcom("read")) == ("success", "try 2")
        [kept] = files(place)
        assert "try 2" in kept.read_text()

    def test_switching_backends_keeps_what_was_written_readable(self, use, run_dag, place):
        before = {}

        with DAG("history") as dag_:

            @task
            def scan():
                return LARGE

            @task
            def small():
                return {"when": dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "pair": (1, 2)}

            @task
            def switch():
                use()

            @task
            def read():
                ti = get_current_context()["ti"]
                before["large"] = ti.xcom_pull("scan")
                before["small"] = ti.xcom_pull("small")

            [scan(), small()] >> switch() >> read()

        for earlier in (COMMON_IO, "airflow.sdk.bases.xcom.BaseXCom"):
            use(earlier)
            assert run_dag(dag_).state == "success"
            assert before["large"] == LARGE
            assert before["small"] == {
                "when": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
                "pair": (1, 2),
            }

    def test_a_result_leads_to_its_message_and_loads_it_when_asked(self, use, run_dag, store):
        use()

        @dag
        def referring():
            @task
            def send():
                message = Message(source="scanner", recipient="audit", data={"name": "left-pad"})
                store.bus.send(message)
                return {"sent": [MessageReference.of(message)]}

            @task
            def read(result):
                [sent] = result["sent"]
                return [type(sent).__name__, sent["id"], sent.data, sent.message.source]

            read(send())

        run = run_dag(referring())
        [shown] = run.xcom("send")["sent"]
        assert run.xcom("read") == ["MessageReference", shown["id"], {"name": "left-pad"}, "scanner"]
        assert shown == {
            "__agentic__": "message",
            "id": shown["id"],
            "source": "scanner",
            "recipient": "audit",
            "type": "agentic.message",
            "correlation_id": shown["correlation_id"],
        }

    def test_tasks_are_mapped_over_references_and_templates_read_through_them(self, use, run_dag, store):
        use()

        with DAG("templates") as dag_:

            @task
            def send():
                messages = [Message(source="scanner", recipient="audit", data={"n": n}) for n in range(3)]
                store.bus.send_many(messages)
                return [MessageReference.of(message) for message in messages]

            @task
            def read(reference):
                return reference.data["n"]

            sent = send()
            read.expand(reference=sent) >> SendMessageOperator(
                task_id="tell", recipient="legal", data="{{ ti.xcom_pull('send')[2].data.n }}"
            )

        run = run_dag(dag_)
        assert [run.xcom("read", i) for i in range(3)] == [0, 1, 2]
        [told] = store.bus.receive("legal")
        assert told.message.data == "2"

    def test_a_reference_is_a_plain_dict_where_the_backend_is_not_set(self, run_dag, store):
        message = Message(source="scanner", recipient="audit", data=1)

        @dag
        def plain():
            @task
            def send():
                return MessageReference.of(message)

            @task
            def read(reference):
                assert type(reference) is dict
                return MessageReference(reference).message.data

            read(send())

        store.bus.send(message)
        assert run_dag(plain()).xcom("read") == 1

    def test_airflows_api_shows_where_things_are_and_nothing_of_them(self, use, run_dag, monkeypatch):
        use()

        @dag
        def shown():
            @task
            def scan():
                return LARGE

            @task
            def send():
                return MessageReference.of(
                    Message(source="scanner", recipient="audit", data="package-secret")
                )

            scan()
            send()

        # Here, where the warnings of Airflow's own imports do not count.
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        run = run_dag(shown())
        monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        client = TestClient(create_app(apps="core"))
        token = client.get("/auth/token").json()["access_token"]
        for task_id in ("scan", "send"):
            entry = (
                f"/api/v2/dags/shown/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries/return_value"
            )
            for how in ("", "?deserialize=true", "?stringify=true", "?deserialize=true&stringify=true"):
                answer = client.get(entry + how, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 200
                assert answer.json()["value"] in (run.xcom(task_id), str(run.xcom(task_id)))
                assert "package-" not in answer.text

    def test_a_large_outbox_is_a_claim_check_like_any_other_result(self, use, run_dag, place):
        use()

        @dag
        def chatty():
            @task
            def scan():
                with outbox() as out:
                    for record in LARGE:
                        out.send("audit", record)

            @task
            def audit():
                return len(received())

            scan() >> audit()

        run = run_dag(chatty())
        assert run.xcom("audit") == 200
        assert run.xcom("scan", key=OUTBOX_KEY)["__agentic__"] == "claim-check"
        assert len(files(place)) == 1

    def test_the_environment_alone_configures_it(self, metadata_db, place, tmp_path):
        program = """
import os
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.sdk import dag, task
from airflow.utils.session import create_session


@dag
def configured():
    @task
    def scan():
        return ["left-pad"] * 500

    @task
    def count(found):
        return len(found)

    count(scan())


made = configured()
with create_session() as session:
    DagBundlesManager().sync_bundles_to_db(session=session)
bag = DagBag(dag_folder=os.devnull)
bag.bag_dag(made)
sync_bag_to_db(bag, "dags-folder", None)
run = made.test()
print("ended:", run.state, [ti.xcom_pull("count") for ti in run.get_task_instances()][0])
"""
        env = {
            **os.environ,
            "AIRFLOW__CORE__XCOM_BACKEND": NAME,
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{place}",
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "1000",
        }
        script = tmp_path / "configured.py"
        script.write_text(program)
        ended = subprocess.run(
            [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert "ended: success 500" in ended.stdout, ended.stderr[-2000:]
        assert len(files(place)) == 1


class TestValues:
    @pytest.mark.parametrize(
        "value", [None, 0, "", "text", "s3://bucket/key", [1, {"a": None}], {"a": (1, 2)}, True]
    )
    def test_small_values_are_as_airflow_has_them(self, use, value):
        use()
        assert stored(value) == BaseXCom.serialize_value(value)
        assert pulled(stored(value)) == value

    @pytest.mark.parametrize("value", [None, "text", "file:///etc/passwd", [1], {"a": 1}])
    def test_without_a_path_or_threshold_everything_stays_in_the_database(self, use, value):
        use(path="", threshold=-1)
        assert stored(value) == value
        assert pulled(value) == value
        AgenticXComBackend.purge(SimpleNamespace(value=value))

    def test_a_threshold_without_a_path_is_told_when_a_value_needs_it(self, use):
        use(path="")
        assert pulled(stored([1])) == [1]
        with pytest.raises(InvalidOption, match=r"\[common.io\] xcom_objectstorage_path is empty"):
            stored(LARGE)

    def test_the_threshold_counts_bytes_of_json(self, use, place):
        use(threshold=7)
        assert stored("üü") == "üü"  # with quotes, six bytes
        assert stored("üüa")["size"] == 7
        assert len(files(place)) == 1

    @pytest.mark.parametrize("compression", ["gzip", "bz2", "xz"])
    def test_a_result_is_compressed_as_configured(self, use, place, compression):
        use(compression=compression)
        kept = stored(LARGE)
        assert pulled(kept) == LARGE
        assert files(place)[0].stat().st_size < kept["size"] / 5
        use()  # how it was packed is said by its name
        assert pulled(kept) == LARGE

    def test_a_compression_that_nobody_knows_is_refused_with_those_that_are_known(self, use):
        use(compression="gzipp")
        with pytest.raises(InvalidOption, match=r"is 'gzipp'; installed here are .*gzip"):
            stored(LARGE)

    def test_large_values_keep_their_types_as_small_ones_do(self, use):
        use(threshold=0)
        value = {
            "at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
            "pair": (1, "b"),
            "odd": "\ud800",
            "nan": [float("inf")],
            "ü": {"漢": {1, 2}},
        }
        kept = stored(value)
        assert kept["__agentic__"] == "claim-check"
        assert pulled(kept) == value

    def test_references_in_a_large_result_are_references(self, use):
        use(threshold=0)
        [[back]] = pulled(stored([[MessageReference.of(Message(source="a", recipient="b"))]]))
        assert isinstance(back, MessageReference)

    @pytest.mark.parametrize("packed", ["", "gzip"])
    @pytest.mark.parametrize(
        ("damage", "why"),
        [
            (
                lambda file: file.write_bytes(file.read_bytes()[:-40]),
                "is not what the task returned|unpacked",
            ),
            (lambda file: file.write_bytes(b"garbage"), "is not what the task returned|unpacked"),
            (lambda file: file.unlink(), "is gone"),
        ],
    )
    def test_damage_is_told_with_the_task_and_the_key(self, use, place, packed, damage, why):
        use(compression=packed)
        kept = stored(LARGE, task_id="scan", key="found", map_index=3)
        damage(files(place)[0])
        with pytest.raises(ClaimCheckDamaged, match=why) as damaged:
            pulled(kept)
        assert "the XCom 'found' of task 'scan[3]' in DAG 'd', run 'r' cannot be read" in str(damaged.value)

    def test_a_storage_that_is_away_is_worth_a_retry(self, use, place):
        use()
        kept = stored(LARGE, task_id="scan")
        place.rename(place.with_name("unmounted"))
        with pytest.raises(StoreUnavailable, match="task 'scan'") as away:
            pulled(kept)
        assert away.value.retry_helps

    def test_a_forged_claim_check_reads_no_file_outside_of_the_storage(self, use, tmp_path):
        use()
        secret = tmp_path / "secret.json"
        secret.write_text('"the secret"')
        kept = stored(LARGE)
        for path in (f"file://{secret}", f"file://{tmp_path}/xcom/../secret.json"):
            with pytest.raises(ClaimCheckDamaged, match="is not followed"):
                pulled({**kept, "path": path})
            AgenticXComBackend.purge(SimpleNamespace(value={**kept, "path": path}))
            # A text that common-io's backend would follow
            assert pulled(path) == path
            AgenticXComBackend.purge(SimpleNamespace(value=path))
        assert secret.exists()

    def test_a_claim_check_that_lacks_a_part_is_told(self, use):
        use()
        with pytest.raises(ClaimCheckDamaged, match="has not all of one"):
            pulled({"__agentic__": "claim-check", "path": "x"})
        AgenticXComBackend.purge(SimpleNamespace(value={"__agentic__": "claim-check", "path": "x"}))

    def test_a_result_that_pretends_to_be_a_claim_check_is_refused(self, use):
        use()
        with pytest.raises(InvalidResult, match="Pull the XCom and return what it gives"):
            stored(stored(LARGE))

    def test_purging_removes_the_file_of_a_claim_check_and_of_common_io(self, use, place):
        use()
        kept = stored(LARGE)
        old = common_io.XComObjectStorageBackend.serialize_value(LARGE, **WHOSE)
        assert len(files(place)) == 2
        for value in (kept, old, "text", 1, None, kept):
            AgenticXComBackend.purge(SimpleNamespace(value=value))
        assert files(place) == []

    def test_keys_and_runs_of_any_name_have_places_of_their_own(self, use, place):
        use()
        names = ["a/b", "a_b", "..", "a b", "ü" * 300, "a\\b", "%2e%2e", "manual__2030-01-01T00:00:00+00:00"]
        kept = [stored(LARGE, run_id=name, key=name) for name in names]
        assert len({each["path"] for each in kept}) == len(names) == len(files(place))
        assert [pulled(each) for each in kept] == [LARGE] * len(names)

    def test_an_airflow_that_names_the_task_by_one_object_gets_the_same(self, use):
        use()
        coordinate = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
        assert AgenticXComBackend.store_value(coordinate, "return_value", LARGE) == stored(LARGE)


class TestReferences:
    def test_nothing_is_read_before_it_is_asked_for(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "sqlite:////nowhere/at/all.db")
        sent = MessageReference.of(Message(source="a", recipient="b", data="secret"))
        assert "secret" not in json.dumps(sent)
        assert pulled(stored(sent))["source"] == "a"
        with pytest.raises(StoreUnavailable):
            sent.message  # noqa: B018

    def test_a_message_is_loaded_once(self, store):
        message = Message(source="a", recipient="b", data=[1])
        store.bus.send(message)
        sent = MessageReference.of(message)
        assert sent.message is sent.message
        assert sent.message == message

    def test_the_data_of_a_large_message_is_loaded_too(self, store_url, place, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__CLAIM_CHECK_PATH", f"file://{place}")
        message = Message(source="a", recipient="b", data=LARGE * 10)
        with runtime.open_store() as store:
            store.bus.send(message)
        assert len(files(place)) == 1
        assert MessageReference.of(message).data == LARGE * 10
        files(place)[0].unlink()
        with pytest.raises(ClaimCheckDamaged, match="is gone"):
            MessageReference.of(message).data  # noqa: B018

    def test_the_same_id_of_another_source_is_another_message(self, store):
        store.bus.send(Message(source="other", recipient="b", id="1", data="theirs"))
        mine = Message(source="a", recipient="b", id="1", data="mine")
        with pytest.raises(MessageNotFound, match="message 1 from 'a' is not in the store"):
            MessageReference.of(mine).message  # noqa: B018
        store.bus.send(mine)
        assert MessageReference.of(mine).data == "mine"

    def test_a_message_of_a_newer_version_is_told_as_such(self, store):
        message = Message(source="a", recipient="b", id="1")
        from airflow_agentic.messaging.ports import Address, Outgoing

        envelope = b'{"specversion": "1.0", "agenticcodec": 99, "id": "1", "source": "a", "type": "t"}'
        store.bus._store.messages.append([Outgoing("1", "a", "1", envelope, (Address("b", 3),))])
        with pytest.raises(UndecodableMessage, match="codec version 99"):
            MessageReference.of(message).message  # noqa: B018

    def test_a_copy_is_a_reference_and_a_pickle_a_plain_dict(self):
        sent = MessageReference.of(Message(source="a", recipient="b"), "other_store")
        assert sent["agentic_conn_id"] == "other_store"
        assert type(copy.deepcopy(sent)) is MessageReference
        assert type(pickle.loads(pickle.dumps(sent))) is dict
        assert pickle.loads(pickle.dumps(sent)) == copy.deepcopy(sent) == sent
