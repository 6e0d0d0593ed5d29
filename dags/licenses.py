"""The licences of the distributions installed in an environment: what is declared, and what it means."""

import contextlib
import enum
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.parser import HeaderParser
from importlib.metadata import distributions
from typing import Annotated, Any, Literal, NamedTuple

import license_expression as spdx_tools
from packaging.version import Version
from pydantic import AfterValidator, BaseModel, Field

Evidence = Literal["expression", "license-field", "classifier", "license-text", "none"]
TEXT_LIMIT, MAX_FILES = 2_000, 3  # characters of a licence text, licence files of a distribution
_FIELD_LIMIT = 200  # a longer License field is a licence text, not a name
_LICENSE_FILE = re.compile(r"(un)?licen[cs]e|copying|.*\.licen[cs]e$", re.IGNORECASE)


class DistributionRecord(BaseModel, frozen=True, extra="forbid"):
    """What one installed distribution, with a name and a PEP 440 version, declares about its licence."""

    name: str = Field(min_length=1)
    version: Annotated[str, AfterValidator(lambda text: Version(text) and text)]  # or it raises a ValueError
    license_expression: str | None
    license: Annotated[str | None, AfterValidator(lambda text: text and text[:TEXT_LIMIT])]
    classifiers: list[Annotated[str, Field(pattern="^License ::")]]
    license_files: Annotated[dict[str, str], Field(max_length=MAX_FILES)]
    location: str


class Family(enum.StrEnum):
    """What a licence asks of those who pass the work on, least first; unknown may forbid anything."""

    PERMISSIVE = "permissive"
    WEAK_COPYLEFT = "weak-copyleft"
    STRONG_COPYLEFT = "strong-copyleft"
    UNKNOWN = "unknown"


class Verdict(BaseModel, frozen=True, extra="forbid"):
    """What the licence of one distribution comes to, and why."""

    name: str
    version: str
    family: Family
    spdx: str | None
    evidence: Evidence
    reason: str
    needs_review: bool


def _clean(value: object, limit: int | None = None) -> str:
    # Neither JSON nor a database column holds lone surrogates and NUL.
    return str(value)[:limit].encode("utf-8", "replace").decode().replace("\0", "?")


def _metadata_text(folder: Any) -> str:
    for name in ("METADATA", "PKG-INFO", ""):  # an old .egg-info may be the file itself
        with contextlib.suppress(Exception):  # read_text() would give up on what is not UTF-8
            return str(folder.joinpath(name).read_bytes().decode("utf-8", "replace"))
    return ""


def _license_files(folder: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):  # the folder of another finder need not be a pathlib.Path
        paths = [path for path in folder.rglob("*") if _LICENSE_FILE.match(path.name) and path.is_file()]
        for path in sorted(paths, key=lambda path: (len(path.parts), path.name.lower()))[:MAX_FILES]:
            name = _clean(path.relative_to(folder).as_posix() if path.name in found else path.name)
            found[name] = ""  # an unreadable file is still listed
            with contextlib.suppress(OSError), path.open("rb") as file:
                found[name] = _clean(file.read(4 * TEXT_LIMIT).decode("utf-8", "replace"), TEXT_LIMIT)
    return found


def read_installed(path: list[str] | None = None) -> Iterator[dict[str, object]]:
    """Read what every installed distribution declares: one unvalidated dict each, whatever is wrong with it.

    Args:
        path: folders to look in instead of `sys.path`.

    Yields:
        The raw fields of a `DistributionRecord`, safe to serialise as JSON.
    """
    for dist in distributions() if path is None else distributions(path=path):
        folder = getattr(dist, "_path", "")  # not public, and the only way to the metadata folder
        headers = HeaderParser().parsestr(_metadata_text(folder))
        row: dict[str, object] = {"location": _clean(folder), "license_files": _license_files(folder)}
        classifiers = map(_clean, headers.get_all("Classifier", []))
        row["classifiers"] = [text for text in classifiers if text.startswith("License ::")]
        for key in ("Name", "Version", "License-Expression", "License"):
            value = headers.get(key)
            row[key.lower().replace("-", "_")] = None if value is None else _clean(value, TEXT_LIMIT)
        yield row


class _Reading(NamedTuple):
    """What one piece of evidence says; `spdx` is None when that is no single expression."""

    spdx: str | None
    leaves: frozenset[Family]
    family: Family
    notes: tuple[str, ...] = ()


# fmt: off
_UNKNOWN = _Reading(None, frozenset({Family.UNKNOWN}), Family.UNKNOWN)
_RANK = {family: rank for rank, family in enumerate(Family)}
_CATEGORIES = {"Permissive": Family.PERMISSIVE, "Public Domain": Family.PERMISSIVE,
               "Copyleft Limited": Family.WEAK_COPYLEFT, "Copyleft": Family.STRONG_COPYLEFT}
# Names that are no SPDX identifier; several identifiers where the name leaves it open.
_ALIASES = {
    "Public Domain": "LicenseRef-scancode-public-domain", "University of Illinois/NCSA open source": "NCSA",
    "BSD": "BSD-3-Clause BSD-2-Clause BSD-4-Clause", "Artistic": "Artistic-1.0 Artistic-2.0", "Expat": "MIT",
    "AGPL": "AGPL-3.0-only AGPL-1.0-only", "Apache": "Apache-2.0 Apache-1.1", "Modified BSD": "BSD-3-Clause",
    "Simplified BSD": "BSD-2-Clause", "Zope Public": "ZPL-2.1 ZPL-2.0", "Python": "PSF-2.0 Python-2.0",
    "CNRI Python": "CNRI-Python", "LGPL": "LGPL-2.0-or-later", "Common Public": "CPL-1.0", "MIT X11": "MIT",
    "New BSD": "BSD-3-Clause", "MPL": "MPL-2.0 MPL-1.1", "AFL": "AFL-2.1 AFL-3.0", "BSD 2": "BSD-2-Clause",
    "BSD 3": "BSD-3-Clause", "IBM Public": "IPL-1.0", "Qt Public": "QPL-1.0", "ASL 2": "Apache-2.0",
    "zlib/libpng": "Zlib", "AL2": "Apache-2.0", "CC0": "CC0-1.0", "UPL": "UPL-1.0", "PSF": "PSF-2.0",
    "ISCL": "ISC",
}
_SPELLINGS = (
    (r"https?://(www\.)?(opensource|apache)\.org/licenses?/", r"\2 "), (r"eclipse public", "epl"),
    (r"(library or lesser|lesser|library) general public", "lgpl"), (r"affero general public", "agpl"),
    (r"gnu general public", "gpl"), (r"mozilla public", "mpl"), (r"python software foundation", "psf"),
    (r">=|[ (-]or[ -]((any[ -])?later|newer|above)([ -]versions?)?", "+"), (r"v(ersion|\.)?(?=[ -]?\d)", " "),
    (r"\b(the|a|licen[cs]es?|licensed|software|gnu|under|dual|opensource|html|php|txt)\b", " "),
)
_BSD = "redistribution and use in source and binary forms,? with or without modification,? are permitted prov"
_PHRASES = (
    ("apache license,? (version )?2.0", "Apache-2.0"), ("mozilla public license,? v\\S+ 2.0", "MPL-2.0"),
    ("free of charge, to any person obtaining a copy of this software and.*this permission notice", "MIT"),
    (f"{_BSD}.*all advertising materials", "BSD-4-Clause"),
    (f"{_BSD}(?!.*all advertising).*(neither the name|endorse or promote)", "BSD-3-Clause"),
    (f"{_BSD}(?!.*(all advertising|neither the name|endorse or promote)).*this software is", "BSD-2-Clause"),
    ("distribute this software for any purpose with or without fee is hereby granted, provided that", "ISC"),
    ("is free and unencumbered software released into the public domain", "Unlicense"),
    ("between the python software foundation|van rossum at stichting mathematisch centrum", "PSF-2.0"),
    ("commons clause|non-?commercial (use|purposes)", None),
)
_NOISE = re.compile(r"secondary\s+license\W+means.{0,300}|[*#\"'“”]", re.DOTALL)
_GNU = re.compile(r"gnu (affero |lesser |library )?general public license(.{0,90}?\bv(ersion )?(\d(\.\d)?))?")
_WHY = {"OR": "a choice counts as its most permissive side", "AND": "its most restrictive part counts",
        None: "nothing says how its parts combine, so the most restrictive counts"}
# fmt: on


@functools.cache
def _index() -> tuple[dict[str, _Reading], dict[str, _Reading]]:
    """What SPDX lists, by lower-cased identifier: the licences, and the exceptions to them."""
    found: tuple[dict[str, _Reading], dict[str, _Reading]] = ({}, {})
    for row in spdx_tools.get_license_index():
        family = _CATEGORIES.get(row["category"], Family.UNKNOWN)
        # GPL-2.0-with-GCC-exception and its like are licence and exception in one.
        exception = row["is_exception"] and "-with-" not in str(row["spdx_license_key"])
        for key in filter(None, (row["spdx_license_key"], *row["other_spdx_license_keys"])):
            # Any other LicenseRef means what the document around it says, which is not here.
            if not key.startswith("LicenseRef-") or key.startswith("LicenseRef-scancode-"):
                found[exception][key.lower()] = _Reading(row["spdx_license_key"], frozenset({family}), family)
    return found


def _words(text: str) -> frozenset[str]:
    """What tells one licence name from another: `GNU GPL v3 (GPLv3)` and `GPL-3.0` come out the same."""
    text = " ".join(text.lower().split())
    text = functools.reduce(lambda text, rule: re.sub(rule[0], rule[1], text), _SPELLINGS, text)
    return frozenset(word.removesuffix(".0") for word in re.findall(r"[a-z]+|\d+(?:\.\d+)*|\+", text))


def _leaf(key: str) -> _Reading:
    known, low = _index()[0], key.lower()
    if low.startswith(("licenseref-", "documentref-")) and low not in known:
        return _UNKNOWN._replace(spdx=key)
    return known.get(low) or known[low.removesuffix("+")]


def _combine(readings: Sequence[_Reading], operator: str | None) -> _Reading:
    """Join readings by AND, by OR, or by None when nothing says which of the two is meant."""
    if len(set(readings)) == 1 and operator is None:
        return readings[0]
    families = {reading.family for reading in readings}
    family = (min if operator == "OR" else max)(families, key=_RANK.__getitem__)
    notes = [note for reading in readings for note in reading.notes]
    names = " or ".join(reading.spdx for reading in readings if reading.spdx)
    if len(families) > 1 or (names and operator is None):
        notes.append(_WHY[operator] if len(families) > 1 else f"it may be {names}")
    parts = [f"({r.spdx})" if re.search(" AND | OR ", r.spdx or "") else r.spdx for r in readings]
    spdx = f" {operator} ".join(map(str, parts)) if operator and all(parts) else None
    leaves = frozenset[Family]().union(*(reading.leaves for reading in readings))
    return _Reading(spdx, leaves, family, tuple(dict.fromkeys(notes)))


@functools.cache
def _names() -> dict[frozenset[str], _Reading]:
    known = {_words(key): reading for key, reading in _index()[0].items()}
    return known | {_words(key): _combine([*map(_leaf, ids.split())], None) for key, ids in _ALIASES.items()}


def _name(text: str) -> _Reading:
    return _names()[_words(text)]


def _evaluate(node: Any, resolve: Callable[[str], _Reading]) -> _Reading:
    if isinstance(node, spdx_tools.LicenseSymbol):
        return resolve(node.key)
    if not isinstance(node, spdx_tools.LicenseWithExceptionSymbol):
        return _combine([_evaluate(side, resolve) for side in node.args], type(node).__name__)
    base, weak = resolve(node.license_symbol.key), Family.WEAK_COPYLEFT
    exception = _index()[1].get(node.exception_symbol.key.lower())
    if exception is None:
        return base._replace(spdx=None, notes=(*base.notes, f"no SPDX exception: {node.exception_symbol}"))
    spdx = base.spdx and f"{base.spdx} WITH {exception.spdx}"
    if exception.family is Family.UNKNOWN:  # the Commons Clause is one
        return exception._replace(spdx=spdx)
    # What leaves a strong copyleft whole (a leave to link with OpenSSL, say) is in the index as Copyleft.
    if base.family is Family.STRONG_COPYLEFT and _RANK[exception.family] <= _RANK[weak]:
        return _Reading(spdx, frozenset({weak}), weak, (f"{exception.spdx} weakens its strong copyleft",))
    return base._replace(spdx=spdx)


def _parse(text: str, resolve: Callable[[str], _Reading]) -> _Reading | None:
    """Read an expression; None when it is none, or names what `resolve` does not know."""
    with contextlib.suppress(Exception):  # the parser has many ways to fail: `( )` is an IndexError
        return _evaluate(spdx_tools.Licensing().parse(text), resolve) if text.strip() else None
    return None


def _read_field(text: str) -> _Reading | None:
    """Read free text that names one licence or several; None when it does not."""
    if len(text) > _FIELD_LIMIT:
        return None
    outer, inner = re.sub(r"\(.*?\)", "", text), text.partition("(")[2].partition(")")[0]
    for name in (text,) if "gpl" in text.lower() else (text, outer, inner):  # "MIT (tools: GPL)" is not MIT
        with contextlib.suppress(KeyError):
            return _name(name)
        if reading := _parse(name.replace("-or-", " or "), _name):
            return reading
        if re.search(r"proprietary|commercial", text, re.IGNORECASE):
            return _UNKNOWN
    with contextlib.suppress(KeyError):
        return _combine([_name(part) for part in re.split(r"[,/;|&]", text)], None)
    return None


def _read_texts(texts: Iterable[str]) -> _Reading | None:
    """Read licence texts by their unmistakable phrases; where the MPL names the GPL, that is none."""
    found: dict[str | None, _Reading] = {}
    for text in texts:
        flat = " ".join(_NOISE.sub(" ", text.lower()).split())
        found |= {key: _leaf(key) if key else _UNKNOWN for mark, key in _PHRASES if re.search(mark, flat)}
        verbatim, later = "verbatim copies" in flat, "any later version" in flat
        titles = list(_GNU.finditer(flat))[: 1 if verbatim else None]  # the full texts name each other
        for title in sorted(titles, key=lambda title: title[4] is None):
            kind = (title[1] or "")[:1].upper() + "GPL"
            versions = (_words(f"{kind} {title[4]}"), _words(f"{kind} {title[4]}+"))
            readings = [_names()[words] for words in versions if words in _names()]
            chosen = readings if verbatim else readings[later : later + 1]
            found.setdefault(kind, _combine(chosen or [_name(kind)], None))
    if "LGPL-3" in str(found.get("LGPL")) and "GPL-3" in str(found.get("GPL")):
        del found["GPL"]  # the LGPL 3 is written as additions to the GPL 3, whose text comes along
    return _combine([*found.values()], None) if found else None


def judge(record: DistributionRecord) -> Verdict:
    """Say what the licence comes to, by expression, License field, classifiers or licence texts.

    The first of these that can be read counts; when one of the others contradicts it, a person has to look.

    Returns:
        The verdict, with a reason that can be checked against the metadata.
    """
    field, declared = record.license or "", record.license_expression or ""
    rows = [row.rpartition(" :: ")[2] for row in record.classifiers if not row.lower().endswith(" approved")]
    texts = record.license_files | ({"License field": field} if len(field) > _FIELD_LIMIT else {})
    classified = [_read_field(row) or _UNKNOWN for row in rows]
    sources: tuple[tuple[Evidence, str, _Reading | None], ...] = (
        ("expression", f"License-Expression {declared!r}", _parse(declared, _leaf)),
        ("license-field", f"License field {field!r}", _read_field(field)),
        ("classifier", f"Classifier {', '.join(rows)}", _combine(classified, None) if rows else None),
        ("license-text", f"Licence text in {', '.join(texts)}", _read_texts(texts.values())),
        ("none", "A licence that nothing declared or shipped names", _UNKNOWN),
    )
    (evidence, source, best), *others = [(kind, name, reading) for kind, name, reading in sources if reading]
    doubts = [f"{sources[0][1]} is not valid SPDX"] if declared and evidence != "expression" else []
    for kind, name, reading in others[:-1]:
        # Bundled code brings texts of its own: only those that ask for more are news.
        news = {leaf for leaf in reading.leaves if kind != "license-text" or _RANK[leaf] > _RANK[best.family]}
        doubts += [f"{name} says {leaf.replace('-', ' ')}" for leaf in sorted(news - best.leaves)]
    means = f"{source} means {best.spdx}, which" if best.spdx else source
    said = [f"{means} is {best.family.replace('-', ' ')}", *best.notes, *(f"but {doubt}" for doubt in doubts)]
    named, reason = record.model_dump(include={"name", "version"}), "; ".join(said) + "."
    clear = not doubts and _RANK[best.family] < _RANK[Family.STRONG_COPYLEFT] and _WHY[None] not in best.notes
    return Verdict(
        **named, family=best.family, spdx=best.spdx, evidence=evidence, reason=reason, needs_review=not clear
    )


def _one_licence(text: str) -> str:
    """Return the SPDX spelling of one licence."""
    reading = _parse(text, _leaf)
    if reading is None or reading.spdx is None or re.search(" AND | OR ", reading.spdx):
        raise ValueError(f"{text!r} is not the SPDX identifier of one licence")
    return reading.spdx


class ApprovedLicenses:
    """The licences that a company has approved.

    Args:
        spdx: Their SPDX identifiers. With an exception it is another licence: `Apache-2.0 WITH LLVM-exception`.

    Raises:
        ValueError: One of these is no identifier.
    """

    def __init__(self, spdx: Sequence[Annotated[str, AfterValidator(_one_licence)]]) -> None:
        self._approved = frozenset(map(_one_licence, spdx))

    def cover(self, expression: str | None) -> bool:
        """Whether they suffice for an SPDX expression: all parts of an AND, one side of an OR."""
        return expression is not None and self._suffice(spdx_tools.Licensing().parse(expression))

    def _suffice(self, node: Any) -> bool:
        if isinstance(node, spdx_tools.AND | spdx_tools.OR):
            return (any if isinstance(node, spdx_tools.OR) else all)(map(self._suffice, node.args))
        return node.render() in self._approved
