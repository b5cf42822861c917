"""The system calls that code in the jail may not make, as a seccomp filter: a program for the kernel's classic BPF machine.

Namespaces hide files, processes and the network; this closes ways to new privileges and to what namespaces do not hide: further user namespaces, mounts, tracing, kernel
keyrings, io_uring, sockets that reach the machine below a virtual one (AF_VSOCK), memory that no limit counts (memfd, System V). What is denied fails with EPERM.
"""

from __future__ import annotations

import platform
import struct

from etude.errors import InputError

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""AUDIT_ARCH value, and column in the table below."""
DENIED = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "syslog": (103, 116),
}
CLONE = (56, 220)
CLONE3 = (435, 435)
SOCKET = (41, 198)
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
X32 = 0x40000000
"""Bit of the numbers of x86-64's other calling convention."""
AF_UNIX = 1

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
# An instruction is (code, instructions to skip when the test holds, when it does not, operand).
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
# Offsets in struct seccomp_data: the number, the architecture, the first argument (its low half on a little-endian machine).
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16


def seccomp_filter(machine: str = "") -> bytes:
    """The filter as an array of `struct sock_filter` for a machine (default: this one). Raises InputError for one whose system calls are not known here."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise InputError(f"the jail's filter of system calls is written for {' and '.join(ARCHITECTURES)}; this machine is {machine}")
    architecture, column = ARCHITECTURES[machine]
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, EPERM),
    ]
    for numbers in DENIED.values():
        program += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, EPERM)]
    program += [
        # The flags of clone3 lie in memory, where a filter cannot look; without it libraries use clone.
        (EQUAL, 0, 1, CLONE3[column]),
        (RETURN, 0, 0, ENOSYS),
        (EQUAL, 0, 4, CLONE[column]),
        (LOAD, 0, 0, ARGUMENT),
        (ANY_BIT, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
        (EQUAL, 0, 3, SOCKET[column]),
        (LOAD, 0, 0, ARGUMENT),
        (EQUAL, 1, 0, AF_UNIX),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
