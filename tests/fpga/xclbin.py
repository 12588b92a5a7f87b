# SPDX-License-Identifier: Apache-2.0
"""Writes .xclbin files without Xilinx' tools: the container (axlf, version 2) with what XRT needs to
load it and to start kernels. There is no bitstream inside: a runtime without a board takes it.

Kernels are given as {name: Kernel}; compute units lie one after another in the order given."""

import struct
import uuid
from dataclasses import dataclass, field

EMBEDDED_METADATA, MEM_TOPOLOGY, CONNECTIVITY, IP_LAYOUT = 2, 6, 7, 8
MEM_DDR4, IP_KERNEL = 1, 1
BANK_BYTES = 1 << 28
UNIT_BYTES = 0x10000
SCALAR, GLOBAL = 0, 1
# Of an argument in a unit's registers: the first 16 bytes are for control, and 16 for each argument.
ARG_AT, ARG_STEP = 0x10, 0x10


@dataclass
class Kernel:
    """args: (name, C type) each, a type with * being a pointer; units: {name: bank}, each of whose
    pointers is wired to that bank."""

    args: list
    units: dict = field(default_factory=dict)


def section_bytes(name, text):
    raw = text.encode()
    assert len(raw) < name
    return raw.ljust(name, b"\0")


def topology(banks):
    items = [struct.pack("<BB6xQQ16s", MEM_DDR4, 1, BANK_BYTES >> 10, i * BANK_BYTES, section_bytes(16, f"bank{i}"))
             for i in range(banks)]
    return struct.pack("<i4x", banks) + b"".join(items)


def layout(units):
    items = [struct.pack("<IIQ64s", IP_KERNEL, 1, base, section_bytes(64, f"{kernel}:{unit}"))
             for kernel, unit, base, _ in units]
    return struct.pack("<i4x", len(items)) + b"".join(items)


def connectivity(kernels, units):
    items = [struct.pack("<iii", k, i, bank) for i, (kernel, _, _, bank) in enumerate(units)
             for k, (_, ctype) in enumerate(kernels[kernel].args) if "*" in ctype]
    return struct.pack("<i", len(items)) + b"".join(items)


def argument(k, name, ctype):
    pointer = "*" in ctype
    size, port = (8, "M_AXI_GMEM") if pointer else (4, "S_AXI_CONTROL")
    return (f'<arg name="{name}" addressQualifier="{GLOBAL if pointer else SCALAR}" id="{k}" port="{port}" '
            f'size="{size:#x}" offset="{ARG_AT + k * ARG_STEP:#x}" hostOffset="0x0" hostSize="{size:#x}" '
            f'type="{ctype}"/>')


def metadata(kernels, units):
    text = ['<?xml version="1.0" encoding="UTF-8"?>', '<project name="sonic">', '<platform vendor="tests">',
            '<device name="fpga0" fpgaDevice="none">', '<core name="OCL_REGION_0" target="bitstream" type="clc_region">']
    for name, kernel in kernels.items():
        text += [f'<kernel name="{name}" language="c" type="pl">',
                 '<port name="M_AXI_GMEM" mode="master" range="0xFFFFFFFF" dataWidth="512" portType="addressable" base="0x0"/>',
                 f'<port name="S_AXI_CONTROL" mode="slave" range="{UNIT_BYTES:#x}" dataWidth="32" portType="addressable" base="0x0"/>']
        text += [argument(k, *arg) for k, arg in enumerate(kernel.args)]
        text += [f'<instance name="{unit}"><addrRemap base="{base:#x}" port="S_AXI_CONTROL"/></instance>'
                 for owner, unit, base, _ in units if owner == name]
        text.append("</kernel>")
    return "\n".join([*text, "</core></device></platform></project>", ""]).encode()


def xclbin(kernels, banks, without=()):
    """The file's bytes; sections of the kinds in `without` are left out."""
    units, base = [], 0x1800000
    for name, kernel in kernels.items():
        for unit, bank in kernel.units.items():
            units.append((name, unit, base, bank))
            base += UNIT_BYTES
    sections = {EMBEDDED_METADATA: metadata(kernels, units), MEM_TOPOLOGY: topology(banks),
                IP_LAYOUT: layout(units), CONNECTIVITY: connectivity(kernels, units)}
    sections = {kind: data for kind, data in sections.items() if kind not in without}
    at = 456 + 40 * len(sections)
    table = body = b""
    for kind, data in sections.items():
        padding = -at % 8
        at += padding
        table += struct.pack("<I16s4xQQ", kind, b"", at, len(data))
        body += bytes(padding) + data
        at += len(data)
    # By content, as a linker would give it: equal files have equal numbers, others never.
    number = uuid.uuid5(uuid.NAMESPACE_OID, body.hex()).bytes
    head = struct.pack("<8si28s256sQ", b"xclbin2\0", -1, b"\xff" * 28, bytes(256), 0)
    head += struct.pack("<QQQHBBHH16s64s16s16sI4x", at, 0, 0, 0, 2, 13, 0, 0, bytes(16), b"tests".ljust(64, b"\0"),
                        number, bytes(16), len(sections))
    assert len(head) == 456
    return head + table + body
