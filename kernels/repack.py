"""New weights for a network's library: those of a model of the same nodes and shapes, packed anew."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import msgspec

from kernels.errors import InputError
from kernels.graph import optimise
from kernels.graph.memory import aligned
from kernels.graph.planning import Bound, bind, grouped
from kernels.graph.storage import store
from kernels.graph.weights import layout_of, packed_weights, with_layout
from kernels.manifest import Manifest, ManifestKernel, ManifestNetwork
from kernels.pack import replaced
from kernels.plan import Operand
from kernels.program import Attribute, Network

SHA256 = re.compile(r"[0-9a-f]{64}")


def pack_network(manifest: Manifest, model: Path, target: Path) -> str:
    """Write the weights of an ONNX model for the library that the manifest describes; their SHA-256.

    Constants are folded and packed as they were when the library was built, so that they are the
    bytes that a build of this model would give. InputError where the library holds its weights
    itself, or where this model would be another library.
    """
    described = manifest.network
    if described is None:
        raise InputError(f"{manifest.library} is a listing's library: name a kernel and its array")
    if not described.weights:
        raise InputError(f"{manifest.library} has no weights")
    if not described.weights_layout:
        raise InputError(
            f"{manifest.library} holds its weights itself; build it with --weights file or symbol"
        )
    _require_block(manifest, described)
    reader = importlib.import_module("kernels.models.onnx_model")  # the onnx package takes a while
    network = optimise(reader.read_onnx(model, described.dims))
    _require_same(manifest, described, network, model)
    total = hashlib.sha256()
    with replaced(target) as stream:
        for piece in packed_weights(manifest, network, manifest.byte_order):
            stream.write(piece)
            total.update(piece)
    return total.hexdigest()


def _require_block(manifest: Manifest, network: ManifestNetwork) -> None:
    """A manifest may be anybody's: what it says of the block must fit together."""
    unknown = {call.kernel for call in network.calls} - {kernel.name for kernel in manifest.kernels}
    if unknown:
        raise InputError(f"the manifest of {manifest.library} contradicts itself about {sorted(unknown)}")
    sizes = {(k.name, o.name): o.bytes for k in manifest.kernels for o in k.operands}
    end = 0
    for entry in network.weights:
        due = sizes.get((entry.kernel, entry.operand))
        if entry.offset != aligned(end) or entry.bytes != due:
            raise InputError(
                f"the manifest of {manifest.library} contradicts itself about '{entry.tensor}', "
                f"operand {entry.operand} of {entry.kernel}"
            )
        end = entry.offset + entry.bytes
    if network.weights_bytes != with_layout(end) or not SHA256.fullmatch(network.weights_layout):
        raise InputError(f"the manifest of {manifest.library} contradicts itself about its weights' size")


def _require_same(manifest: Manifest, described: ManifestNetwork, network: Network, model: Path) -> None:
    """InputError, with the first call that differs, where the model would be another library."""
    layout = layout_of(network.program, manifest.kernels, described.weights, manifest.endianness)
    if layout == described.weights_layout:
        return
    difference = next(_differences(manifest, described, network), "what is between its calls")
    versions = manifest.versions.get("kernfit", "?")
    raise InputError(
        f"{model}: weights of this model do not fit {manifest.library}, built by kernfit {versions}: "
        f"{difference} differs; build a library of it"
    )


def _differences(manifest: Manifest, described: ManifestNetwork, network: Network) -> Iterator[str]:
    """What is computed otherwise than the library does, in the order of its calls."""
    kernels = {kernel.name: kernel for kernel in manifest.kernels}
    storage = store(network.program)
    groups = grouped([each for each in network.program.operators if not storage.is_alias(each)])
    bounds = [bind(network.program, operators) for operators in groups]
    for call, bound in zip_longest(described.calls, bounds):
        if call is None:
            yield f"node '{bound.leading.name}' ({bound.leading.kind}), which the library has not,"
        elif bound is None or bound.leading.name != call.node:
            yield f"node '{call.node}', which this model has not there,"
        else:
            part = _difference(kernels[call.kernel], bound)
            if part:
                yield f"{part} of node '{call.node}' ({bound.leading.kind})"
            elif bound.tensors != call.tensors:
                yield f"the name of a tensor of node '{call.node}' ({bound.leading.kind})"


def _difference(kernel: ManifestKernel, bound: Bound) -> str:
    """The first part of a kernel that is not what the library computes."""
    leading = bound.leading
    if leading.kind != kernel.operator:
        return f"the operator (there {kernel.operator})"
    changed = _changed(leading.attributes, kernel.attributes)
    if changed:
        return changed
    for there, here in zip(kernel.operands, bound.operands, strict=False):
        if (there.name, there.shape, there.dtype) != (here.name, here.shape, here.dtype):
            return f"{_operand(here)} (there {_operand(there)})"
    roles = [[(o.name, o.role) for o in operands] for operands in (kernel.operands, bound.operands)]
    for step, fused in zip(bound.steps, kernel.fused, strict=False):
        changed = _changed(step.attributes, fused.attributes)
        if step.kind == fused.kind and changed:
            return f"{changed} of what is fused ({step.kind}) into the kernel"
    if roles[0] != roles[1] or bound.steps != kernel.fused:
        return "what is fused into the kernel"
    return ""


def _changed(here: Mapping[str, Attribute], there: Mapping[str, Attribute]) -> str:
    """The first attribute that is not the library's."""
    for name, value in there.items():
        if here.get(name) != value:
            return f"{name} = {_told(here.get(name))} (there {_told(value)})"
    return ""


def _told(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _operand(operand: Operand) -> str:
    return f"{operand.name}, {operand.dtype.value}{list(operand.shape)}"
