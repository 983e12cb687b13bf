"""JSON Schemas of every file that kernfit writes for others to read, beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent


def schema_text(kind: Any) -> str:
    """The JSON Schema of a type, as it is committed."""
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
    return msgspec.json.format(msgspec.json.encode(described), indent=2).decode() + "\n"
