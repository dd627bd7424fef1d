"""Run a Python program without the eight seconds that its imports take: `warm.py PROGRAM ARG...`.

The Snakefile starts `warm.py serve MODULE...`: a server that imports what chapters and commands
need, and forks for each of them. Where there is no server (a cluster, a Mac), the program, a script
or a command of this environment, is started as usual.
"""

import contextlib
import gc
import importlib.util
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

FOLDER = Path(os.environ.get("ASNLSR_WARM", "none"))  # of the socket, closed to other users
FIRST = ["torch", "pandas", "matplotlib.pyplot", "IPython", "papermill", "PIL.Image"]


def run(program: str, arguments: list[str]) -> int:
    """Have the server run `program` as if it were started here; return its exit code."""
    program, parent = shutil.which(program) or program, os.getppid()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(str(FOLDER / "socket"))
    except OSError:
        os.execv(sys.executable, [sys.executable, program, *arguments])
    request = json.dumps([program, arguments, str(Path.cwd()), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    try:
        while not select.select([server], [], [], 1)[0]:
            if os.getppid() != parent:  # nobody waits for this any more
                return 1
    except KeyboardInterrupt:  # the program was told too
        return 130
    return int(server.recv(8) or 1)


def serve(later: list[str]) -> None:
    """Import, and fork for everyone who asks, until standard input ends."""
    kernel = importlib.util.find_spec("ipykernel_launcher").origin
    spec = {"argv": [sys.executable, __file__, kernel, "-f", "{connection_file}"]}
    (FOLDER / "kernels/python3").mkdir(parents=True)
    text = json.dumps(spec | {"display_name": "Python 3", "language": "python"})
    (FOLDER / "kernels/python3/kernel.json").write_text(text)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(FOLDER / "socket"))
    listener.listen(64)
    print(flush=True)  # that it can be asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in every kernel
    for module in FIRST:
        importlib.import_module(module)
    sys.modules["pandas"].set_option("display.max_columns", 20)  # as where a kernel imports it
    while True:
        gc.freeze()  # an end that is twice as fast, and less memory
        ready = select.select([listener, sys.stdin], [], [], 0 if later else None)[0]
        if sys.stdin in ready:
            return shutil.rmtree(FOLDER)
        if ready:
            client = listener.accept()[0]
            if not os.fork():
                listener.close()
                watch(client)
            client.close()
        else:
            importlib.import_module(later.pop(0))


def watch(client: socket.socket) -> NoReturn:
    """Fork for the program of a client, and kill it where the client goes away before its end."""
    size, files, *_ = socket.recv_fds(client, 4, 3)
    request = client.makefile("rb").read(int.from_bytes(size, "big"))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = os.fork()
    if not program:
        client.close()
        execute(files, *json.loads(request))
    ended = os.pidfd_open(program)
    if client in select.select([ended, client], [], [])[0]:
        os.kill(program, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    with contextlib.suppress(OSError):  # the client is gone
        client.send(str(code % 256).encode())
    os._exit(0)


def execute(
    files: list[int], program: str, arguments: list[str], folder: str, environment: dict[str, str]
) -> NoReturn:
    """Become the program."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "JPY_PARENT_PID" in environment:  # a kernel ends where this is not its parent any more
        os.environ["JPY_PARENT_PID"] = str(os.getppid())
    sys.stdin, sys.stdout = open(0), open(1, "w", 1)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for choice in ("tqdm.auto", "tqdm.autonotebook"):  # of bars, anew: a kernel has others
        sys.modules.pop(choice, None)
    sys.argv, sys.path[0] = [program, *arguments], str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        sys.exit(run(sys.argv[1], sys.argv[2:]))
