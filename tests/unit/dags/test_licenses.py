"""The licence audit: what is read from an environment, and what it is taken to mean."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from licenses import TEXT_LIMIT, DistributionRecord, Family, Verdict, judge, read_installed

PERMISSIVE, WEAK, STRONG, UNKNOWN = Family
Cases = list[tuple[Family, str | None, list[str]]]
RANK = {family: rank for rank, family in enumerate(Family)}

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction, subject to the
following conditions: The above copyright notice and this permission notice shall be included in all copies."""
BSD_2 = """Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met: 1. ... 2. ... {}
THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"."""
BSD_3 = BSD_2.format("* Neither the name of the holder nor the names of its contributors may be used")
APACHE = "                        Apache License\n                  Version 2.0, January 2004\n"
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is
hereby granted, provided that the above copyright notice and this permission notice appear in all copies."""
PSF = '1. This LICENSE AGREEMENT is between the Python Software Foundation\n("PSF"), and the Individual'
UNLICENSE = "This is free and unencumbered software released into the public domain.\n"
MPL = """Mozilla Public License Version 2.0\n1.12. "Secondary License"
    means either the GNU General Public License, Version 2.0, the GNU Lesser General Public License, Version 2.1"""
VERBATIM = "Everyone is permitted to copy and distribute verbatim copies\nof this license document.\n"
GPL_2 = f"""GNU GENERAL PUBLIC LICENSE\n   Version 2, June 1991\n{VERBATIM}
(Some other Free Software Foundation software is covered by
the GNU Lesser General Public License instead.)"""
GPL_3 = f"GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n{VERBATIM}"
LGPL_3 = f"""GNU LESSER GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n{VERBATIM}
This version of the GNU Lesser General Public License incorporates
the terms and conditions of version 3 of the GNU General Public License"""
AGPL_3 = f"GNU AFFERO GENERAL PUBLIC LICENSE\n   Version 3, 19 November 2007\n{VERBATIM}"
CLASSPATH, OPENSSL = "Classpath-exception-2.0", "cryptsetup-OpenSSL-exception"
COMMONS = "LicenseRef-scancode-commons-clause"
GPL_ROW = "OSI Approved :: GNU General Public License v3 (GPLv3)"
MIT_ROW = "OSI Approved :: MIT License"
LGPL_NOTICE = """x is free software: you can redistribute it and/or modify it under the terms of the
GNU Lesser General Public License as published by the Free Software Foundation, either version 3 of the License,
or (at your option) any later version. See the GNU Lesser General Public License for more details."""


def record(
    expression: str | None = None, field: str | None = None, rows: Sequence[str] = (), *texts: str
) -> DistributionRecord:
    return DistributionRecord(
        name="thing",
        version="1.0",
        license_expression=expression,
        license=field,
        classifiers=[f"License :: {row}" for row in rows],
        license_files={f"LICENSE.{number}": text for number, text in enumerate(texts)},
        location="/nowhere",
    )


# Each as (family, normalised expression, ways it is written).
EXPRESSIONS: Cases = [
    (PERMISSIVE, "MIT OR Apache-2.0", ["MIT OR Apache-2.0", "mit or apache-2.0", "(MIT) OR (Apache-2.0)"]),
    *((PERMISSIVE, same, [same]) for same in ("Apache-2.0 AND MIT", "Unlicense", "MIT OR GPL-3.0-only")),
    *((PERMISSIVE, same, [same]) for same in ("Apache-2.0 WITH LLVM-exception", "MIT OR LicenseRef-House")),
    (WEAK, "LGPL-3.0-only", ["LGPL-3.0-only", "LGPL-3.0"]),
    (WEAK, f"GPL-2.0-only WITH {CLASSPATH}", [f"GPL-2.0-only WITH {CLASSPATH}", f"GPL-2.0 with {CLASSPATH}"]),
    *(
        (WEAK, same, [same])
        for same in ("MPL-2.0", "MIT AND (GPL-2.0-only OR MPL-2.0)", "GPL-3.0-with-GCC-exception")
    ),
    (STRONG, "GPL-2.0-or-later", ["GPL-2.0+", "GPL-2.0-or-later"]),
    (STRONG, f"GPL-2.0-only WITH {OPENSSL}", [f"GPL-2.0-only WITH {OPENSSL}"]),
    (STRONG, None, ["GPL-3.0-only WITH made-up-exception"]),
    *((UNKNOWN, same, [same]) for same in (f"MIT WITH {COMMONS}", "SSPL-1.0", "MIT AND LicenseRef-House")),
]
FIELDS: Cases = [
    (PERMISSIVE, "MIT", ["MIT License", "The MIT License (MIT)", "https://opensource.org/licenses/MIT"]),
    (PERMISSIVE, "Apache-2.0", ["Apache 2.0", "Apache License, Version 2.0", "Apache Software License 2.0"]),
    (PERMISSIVE, "Apache-2.0", ["http://www.apache.org/licenses/LICENSE-2.0", "apache2", "ASL 2.0"]),
    (PERMISSIVE, "BSD-3-Clause", ["BSD-3-Clause", "3-Clause BSD License", "New BSD", "BSD (3-clause)"]),
    (PERMISSIVE, None, ["BSD", "BSD License", "MIT, Apache-2.0"]),
    (PERMISSIVE, "MIT OR Apache-2.0", ["MIT -or- Apache License 2.0", "MIT OR Apache-2.0"]),
    (WEAK, "MPL-2.0", ["MPLv2.0", "MPL 2.0", "Mozilla Public License 2.0"]),
    (WEAK, "LGPL-2.1-or-later", ["GNU LGPL v2.1 or later", "LGPLv2.1+"]),
    (WEAK, None, ["LGPL with exceptions", "LGPL/MIT"]),
    (STRONG, "GPL-2.0-or-later", ["GPLv2+", "GPL (>= 2)", "GNU General Public License v2 or later (GPLv2+)"]),
    (STRONG, "AGPL-3.0-only", ["GNU Affero General Public License v3", "AGPLv3"]),
    (STRONG, "GPL-2.0-only AND MIT", ["Dual License: GPLv2 and MIT", "GPL-2.0 AND (MIT)"]),
    (UNKNOWN, None, ["Proprietary", "Free for non-commercial use"]),
]
CLASSIFIERS: Cases = [
    (PERMISSIVE, "MIT", ["MIT License"]),
    (PERMISSIVE, None, ["BSD License", "Apache Software License"]),
    (PERMISSIVE, "ISC", ["ISC License (ISCL)"]),
    (PERMISSIVE, "PSF-2.0", ["Python Software Foundation License"]),
    (PERMISSIVE, "CC0-1.0", ["CC0 1.0 Universal (CC0 1.0) Public Domain Dedication"]),
    (WEAK, "MPL-2.0", ["Mozilla Public License 2.0 (MPL 2.0)"]),
    (WEAK, "LGPL-3.0-only", ["GNU Lesser General Public License v3 (LGPLv3)"]),
    (WEAK, "LGPL-2.0-or-later", ["GNU Library or Lesser General Public License (LGPL)"]),
    (STRONG, "GPL-3.0-only", ["GNU General Public License v3 (GPLv3)"]),
    (STRONG, "AGPL-3.0-or-later", ["GNU Affero General Public License v3 or later (AGPLv3+)"]),
    (UNKNOWN, None, ["Other/Proprietary License", "Freeware"]),
]
TEXTS: Cases = [
    *((PERMISSIVE, spdx, [text]) for spdx, text in {"MIT": MIT, "ISC": ISC, "Unlicense": UNLICENSE}.items()),
    *((PERMISSIVE, spdx, [text]) for spdx, text in {"BSD-2-Clause": BSD_2, "BSD-3-Clause": BSD_3}.items()),
    *((PERMISSIVE, spdx, [text]) for spdx, text in {"Apache-2.0": APACHE, "PSF-2.0": PSF}.items()),
    *(
        (WEAK, spdx, [text])
        for spdx, text in {"MPL-2.0": MPL, "LGPL-3.0-or-later": LGPL_NOTICE, None: LGPL_3}.items()
    ),
    (STRONG, None, [GPL_2, GPL_3, AGPL_3, f"{MIT}\n{GPL_3}"]),
    (UNKNOWN, None, [f"{MIT}\n'Commons Clause' License Condition v1.0"]),
]


def one_by_one(evidence: str, cases: Cases) -> list[tuple[str, str, Family, str | None]]:
    return [(evidence, text, family, spdx) for family, spdx, texts in cases for text in texts]


@pytest.mark.parametrize(
    ("evidence", "text", "family", "spdx"),
    [
        *one_by_one("expression", EXPRESSIONS),
        *one_by_one("license-field", FIELDS),
        *one_by_one("classifier", CLASSIFIERS),
        *one_by_one("license-text", TEXTS),
    ],
)
def test_every_kind_of_evidence(evidence: str, text: str, family: Family, spdx: str | None) -> None:
    place = ["expression", "license-field", "classifier", "license-text"].index(evidence)
    row = ["DFSG approved", f"OSI Approved :: {text}"]
    verdict = judge([record(text), record(None, text), record(rows=row), record(None, None, (), text)][place])
    assert (verdict.family, verdict.spdx, verdict.evidence) == (family, spdx, evidence)
    assert verdict.needs_review == (family in (STRONG, UNKNOWN) or text == "LGPL/MIT")


@pytest.mark.parametrize(
    "field", [None, "", " ", "UNKNOWN", "See LICENSE.txt", "not MIT", "MIT (tools: GPL)", "( )", "( or MIT"]
)
def test_a_field_that_names_no_license_is_none(field: str | None) -> None:
    verdict = judge(record(field=field))
    assert (verdict.family, verdict.spdx, verdict.evidence) == (UNKNOWN, None, "none")
    assert verdict.needs_review


def test_a_long_license_field_is_a_text() -> None:
    assert judge(record(field=MIT)).evidence == "license-text"
    assert judge(record(field="All rights reserved. " * 20)).evidence == "none"


def test_the_best_evidence_counts() -> None:
    bsd = ("OSI Approved :: BSD License",)
    assert judge(record("MIT", "ISC", bsd, APACHE)).spdx == "MIT"
    assert judge(record(None, "ISC", bsd, APACHE)).spdx == "ISC"
    assert judge(record(None, "UNKNOWN", bsd, APACHE)).evidence == "classifier"
    assert judge(record(None, "UNKNOWN", (), APACHE)).spdx == "Apache-2.0"


@pytest.mark.parametrize(
    ("contradictory", "family"),
    [
        (record("MIT", rows=(GPL_ROW,)), PERMISSIVE),
        (record("MIT", "GPLv3"), PERMISSIVE),
        (record("MIT", None, (), GPL_3), PERMISSIVE),
        (record("LGPL-3.0-only", rows=(MIT_ROW,)), WEAK),
        (record(field="MIT", rows=("Other/Proprietary License",)), PERMISSIVE),
        (record(rows=(MIT_ROW, GPL_ROW)), STRONG),
        (record("Apache 2.0", rows=(MIT_ROW,)), PERMISSIVE),
        (record(field="Artistic License", rows=("OSI Approved :: Artistic License", GPL_ROW)), WEAK),
    ],
)
def test_contradictory_evidence_needs_review(contradictory: DistributionRecord, family: Family) -> None:
    verdict = judge(contradictory)
    assert verdict.family == family
    assert verdict.needs_review
    assert "but" in verdict.reason or "how its parts combine" in verdict.reason


@pytest.mark.parametrize(
    "coherent",
    [
        record("MIT OR GPL-3.0-only", None, (MIT_ROW, GPL_ROW), MIT, GPL_3),
        record("LGPL-3.0-only", None, (), LGPL_3, GPL_3),
        record("MPL-2.0", None, (), MPL, MIT),
        record(None, "MIT", ("DFSG approved", MIT_ROW), MIT),
    ],
)
def test_coherent_evidence_needs_none(coherent: DistributionRecord) -> None:
    assert not judge(coherent).needs_review


IDENTIFIERS = st.sampled_from(
    ["MIT", "MPL-2.0", "LGPL-3.0-only", "GPL-3.0-only", "AGPL-3.0-only", "SSPL-1.0", "LicenseRef-X"]
) | st.builds(
    "{} WITH {}".format,
    st.sampled_from(["Apache-2.0", "GPL-2.0-only"]),
    st.sampled_from([CLASSPATH, "nothing", OPENSSL, COMMONS]),
)
TREES = st.recursive(
    IDENTIFIERS,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda it: f"({' '.join(it)})"),
    max_leaves=6,
)


@given(TREES, TREES)
def test_and_restricts_and_or_relaxes(left: str, right: str) -> None:
    sides = [RANK[judge(record(side)).family] for side in (left, right)]
    assert RANK[judge(record(f"{left} AND {right}")).family] == max(sides)
    assert RANK[judge(record(f"{left} OR {right}")).family] == min(sides)


@given(TREES)
def test_the_normalised_expression_means_the_same(expression: str) -> None:
    verdict = judge(record(expression))
    if verdict.spdx:
        again = judge(record(verdict.spdx))
        assert (again.family, again.spdx) == (verdict.family, verdict.spdx)


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.text())
def test_nothing_makes_it_fail(expression: str, field: str, rows: list[str], text: str) -> None:
    verdict = judge(record(expression, field, rows, text))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def install(site: Path, folder: str, metadata: bytes | None) -> Path:
    info = site / folder
    info.mkdir(parents=True)
    if metadata is not None:
        (info / ("PKG-INFO" if folder.endswith(".egg-info") else "METADATA")).write_bytes(metadata)
    return info


def test_one_dict_per_distribution_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    install(tmp_path, "latin-1.0.dist-info", b"Name: latin\nVersion: 1.0\nAuthor: Andr\xe9\nLicense: MIT\n\n")
    install(tmp_path, "bare-1.0.dist-info", None)
    install(tmp_path, "nameless-1.0.dist-info", b"Metadata-Version: 2.1\nVersion: 1.0\n\n")
    install(tmp_path, "odd-1.0.dist-info", b"Name: odd\nVersion: one\n\n")
    install(tmp_path, "old-1.0.egg-info", b"Name: old\nVersion: 1.0\nClassifier: License :: OSI Approved\n\n")
    (tmp_path / "file-1.0.egg-info").write_bytes(b"Name: file\nVersion: 1.0\nLicense: nul\0\n\n")
    rows = list(read_installed([str(tmp_path)]))
    assert len(rows) == len(list(importlib.metadata.distributions(path=[str(tmp_path)]))) == 6
    names = sorted(str(row["name"]) for row in json.loads(json.dumps(rows)))
    assert names == ["None", "None", "file", "latin", "odd", "old"]
    bad = [row for row in rows if row["name"] in (None, "odd")]
    for row in bad:
        with pytest.raises(ValidationError, match=r"valid string|Invalid version: 'one'"):
            DistributionRecord.model_validate(row)
    good = {row["name"]: DistributionRecord.model_validate(row) for row in rows if row not in bad}
    assert good["latin"].license == "MIT"
    assert good["file"].license == "nul?"
    assert good["old"].classifiers == ["License :: OSI Approved"]


def test_license_files_are_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = install(tmp_path, "a-1.0.dist-info", f"Name: a\nVersion: 1\nLicense: {'x' * 3_000}\n\n".encode())
    (info / "licenses" / "vendor").mkdir(parents=True)
    for name in ("NOTICE", "AUTHORS", "LICENSE", "licenses/LICENCE.txt", "licenses/vendor/COPYING"):
        (info / name).write_bytes(b"\xff" + b"y" * 3_000)
    (info / "licenses" / "vendor" / "LICENSE").write_bytes(b"the fourth")
    opened = Path.open

    def refuse(path: Path, mode: str = "r") -> Any:
        if path == info / "LICENSE":
            raise PermissionError
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    [row] = read_installed([str(tmp_path)])
    found = DistributionRecord.model_validate(row)
    lengths = {name: len(text) for name, text in found.license_files.items()}
    assert lengths == {"LICENSE": 0, "LICENCE.txt": TEXT_LIMIT, "COPYING": TEXT_LIMIT}
    assert found.license == "x" * TEXT_LIMIT
    assert found.location == str(info)


def test_every_installed_distribution_is_read_once() -> None:
    assert len(list(read_installed())) == len(list(importlib.metadata.distributions()))


@pytest.mark.parametrize(
    ("name", "family"),
    [("psycopg2-binary", WEAK), ("certifi", WEAK), ("asyncpg", PERMISSIVE)],
)
def test_this_environment(name: str, family: Family) -> None:
    (row,) = (row for row in read_installed() if row["name"] == name)
    assert judge(DistributionRecord.model_validate(row)).family == family
