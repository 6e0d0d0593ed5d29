"""The XCom backend: ``[core] xcom_backend = airflow_agentic.xcom.backend.AgenticXComBackend``."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
from airflow.sdk.bases.xcom import BaseXCom

from airflow_agentic.errors import ClaimCheckDamaged, ConfigurationError, InvalidOption, InvalidResult
from airflow_agentic.xcom import MARK
from airflow_agentic.xcom.claims import CLAIM_CHECK, ClaimCheck, Origin
from airflow_agentic.xcom.references import with_references

if TYPE_CHECKING:
    from airflow_agentic.runtime.ports import ObjectStorageBlobs

_log = logging.getLogger(__name__)


class AgenticXComBackend(XComObjectStorageBackend):
    """Keeps large results in object storage, checked by digest; gives references to messages back as such.

    It has the options of common-io's backend, and reads what that one, and Airflow without any, wrote:
    ``[common.io] xcom_objectstorage_path``, ``xcom_objectstorage_threshold`` and ``xcom_objectstorage_compression``.
    Without a threshold all results stay in Airflow's database.
    """

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Return what goes into Airflow's database: the value, or a claim check if it is large.

        Raises:
            InvalidResult: The value pretends to be a claim check.
            InvalidOption: There is a threshold, and no path that can be used.
            StoreUnavailable: It cannot be kept now.
        """
        from airflow_agentic.runtime.ports import xcom_storage

        plain: Any = BaseXCom.serialize_value(value)
        if isinstance(plain, dict) and plain.get(MARK) == CLAIM_CHECK:
            raise InvalidResult(
                f"a result must not have the key {MARK!r} with the value {CLAIM_CHECK!r}: that is how claim checks "
                "are known. Pull the XCom and return what it gives."
            )
        storage = xcom_storage()
        if storage.threshold < 0:
            return plain
        content = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
        if len(content) < storage.threshold:
            return plain
        origin = Origin(
            dag_id or "",
            run_id or "",
            task_id or "",
            -1 if map_index is None else map_index,
            key or BaseXCom.XCOM_RETURN_KEY,
        )
        return ClaimCheck.keep(content, origin, _blobs(), storage.compression).stored()

    @classmethod
    def store_value(cls, coordinate: Any, key: str, value: Any) -> Any:
        """Do the same where Airflow says whose value it is with one object."""
        return cls.serialize_value(
            value,
            key=key,
            task_id=coordinate.task_id,
            dag_id=coordinate.dag_id,
            run_id=coordinate.run_id,
            map_index=coordinate.map_index,
        )

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return the value that a task pushed.

        Raises:
            ClaimCheckDamaged: It was kept elsewhere, and is gone or was changed.
            StoreUnavailable: It cannot be read now.
            InvalidOption: It was kept elsewhere, and there is no path that can be used.
        """
        from airflow.sdk.serde import deserialize

        claim = ClaimCheck.read(result.value)
        if claim is not None:
            return with_references(deserialize(claim.redeemed(_blobs())))
        if _is_of_common_io(result.value):
            return with_references(XComObjectStorageBackend.deserialize_value(result))
        return with_references(BaseXCom.deserialize_value(result))

    @staticmethod
    def purge(xcom: Any, *args: Any) -> None:
        """Remove what lies elsewhere for an XCom that is about to be removed. A failure is logged, and no more."""
        try:
            claim = ClaimCheck.read(xcom.value)
            if claim is not None:
                _blobs().delete(claim.path)
        except (ConfigurationError, ClaimCheckDamaged) as error:
            _log.warning("what an XCom leads to is left where it is: %s", error)
            return
        if _is_of_common_io(xcom.value):
            XComObjectStorageBackend.purge(xcom, *args)


def _blobs() -> ObjectStorageBlobs:
    from airflow_agentic.runtime.ports import ObjectStorageBlobs, xcom_storage

    path = xcom_storage().path
    if not path:
        raise InvalidOption(
            "[common.io] xcom_objectstorage_path is empty: set it to where large results are kept, such as "
            "s3://connection_id@bucket/xcom"
        )
    return ObjectStorageBlobs(path)


def _is_of_common_io(value: Any) -> bool:
    """Whether a value is a path that common-io's backend wrote. One that leads elsewhere is just a text."""
    if not isinstance(value, str) or "://" not in value or ".." in value.split("/"):
        return False
    from airflow_agentic.runtime.ports import xcom_storage

    path = xcom_storage().path.rstrip("/")
    return bool(path) and value.startswith(f"{path}/")
