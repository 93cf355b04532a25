"""An S3 server in its own process, on an address of this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import quote

import pytest

# the server accepts any keys; a client without keys requests credentials over the network
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
_MAKE = """
import socket, sys, time
from pyarrow.fs import S3FileSystem
host, _, port = sys.argv[1].partition(":")
for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex((host, int(port))) == 0:
            break
    time.sleep(0.1)
client = S3FileSystem(endpoint_override=sys.argv[1], scheme="http", region="us-east-1", allow_bucket_creation=True)
client.create_dir("bucket")
"""


@contextmanager
def object_store(host: str, port: int, within: Sequence[str] = ()) -> Iterator[str]:
    """Start the server and yield the URL of an empty bucket. within: prefix that runs a command in a namespace."""
    if find_spec("moto") is None:
        pytest.skip("no moto here, which is the S3 server of the tests")
    command = [*within, sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        make = [*within, sys.executable, "-c", _MAKE, f"{host}:{port}"]
        subprocess.run(make, check=True, timeout=60, env=os.environ | KEYS)
        yield f"s3://bucket/shared?scheme=http&region=us-east-1&endpoint_override={quote(f'{host}:{port}', safe='')}"
    finally:
        server.kill()
        server.wait()
