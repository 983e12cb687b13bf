"""`python -m kernels.codegen REQUEST.json`: compile the kernels that the request names.

Reads the request and writes object files to its output folder, and nothing else. One
line is printed for each finished kernel: its symbol; and for one that cannot be made, with the reason
behind it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kernels.codegen.driver import run_symbol
from kernels.codegen.lower import compile_driver, compile_kernel
from kernels.codegen.request import Request, read_request
from kernels.errors import InputError


def main(path: str) -> int:
    """Compile each kernel, and the driver, of the request at `path`; returns an exit status."""
    try:
        request = read_request(Path(path), Request)
    except InputError as error:
        print(f"error: {error}")
        return error.status
    out = Path(path).parent / request.out
    out.mkdir(parents=True, exist_ok=True)
    for kernel in request.kernels:
        try:
            compile_kernel(kernel, request.target, out)
        except InputError as error:
            print(f"{kernel.symbol}: {error}", flush=True)
            return error.status
        print(kernel.symbol, flush=True)
    if request.driver is not None:
        compile_driver(request.driver, request.target, out)
        print(run_symbol(request.driver.library), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
