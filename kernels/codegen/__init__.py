"""From a planned kernel to an object file: the only package that imports TVM, and of it what it uses.

`import tvm` brings relax and the back ends of graphics processors, four fifths of its modules
and over half of its time. Code for processors needs neither.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class _WhenAsked(importlib.abc.MetaPathFinder):
    """Finds tvm.relax, and loads it when something of it is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == "tvm.relax" else None
        if spec and spec.loader:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _WhenAsked())
os.environ.setdefault("TVM_DEVICE_BACKEND_AUTOLOAD", "0")
