"""What must not be shown: values whose key says that they are secret, and passwords in URLs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from airflow_agentic.config.references import MalformedReference, references_in
from airflow_agentic.config.tree import DELETE, Node, Path

MASK = "***"

_NAMED = frozenset({"agents", "services", "policies", "mailboxes", "routes", "roles", "budgets"})
_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|passwd|secret|token(?!s|i[sz])|(api|auth|access|bearer|refresh|bot)_?tokens|api_?key|apikey"
    r"|access_?key|private_?key|credential|authorization"
    r"|(^|_)(pass|pwd|pin|auth|keyfile|cookie|session_?id|dsn)(_|$)",
    re.IGNORECASE,
)
# A password may have an @, a / or a ? that nobody escaped: it is better to hide too much.
_URL_PASSWORD = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s:/?#]*:)\S+(?=@)")
_URL_PARAMETER = re.compile(r"(?P<head>[?&](?P<key>[^\s=&#]+)=)[^\s&#]+")
_HARMLESS = re.compile(r"\$\{[^}]*\}|^\s*(?:Bearer|Basic|Token)\s", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"\b(?P<head>(?:Bearer|Basic|Token)\s+)(?!(?:\$\{[^}]*\})+(?:\s|$))\S+", re.IGNORECASE
)


def is_secret(path: Path) -> bool:
    """Whether a key, or one above it, says that what is there is secret."""
    return any(_is_secret_key(key) for key in path[_values_begin(path) :] if isinstance(key, str))


def mask_text(text: str) -> str:
    """Return a text without the passwords in URLs and authorisation headers in it."""
    text = _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)
    text = _URL_PARAMETER.sub(
        lambda found: found["head"] + MASK if _is_secret_key(found["key"]) else found[0], text
    )
    return _AUTHORIZATION.sub(rf"\g<head>{MASK}", text)


def shown(value: Any, path: Path, secret_paths: Collection[Path] = ()) -> Any:
    """Return a value as it may be shown; references are shown as they are written.

    Args:
        value: Plain values, or a :class:`Node`.
        path: Where they are.
        secret_paths: Paths that are secret whatever their keys are.
    """
    if isinstance(value, Node):
        value = value.plain()
    if isinstance(value, dict):
        return {key: shown(item, (*path, key), secret_paths) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item, (*path, index), secret_paths) for index, item in enumerate(value)]
    hidden = is_secret(path) or any(path[: len(secret)] == secret for secret in secret_paths)
    if hidden:
        return value if value is None or isinstance(value, bool) or _only_references(value) else MASK
    return mask_text(value) if isinstance(value, str) else value


def _is_secret_key(key: str) -> bool:
    return _SECRET_KEY.search(key.replace("-", "_")) is not None


def _only_references(value: Any) -> bool:
    """Whether nothing but references is written there: ``Bearer abc${var:x}`` has a secret beside one."""
    if not isinstance(value, str):
        return False
    if value == DELETE:
        return True
    try:
        references = references_in(value)
    except MalformedReference:
        return False
    return bool(references) and not _HARMLESS.sub("", value).strip()


def _values_begin(path: Path) -> int:
    """Names of agents and services are names: an agent ``token-counter`` has no secrets because of it."""
    return 2 if path[:1] and path[0] in _NAMED else 0
