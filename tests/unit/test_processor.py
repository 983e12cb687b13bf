"""What processors are called, from what real machines write into /proc/cpuinfo."""

from __future__ import annotations

import pytest

from toolchains import processor

CASES = {
    "AMD EPYC 9R14": """
model name	: AMD EPYC 9R14
model		: 17
""",
    "implementer 0x41 part 0xd08, BCM2835": """
processor	: 0
CPU implementer	: 0x41
CPU part	: 0xd03

processor	: 1
CPU implementer	: 0x41
CPU part	: 0xd08

Hardware	: BCM2835
Model		: Raspberry Pi 4 Model B Rev 1.4
""",
    "ARMv7 Processor rev 4 (v7l), implementer 0x41 part 0xd03": """
model name	: ARMv7 Processor rev 4 (v7l)
CPU implementer	: 0x41
CPU part	: 0xd03
""",
    "sifive,u74-mc": """
hart		: 4
isa		: rv64imafdc
mmu		: sv39
uarch		: sifive,u74-mc
""",
    "rv64imafdcv": """
isa		: rv64imafdcv_zicbom_zba
mmu		: sv39
""",
    "POWER9, altivec supported, PowerNV 8335-GTW": """
cpu		: POWER9, altivec supported
timebase	: 512000000
platform	: PowerNV
model		: 8335-GTW
machine		: PowerNV 8335-GTW
""",
    "machine type 8561": """
vendor_id       : IBM/S390
processor 0: version = FF,  identification = 0123AB,  machine = 8561
""",
    "Loongson-3A5000": """
system type		: generic-loongson-machine
CPU Family		: Loongson-64bit
Model Name		: Loongson-3A5000
""",
    "unknown": "",
}


@pytest.mark.parametrize("name", CASES)
def test_a_processor_has_a_name(name: str) -> None:
    assert processor.name_of(CASES[name]) == name


def test_so_has_this_machines() -> None:
    assert processor.here() not in {"", "unknown"}
