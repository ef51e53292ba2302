"""A Python whose programs start with all imports done: they are forked from one process that did them once, in seconds.

All processes of pytest share it. It imports when it is first asked, so tests that need none of this wait for nothing.

    def test(warm: str):
        subprocess.run([warm, "-m", "bassl_fast.cli", "pretrain", ...])

`warm` is a small program that takes the words of `python`. It asks the server for a process with its own standard
streams, folder, environment and network, hands signals on, and ends as that process ends. What the process itself
starts by `sys.executable`, as torchrun does, is forked too.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = {"bassl_fast.training.run", "s3fs", "torch.distributed.run", "torch.utils.tensorboard"}
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCONT)


def client(address: str) -> None:
    """Run `sys.argv[1:]`, the words of `python`, as a process of the server, until it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        for number in FORWARDED:
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        asked = {"words": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        text = json.dumps(asked).encode()
        network = os.open("/proc/self/ns/net", os.O_RDONLY)
        socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2, network])
        server.sendall(text)
        code = int(server.makefile().read() or -signal.SIGKILL)
    if code < 0:
        if -code in FORWARDED:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


@cache
def import_all() -> None:
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as the command line does before it imports torch
    import pipelines.loader  # noqa: F401

    with suppress(ImportError):  # the environment of DALI for CUDA 11 has no more
        from bassl_fast.cli.verbs import VERBS
        from bassl_fast.runtime.lightning import import_lightning

        import_lightning()
        for module in {verb.module for verb in VERBS.values()} | IMPORTED:
            import_module(module)
    gc.collect()
    gc.freeze()


def serve(address: str) -> dict[str, Any]:
    """Fork a process for each request, until stdin is closed. In the forked process, return the request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    ready = selectors.PollSelector()  # which a forked process does not share
    for source in (listener, sys.stdin):
        ready.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            source = key.fileobj
            if source is sys.stdin:
                sys.exit()
            elif source is listener:
                import_all()
                connection, _ = listener.accept()
                length, streams, _, _ = socket.recv_fds(connection, 4, 4)
                asked = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
                pid = os.fork()
                if pid == 0:
                    for other in [connection, *(key.fileobj for key in ready.get_map().values())]:
                        os.close(other) if isinstance(other, int) else other.close()
                    return asked | {"streams": streams}
                for stream in streams:
                    os.close(stream)
                ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
                ready.register(connection, selectors.EVENT_READ, (pid, None))
            elif isinstance(source, int):  # a process has ended
                pid, connection = key.data
                _, status = os.waitpid(pid, 0)
                ready.unregister(source)
                os.close(source)
                if connection.fileno() >= 0:
                    ready.unregister(connection)
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                    connection.close()
            elif number := source.recv(1):
                os.kill(key.data[0], number[0])
            else:  # the client was killed
                ready.unregister(source)
                source.close()
                os.kill(key.data[0], signal.SIGKILL)


def become(asked: dict[str, Any], program: str) -> None:
    """Run the program that was asked for, in this process."""
    *standard, network = asked["streams"]
    os.setsid()
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    if os.fstat(network).st_ino != os.stat("/proc/self/ns/net").st_ino:
        assert ctypes.CDLL(None).setns(network, 0) == 0
    for stream in asked["streams"]:
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if os.environ.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    sys.executable = program
    sys.path[:0] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    words = asked["words"][1:]
    if words[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        del words[0]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        assert words[0] == "-c", words
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(words[1], main.__dict__)


@contextmanager
def warm_python(folder: Path) -> Iterator[str]:
    """The program, in `folder`, with its server."""
    program, address = folder / "python", folder / "socket"
    program.write_text(
        f"#!{sys.executable} -ES\nimport sys\nsys.path[0] = {str(ROOT)!r}\n"
        f"from tests.warm import client\nclient({str(address)!r})\n"
    )
    program.chmod(0o755)
    serving = [sys.executable, "-m", "tests.warm", address, program]
    with subprocess.Popen(serving, cwd=ROOT, stdin=subprocess.PIPE) as server:
        while not address.exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield str(program)
        server.stdin.close()


def main() -> None:
    _, address, program = sys.argv
    asked, code = serve(address), 0
    try:
        become(asked, program)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to take everything apart would take half a second; `benchmarks.exits` tests whole ends


if __name__ == "__main__":
    main()
