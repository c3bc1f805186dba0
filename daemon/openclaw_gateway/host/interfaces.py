"""Where this machine is: its addresses, and whether it is a container."""

from __future__ import annotations

import os

_SIOCGIFCONF = 0x8912
_MAX_INTERFACES = 1024
_MARKS = ("docker", "containerd", "kubepods", "lxc")


def own_ipv4() -> tuple[str, ...]:
    """Return the IPv4 addresses of this machine's interfaces that are up, in the kernel's order. netdevice(7)."""
    import array
    import fcntl
    import socket
    import struct

    # struct ifreq: 16 bytes of name, then a sockaddr; 40 bytes where pointers have 8, 32 where 4.
    size = 16 + struct.calcsize("PPP") if struct.calcsize("P") == 8 else 32
    buffer = array.array("B", bytes(size * _MAX_INTERFACES))
    address, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        answer = fcntl.ioctl(query, _SIOCGIFCONF, struct.pack("iP", length, address))
    filled = struct.unpack("iP", answer)[0]
    data = buffer.tobytes()[:filled]
    return tuple(
        socket.inet_ntoa(data[start + 20 : start + 24]) for start in range(0, filled, size)
    )


def is_container(root: str = "/") -> bool:
    """Whether we run in a container, by the marks that OpenClaw goes by too."""
    if any(
        os.path.exists(os.path.join(root, mark)) for mark in (".dockerenv", "run/.containerenv")
    ):
        return True
    try:
        with open(os.path.join(root, "proc/1/cgroup"), encoding="utf-8", errors="replace") as file:
            groups = file.read(1 << 16)
    except (FileNotFoundError, PermissionError):
        return False  # hidden from us, or no procfs: nothing says so
    return any(mark in groups for mark in _MARKS)


def first_tailnet(addresses: tuple[str, ...]) -> str | None:
    """Return the first address that Tailscale gives out: 100.64.0.0/10, RFC 6598."""
    for address in addresses:
        first, second, *_ = address.split(".")
        if first == "100" and 64 <= int(second) < 128:
            return address
    return None
