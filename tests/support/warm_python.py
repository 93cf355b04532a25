"""A Python process that has imported the large packages and forks a child for each `python -m pipelines.<stage>`.

The sandbox's `python` is its client. A stage still runs as its own process, with its own arguments, environment, folder
and exit status. Only the imports of torch, MLflow and similar packages, half of a tiny stage's time, run once for all
stages. This process never imports `pipelines` or `ssvos`: each child imports its sandbox's copy.

    python warm_python.py SOCKET        serves until standard input closes
"""

import array
import atexit
import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback

CLIENT = """#!{python} -IS
import array, json, os, signal, socket, sys
if sys.argv[1:2] != ["-m"] or not sys.argv[2:3] or not sys.argv[2].startswith("pipelines."):
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
request = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ), {real!r}]).encode()
server.sendmsg(
    [len(request).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
)
server.sendall(request)
answers = server.makefile("r")
child = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int(answers.readline())
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def serve(path: str) -> None:
    """Fork a child for each client. Send the client the child's process id, then its wait status."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(16)
    os.rename(f"{path}.new", path)  # a client that sees the path can connect
    clients: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if sys.stdin in ready and not os.read(0, 1):
            return
        if woken in ready:
            woken.recv(4096)
            for child in list(clients):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    with contextlib.suppress(OSError):  # the client may have ended
                        clients[child].sendall(f"{status}\n".encode())
                    clients.pop(child).close()
        if listener in ready:
            client, _ = listener.accept()
            child = os.fork()
            if not child:
                selector.close()
                _run(client)
            clients[child] = client
            client.sendall(f"{child}\n".encode())


def _run(client: socket.socket) -> None:
    """Run the client's module in the child, with its files, folder and environment. Exit as Python does."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        fds = array.array("i", [0] * 3)
        length, ancillary, _, _ = client.recvmsg(8, socket.CMSG_SPACE(fds.itemsize * 3))
        fds.frombytes(ancillary[0][2][: fds.itemsize * 3])
        fds = fds[3:]
        request, size = b"", int.from_bytes(length, "big")
        while len(request) < size:
            request += client.recv(size - len(request))
        client.close()
        arguments, folder, environment, executable = json.loads(request)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.executable, sys.argv, sys.path[0] = executable, arguments, folder
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _import_packages() -> None:
    """Import every large package that a stage may import, except Ray, which reads its environment on import."""
    import av  # noqa: F401
    import cv2  # noqa: F401
    import jinja2  # noqa: F401
    import mlflow.data.dataset
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import pandas  # noqa: F401
    import PIL.Image  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import scipy.stats  # noqa: F401
    import skimage.morphology  # noqa: F401
    import torch._dynamo  # noqa: F401


if __name__ == "__main__":
    _import_packages()
    assert threading.active_count() == 1, "a fork would lose the other threads"
    serve(sys.argv[1])
