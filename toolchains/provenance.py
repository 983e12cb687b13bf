"""`<archive>.provenance.json`: where, by what and when an archive was made, and how it was checked.

An in-toto statement with SLSA's provenance (https://slsa.dev/spec/v1.0/provenance). It tells of one
machine, so it lies beside the archive and has no sum of its own.
"""

from __future__ import annotations

import platform
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec

from kernels.errors import InputError
from toolchains import processor
from toolchains.engines import Surroundings
from toolchains.report import Report
from toolchains.sbom import Recipe

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kernfit:release:1"
"""What `externalParameters` mean: see docs/release.md."""
SUFFIX = ".provenance.json"


class Digested(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file, or what else has a digest (in-toto's ResourceDescriptor)."""

    name: str
    digest: dict[str, str]
    annotations: dict[str, Any] = {}


class BuildDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was asked for, of what machine, and from what."""

    build_type: str
    external_parameters: Recipe
    internal_parameters: dict[str, Any]
    resolved_dependencies: list[Digested]


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Who ran it, when, and what came of it besides."""

    builder: dict[str, str]
    metadata: dict[str, str]
    byproducts: list[Digested]


class Predicate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """SLSA's provenance."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(
    msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}
):
    """An in-toto statement about one archive."""

    type: str
    subject: list[Digested]
    predicate_type: str
    predicate: Predicate


def write_provenance(
    archive: tuple[str, str],
    recipe: Recipe,
    report: Report,
    report_file: tuple[str, str],
    where: Surroundings,
) -> bytes:
    """The statement about an archive, whose name and SHA-256 come together, as the report's do."""
    commit = Digested(name="kernfit", digest={"gitCommit": recipe.source.commit})
    made_from = [
        commit,
        *(Digested(name=name, digest={"sha256": sha256}) for name, sha256 in recipe.files.items()),
    ]
    if where.image:
        made_from.append(
            Digested(name=where.image, digest={"sha256": where.digest.removeprefix("sha256:")})
        )
    statement = Statement(
        type=STATEMENT,
        subject=[Digested(name=archive[0], digest={"sha256": archive[1]})],
        predicate_type=PREDICATE,
        predicate=Predicate(
            build_definition=BuildDefinition(
                build_type=BUILD_TYPE,
                external_parameters=recipe,
                internal_parameters={
                    "machine": platform.machine(),
                    "system": f"{platform.system()} {platform.release()}",
                    "processor": processor.here(),
                    "python": platform.python_version(),
                    "unpinned": list(where.unpinned),
                },
                resolved_dependencies=made_from,
            ),
            run_details=RunDetails(
                builder={"id": f"urn:kernfit:engine:{where.engine}"},
                metadata={"finishedOn": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
                byproducts=[
                    Digested(
                        name=report_file[0], digest={"sha256": report_file[1]}, annotations=_checks(report)
                    )
                ],
            ),
        ),
    )
    return msgspec.json.format(msgspec.json.encode(statement), indent=1) + b"\n"


def _checks(report: Report) -> dict[str, Any]:
    """How many checks ran on each processor, and how they ended; and the promises that hold."""
    by_cpu: dict[str, Counter[str]] = {}
    for row in report.rows:
        by_cpu.setdefault(row.cpu, Counter())[row.status] += 1
    return {
        "engine": report.engine,
        "emulators": sorted({row.emulator for row in report.rows if row.emulator}),
        "checks": {cpu: dict(sorted(counts.items())) for cpu, counts in by_cpu.items()},
        "promises": [each.name for each in report.inspections if each.passed],
    }


def read_provenance(data: bytes) -> Statement:
    """The statement; InputError if it is none of ours."""
    try:
        statement = msgspec.json.decode(data, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"no provenance that `invoke release` wrote: {error}") from error
    told = (statement.type, statement.predicate_type, statement.predicate.build_definition.build_type)
    if told != (STATEMENT, PREDICATE, BUILD_TYPE):
        raise InputError(f"no provenance that `invoke release` wrote: its types are {', '.join(told)}")
    return statement
