"""In every process of a cluster: PyTorch's workers on CPUs are found by the address at which Ray knows their machine.

Gloo announces what the machine's name means to itself, which on many is 127.0.0.1: on others nobody listens there.
"""

import os
import socket
import struct
import sys

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


def announce() -> None:
    """Name the network interface that has this address; one that is named already stays."""
    if "GLOO_SOCKET_IFNAME" in os.environ or sys.platform != "linux":
        return
    import ray

    own = ray.util.get_node_ip_address()
    for _, name in socket.if_nameindex():
        if _address(name) == own:
            os.environ["GLOO_SOCKET_IFNAME"] = name
            return


def _address(interface: str) -> str:
    """IPv4, or nothing."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            found = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, struct.pack("256s", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(found[20:24])
