"""Runs in every process of a cluster: tells Gloo, PyTorch's CPU backend, which network interface to use.

By default Gloo announces the address that the machine's host name resolves to. On many machines that is 127.0.0.1,
where other machines cannot reach it.
"""

import os
import socket
import struct
import sys

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


def set_gloo_interface() -> None:
    """Set GLOO_SOCKET_IFNAME to the interface with this node's address in Ray, unless it is set already."""
    if "GLOO_SOCKET_IFNAME" in os.environ or sys.platform != "linux":
        return
    import ray

    node_address = ray.util.get_node_ip_address()
    for _, name in socket.if_nameindex():
        if _interface_address(name) == node_address:
            os.environ["GLOO_SOCKET_IFNAME"] = name
            return


def _interface_address(interface: str) -> str:
    """Return the interface's IPv4 address, or '' if it has none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, struct.pack("256s", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(reply[20:24])
