"""What the records of a step say, as canonical JSON put together of its parts: two of them are written with every step."""

from __future__ import annotations

import json
from collections.abc import Callable

_quoted: Callable[[str], str] = json.encoder.encode_basestring


def intent_data(code: str, arguments: str, key: str, on_ambiguous: str, *, is_beside: bool) -> bytes:
    """Return what the record of an intent says.

    Args:
        code: Fingerprint of the code.
        arguments: Fingerprint of the arguments.
        key: Of idempotency.
        on_ambiguous: What is to be done if the step dies.
        is_beside: Whether others went on at the same time.

    Raises:
        ValueError: The key is not Unicode.
    """
    beside = '"beside":true,' if is_beside else ""
    return (
        f'{{"args":"{arguments}",{beside}"code":{_quoted(code)},"key":{_quoted(key)},"on_ambiguous":"{on_ambiguous}"}}'
    ).encode()


def done_data(code: str, arguments: str, result: bytes, seconds: float, sent: bytes) -> bytes:
    """Return what the record of a finished step says.

    Args:
        code: Fingerprint of the code.
        arguments: Fingerprint of the arguments.
        result: What it returned, as canonical JSON.
        seconds: How long it took.
        sent: Which messages leave with it, as canonical JSON; empty for none.

    Raises:
        ValueError: The name of the code is not Unicode.
    """
    begin = f'{{"args":"{arguments}","code":{_quoted(code)},"result":'
    end = f',"seconds":{seconds!r}'
    return b"".join((begin.encode(), result, end.encode(), b',"sent":' if sent else b"", sent, b"}"))
