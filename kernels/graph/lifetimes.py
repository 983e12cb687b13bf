"""When each part of the arena is live, and which tensors may follow each other in one place."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kernels.graph.memory import Block
from kernels.graph.storage import Storage
from kernels.plan import Kernel
from kernels.program import Program


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose memory is not planned yet; `tensors` are in the order of its operands."""

    node: str
    kernel: Kernel
    tensors: tuple[str, ...]


def blocks_of(
    program: Program, storage: Storage, calls: Sequence[Pending]
) -> tuple[list[Block], dict[str, str]]:
    """What the arena holds when, and the block's name for each tensor whose memory it is.

    A kernel's own memory is live for one call. An output takes over the block of an input
    that no later call reads, where the kernel says that the two may be the same.
    """
    lives: dict[str, Block] = {}
    for number, call in enumerate(calls):
        for owner in dict.fromkeys(storage.owner[tensor] for tensor in call.tensors):
            if not storage.in_arena(owner):
                continue
            if owner in lives:
                lives[owner] = msgspec.structs.replace(lives[owner], last=number)
            else:
                size = program.tensor(owner).bytes
                lives[owner] = Block(name=owner, bytes=size, first=number, last=number)
    shared = {owner: owner for owner in lives}
    for number, call in enumerate(calls):
        heir = storage.owner[call.tensors[-1]]
        dying = _overwritten(storage, call)
        if heir not in lives or dying not in shared:
            continue
        block = lives[shared[dying]]
        if block.last == number and block.bytes == lives[heir].bytes:
            shared[heir] = block.name
            lives[block.name] = msgspec.structs.replace(block, last=lives.pop(heir).last)
    scratch = [
        Block(name=scratch_name(number), bytes=call.kernel.arena_bytes, first=number, last=number)
        for number, call in enumerate(calls)
        if call.kernel.arena_bytes
    ]
    return [*lives.values(), *scratch], shared


def _overwritten(storage: Storage, call: Pending) -> str:
    """The owner of the input that the output may overwrite, which is all of it; empty if there is none."""
    name = call.kernel.in_place
    if not name:
        return ""
    owners = [storage.owner[tensor] for tensor in call.tensors]
    number = [operand.name for operand in call.kernel.operands].index(name)
    given = owners[number]
    return given if owners.count(given) == 1 and call.tensors[number] not in storage.offsets else ""


def scratch_name(number: int) -> str:
    """The name of the block of a call's own memory, which no tensor can have."""
    return f"\0{number}"
