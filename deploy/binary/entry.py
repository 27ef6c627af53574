"""Where the binary begins: what an installed Python would have seen to, then the command line.

As Python does, it runs a module with `-m MODULE ARGUMENT...`: so it starts the processes of its handlers.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import runpy
import signal
import ssl
import sys
from multiprocessing import freeze_support
from pathlib import Path

from workflow_engine.runtime.cli.bundled import bring_in_plugins

PROGRAMS_LIBRARIES = "LD_LIBRARY_PATH"
FOUND_LIBRARIES = "_WORKFLOW_ENGINE_FOUND_LIBRARIES"
PR_SET_PDEATHSIG = 1
# Where distributions of Linux keep the certificates that a machine trusts, unless OpenSSL was built there.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def main() -> None:
    """Run a module or the command line; leaves with the exit code."""
    contents: str | None = getattr(sys, "_MEIPASS", None)
    if contents is not None:
        is_first = let_programs_find_libraries(contents)
        if is_first and Path(contents).parent != Path(sys.executable).parent:
            live_and_die_with_who_unpacked()
        find_certificates()
        bring_in_plugins(Path(sys.executable), Path(contents))
    freeze_support()
    if sys.argv[1:2] == ["-m"] and len(sys.argv) > 2:
        run_module()
    else:
        from workflow_engine.__main__ import main as run_command_line

        run_command_line()


def let_programs_find_libraries(contents: str) -> bool:
    """The path to the libraries inside is for this process only. False in a process that the binary has started.

    Such a process lacks the path and has to start once more: it is read when a program starts, and then only.
    """
    if contents not in os.environ.get(PROGRAMS_LIBRARIES, "").split(os.pathsep):
        before = os.environ.get(PROGRAMS_LIBRARIES)
        if before is not None:
            os.environ[f"{PROGRAMS_LIBRARIES}_ORIG"] = before
        os.environ[PROGRAMS_LIBRARIES] = os.pathsep.join([contents, *([before] if before else [])])
        os.environ[FOUND_LIBRARIES] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    original = os.environ.pop(f"{PROGRAMS_LIBRARIES}_ORIG", None)
    if original is None:
        del os.environ[PROGRAMS_LIBRARIES]
    else:
        os.environ[PROGRAMS_LIBRARIES] = original
    return os.environ.pop(FOUND_LIBRARIES, None) is None


def live_and_die_with_who_unpacked() -> None:
    """One file is two processes: the one that unpacks waits, passes signals on, and removes what it unpacked.

    When it is killed, so is this one. A group of its own keeps Ctrl-C from coming twice, once directly and once
    passed on, which would be an order to stop at once. Only a server gets that: who reads a terminal has to stay.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if sys.argv[1:2] == ["serve"]:
        os.setpgid(0, 0)


def find_certificates() -> None:
    """Trust what the machine trusts, wherever it keeps that. SSL_CERT_FILE and SSL_CERT_DIR go before."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        file = next(filter(os.path.exists, CERTIFICATES), None)
        if file is not None:
            os.environ.setdefault("SSL_CERT_FILE", file)


def run_module() -> None:
    """Run the module that `-m` names, as Python would with -u and -X faulthandler."""
    faulthandler.enable()
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is not None:
            raw = io.FileIO(stream.fileno(), "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", errors="backslashreplace", write_through=True))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
