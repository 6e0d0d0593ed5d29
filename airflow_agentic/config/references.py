"""References in configuration values: ``${env:NAME}``, ``${conn:id.field}``, ``${var:name}``.

They are resolved late, where the value is used; what is stored and shown is the reference itself. ``$${`` stands for
``${`` without a meaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.tree import DELETE, Node, Path
from airflow_agentic.errors import UnresolvedReference

SCHEMES = ("env", "conn", "var")
CONNECTION_FIELDS = ("host", "port", "login", "password", "schema", "extra")

# A shorter one cannot be told from other text; it is hidden by its place alone.
_SHORTEST_SECRET = 4
_FORMS = "${env:NAME}, ${conn:id.field} or ${var:name}"
_NOT_CLOSED = ("a reference is not closed", f"write {_FORMS}, or $${{ for the text itself")
_DELETES_NOTHING = f"{DELETE} deletes a whole value of a map, and nothing in a list or a text"
_FROM_OUTSIDE = (
    "write the value, or set it from outside, with an environment variable AGENTIC__SECTION__NAME__KEY"
)
_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_CONNECTION = re.compile(r"(?P<id>.+?)\.(?P<field>host|port|login|password|schema|extra)(?:\.(?P<key>.+))?")


@dataclass(frozen=True)
class Reference:
    """One reference.

    Attributes:
        text: As it is written.
        scheme: ``env``, ``conn`` or ``var``.
        name: Of the variable or the connection.
        field: Field of the connection.
        key: Key in the connection's extra.
    """

    text: str
    scheme: str
    name: str
    field: str | None = None
    key: str | None = None


class SecretResolver(Protocol):
    """Port: where references lead. The runtime binds it to Airflow's connections, variables and environment."""

    def resolve(self, reference: Reference) -> str:
        """Return the value.

        Raises:
            UnresolvedReference: There is none.
        """
        ...


class MalformedReference(ValueError):
    """A text that begins as a reference and is none.

    Attributes:
        suggestion: What may have been meant.
    """

    def __init__(self, text: str, suggestion: str | None = None) -> None:
        super().__init__(text)
        self.suggestion = suggestion


class NoReferences:
    """A resolver for values that may not have any."""

    def resolve(self, reference: Reference) -> str:
        """Refuse.

        Raises:
            UnresolvedReference: Always.
        """
        raise UnresolvedReference(f"{reference.text} cannot be resolved here")


def parse(body: str) -> Reference:
    """Read what stands between ``${`` and ``}``.

    Raises:
        MalformedReference: It is no reference.
    """
    scheme, colon, name = body.partition(":")
    if not colon:
        raise MalformedReference(f"${{{body}}} is no reference", f"write {_FORMS}")
    if scheme not in SCHEMES:
        near = did_you_mean(scheme, SCHEMES)
        raise MalformedReference(f"${{{scheme}:…}} is no kind of reference", near or f"write {_FORMS}")
    if not name.strip():
        raise MalformedReference(f"${{{scheme}:}} names nothing", f"write {_FORMS}")
    text = f"${{{body}}}"
    if scheme != "conn":
        return Reference(text, scheme, name)
    found = _CONNECTION.fullmatch(name)
    if found is None or (found["key"] is not None) != (found["field"] == "extra"):
        raise MalformedReference(
            f"{text} names no field of a connection",
            f"write ${{conn:id.field}} with a field of {', '.join(CONNECTION_FIELDS[:-1])}, or ${{conn:id.extra.key}}",
        )
    return Reference(text, scheme, found["id"], found["field"], found["key"])


def references_in(text: str) -> list[Reference]:
    """Return the references in a text.

    Raises:
        MalformedReference: Something begins as a reference and is none.
    """
    found = []
    for token in _TOKEN.finditer(text):
        if token[0] == "$${":
            continue
        if not token[2]:
            raise MalformedReference(*_NOT_CLOSED)
        found.append(parse(token[1]))
    return found


def misplaced(
    node: Node, path: Path, *, allowed: bool, is_secret: Callable[[Path], bool] = lambda _: False
) -> list[tuple[Path, str, str | None]]:
    """Return every text under ``node`` whose references are malformed, or stand where none is resolved.

    Each comes with what is wrong and with a suggestion.

    Args:
        node: Where to begin.
        path: Its path.
        allowed: Whether references are resolved there.
        is_secret: Whether a value must not be quoted: what looks like a bad reference may be a part of a password.
    """
    faults: list[tuple[Path, str, str | None]] = []
    for where, leaf in node.leaves(path):
        if not isinstance(leaf.value, str) or "${" not in leaf.value:
            continue
        if any(token[0] == DELETE for token in _TOKEN.finditer(leaf.value)):
            # A list is one value: what is in it, maps too, replaces and is not merged.
            if not leaf.deletes or any(isinstance(key, int) for key in where):
                faults.append((where, _DELETES_NOTHING, "write what is to be there, without what is to go"))
            continue
        try:
            found = references_in(leaf.value)
        except MalformedReference as error:
            told = (f"a reference in this value must be {_FORMS}", "write $${ for the text ${ itself")
            faults.append((where, *(told if is_secret(where) else (str(error), error.suggestion))))
            continue
        if found and not allowed:
            only = "references are resolved in the config of agents and services only"
            faults.append((where, f"{found[0].text} stays as it is here: {only}", _FROM_OUTSIDE))
    return faults


def has_reference(value: Any) -> bool:
    """Whether there is a reference in a value, however deep."""
    if isinstance(value, Mapping):
        return any(map(has_reference, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_reference, value))
    return isinstance(value, str) and any(token[0] != "$${" for token in _TOKEN.finditer(value))


def _is_number(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


class Resolved:
    """Values whose references are resolved, and what must not be told of them.

    Args:
        declared: As it is written.
        resolver: Where references lead.

    Attributes:
        values: The resolved values.

    Raises:
        UnresolvedReference: A reference leads nowhere.
    """

    def __init__(self, declared: Any, resolver: SecretResolver) -> None:
        self._resolver = resolver
        self._secrets: dict[str, str] = {}
        self._declared = declared
        self.values = self._resolve(declared)

    @classmethod
    def nothing(cls) -> Resolved:
        """Return what has no references."""
        return cls({}, NoReferences())

    def hide(self, value: Any) -> Any:
        """Return a value, for example a dumped model, in which references stand for what they led to."""
        return self._restored(self._declared, value)

    def hide_text(self, text: str) -> str:
        """Return a text in which references stand for what they led to."""
        if not self._secrets:
            return text
        # Also as Python, JSON and URLs spell it: a key in PEM has line ends.
        spelt = {
            spelling: reference
            for secret, reference in self._secrets.items()
            for spelling in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""))
        }
        # The longest first: one secret may be a part of another. In one pass: one may be a part of a reference.
        longest_first = sorted(spelt, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: spelt[found[0]], text)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._resolve(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._resolve(item) for item in value]
        return _TOKEN.sub(self._substitute, value) if isinstance(value, str) else value

    def _substitute(self, token: re.Match[str]) -> str:
        if token[0] == "$${":
            return "${"
        try:
            (reference,) = references_in(token[0])
        except MalformedReference as error:
            raise UnresolvedReference(f"{error}: {error.suggestion}") from None
        secret = self._resolver.resolve(reference)
        if len(secret) >= _SHORTEST_SECRET:
            self._secrets[secret] = reference.text
        return secret

    def _restored(self, declared: Any, value: Any) -> Any:
        # By place, for values that are no texts any more or too short to be found; then wherever the text is.
        if isinstance(declared, str) and has_reference(declared):
            return declared
        if isinstance(value, Mapping):
            below = declared if isinstance(declared, Mapping) else {}
            return {self.hide_text(str(k)): self._restored(below.get(k), item) for k, item in value.items()}
        if isinstance(value, list | tuple):
            items = declared if isinstance(declared, list | tuple) and len(declared) == len(value) else []
            return [self._restored(items[i] if items else None, item) for i, item in enumerate(value)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            # A number that was moved, for example to a field with another name than its key.
            return next((text for secret, text in self._secrets.items() if _is_number(secret, value)), value)
        return self.hide_text(value) if isinstance(value, str) else value
