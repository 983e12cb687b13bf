"""JSON Schemas of every file that kernfit writes for others to read, beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent


def schema_text(kind: Any) -> str:
    """The JSON Schema of a type, as it is committed: the same from every version of Python."""
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
    for part in described["$defs"].values():
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
    return msgspec.json.format(msgspec.json.encode(described), indent=2).decode() + "\n"
