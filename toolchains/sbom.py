"""sbom.cdx.json, a member of each released archive: what it holds, and how it was made.

CycloneDX 1.6 (ECMA-424). Components are the other members, with their hashes; the formulation
names the model, kernfit's commit, and the tools that made the objects, with what they were told.
Serial number and time come from the content, so that the file depends on the source alone.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from kernels.errors import InputError
from toolchains.cache import MADE_FROM
from toolchains.link import archiver, shared_linker
from toolchains.source import Source
from toolchains.target import Target

SBOM = "sbom.cdx.json"
SCHEMA = SchemaVersion.V1_6
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "kernfit:sbom")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that an archive was made from: a commit, one of its models, and what was asked for.

    `model` is the path of the model within the checkout, and `files` has the SHA-256 of each of
    the model's files by path. `versions` are those of packages and of LLVM.
    """

    source: Source
    library: str
    version: str
    target: str
    model: str
    files: dict[str, str]
    dims: dict[str, int]
    weights: str
    versions: dict[str, str]

    def words(self) -> list[str]:
        """The words after `invoke release` that make this archive again."""
        dims = [word for name, size in self.dims.items() for word in ("--dim", f"{name}={size}")]
        return ["--arch", self.target, "--model", self.model, "--weights", self.weights, *dims]


def write_sbom(recipe: Recipe, target: Target, members: Mapping[str, str]) -> bytes:
    """The SBOM of an archive whose other members have these SHA-256, by name."""
    library = Component(
        name=recipe.library,
        version=recipe.version,
        type=ComponentType.LIBRARY,
        bom_ref="library",
        description=f"Kernels of {recipe.library} for {target.title}",
    )
    tool = Component(name="kernfit", version=recipe.version, type=ComponentType.APPLICATION)
    files = [
        _hashed(name, ComponentType.FILE, f"member:{name}", sha256) for name, sha256 in members.items()
    ]
    bom = Bom(
        serial_number=NAMESPACE,
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(recipe.source.epoch, UTC),
            component=library,
            tools=ToolRepository(components=[tool]),
        ),
        components=files,
    )
    bom.register_dependency(library, files)
    written = _json(bom)
    written["formulation"] = [_formula(recipe, target)]
    written["serialNumber"] = serial_number(written)
    return json.dumps(written, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def serial_number(told: Mapping[str, Any]) -> str:
    """The serial number of an SBOM, which is that of all the rest of it."""
    content = json.dumps(
        {key: value for key, value in told.items() if key != "serialNumber"}, sort_keys=True
    )
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}"


def _formula(recipe: Recipe, target: Target) -> dict[str, Any]:
    """How the library was made, by what, and from which model."""
    kind = ComponentType.DATA if recipe.model.endswith(".toml") else ComponentType.MACHINE_LEARNING_MODEL
    parts = [_hashed(name, kind, f"model:{name}", sha256) for name, sha256 in recipe.files.items()]
    parts.append(
        Component(
            name="kernfit",
            version=recipe.version,
            type=ComponentType.APPLICATION,
            bom_ref="kernfit",
            properties=[Property(name="kernfit:commit", value=recipe.source.commit)],
        )
    )
    for name, version in recipe.versions.items():
        purl = PackageURL("pypi", None, name, version) if name in MADE_FROM else None
        parts.append(
            Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=name, purl=purl)
        )
    name = recipe.library
    commands = {
        "release": ["invoke", "release", *recipe.words()],
        "archive": ["zig", *archiver(name), "OBJECTS"],
        "link": ["zig", *shared_linker(name, target), "OBJECTS"],
    }
    steps = [
        {"name": step, "commands": [{"executed": " ".join(words)}]} for step, words in commands.items()
    ]
    llvm = target.llvm
    told = {
        "kernfit:recipe": msgspec.json.encode(recipe).decode(),
        "kernfit:llvm:triple": llvm.triple,
        "kernfit:llvm:cpu": llvm.cpu,
        "kernfit:llvm:features": " ".join(llvm.features),
        "kernfit:llvm:attributes": " ".join(llvm.attributes),
        "kernfit:llvm:abi": " ".join(word for word in (llvm.abi, llvm.float_abi) if word),
    }
    return {
        "bom-ref": "formula",
        "components": _json(Bom(components=parts, serial_number=NAMESPACE))["components"],
        "workflows": [
            {
                "bom-ref": "release",
                "uid": "release",
                "name": f"make {name} for {target.name}",
                "taskTypes": ["build"],
                "steps": steps,
                "outputs": [{"type": "artifact", "resource": {"ref": "library"}}],
            }
        ],
        "properties": [{"name": key, "value": value} for key, value in sorted(told.items())],
    }


def _hashed(name: str, kind: ComponentType, ref: str, sha256: str) -> Component:
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    return Component(name=name, type=kind, bom_ref=ref, hashes=hashes)


def _json(bom: Bom) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string())
    return told


# -- reading ------------------------------------------------------------------------


class _Hash(msgspec.Struct):
    alg: str
    content: str


class _File(msgspec.Struct):
    name: str
    hashes: list[_Hash] = []


class _Told(msgspec.Struct):
    name: str
    value: str


class _Formula(msgspec.Struct):
    properties: list[_Told]


class _Bom(msgspec.Struct):
    serialNumber: str  # noqa: N815 - the standard's name
    components: list[_File]
    formulation: list[_Formula]


def read_sbom(data: bytes) -> tuple[Recipe, dict[str, str]]:
    """The recipe, and the SHA-256 of the other members by name; InputError if it tells neither."""
    try:
        bom = msgspec.json.decode(data, type=_Bom)
        told = {each.name: each.value for part in bom.formulation for each in part.properties}
        recipe = msgspec.json.decode(told["kernfit:recipe"], type=Recipe)
        number = serial_number(json.loads(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{SBOM} is not one that `invoke release` wrote: {error}") from error
    if bom.serialNumber != number:
        raise InputError(f"{SBOM} was changed: its serial number is not that of its content")
    sums = {
        file.name: each.content for file in bom.components for each in file.hashes if each.alg == "SHA-256"
    }
    return recipe, sums
