"""A service manager in small: manager.py LOG SOCKET PORT... -- COMMAND...

Holds a listening socket for each port, hands them to the command as systemd does, and starts the command again whenever
it ends. Lines of LOG: `started PID`, `ended STATUS`, and what the command tells by sd_notify. SIGTERM ends both.
"""

import fcntl
import os
import signal
import socket
import sys

LOG, SOCKET, *PORTS = sys.argv[1 : sys.argv.index("--")]
COMMAND = sys.argv[sys.argv.index("--") + 1 :]
FIRST = 3  # SD_LISTEN_FDS_START

log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind(SOCKET)
sockets = [socket.create_server(("127.0.0.1", int(port)), backlog=4096) for port in PORTS]
child = None


def note(line):
    os.write(log, f"{line}\n".encode())


def start(*_):
    global child
    if child:
        _, status = os.wait()
        note(f"ended {os.waitstatus_to_exitcode(status)}")
    child = os.fork()
    if not child:
        become_command()
    note(f"started {child}")


def become_command():
    # one of them may have the number that another one is to get
    apart = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, FIRST + len(sockets)) for each in sockets]
    for number, each in enumerate(apart, FIRST):
        os.dup2(each, number)
    given = {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid()), "NOTIFY_SOCKET": SOCKET}
    os.execvpe(COMMAND[0], COMMAND, os.environ | given)


def stop(*_):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.kill(child, signal.SIGTERM)
    sys.exit()


signal.signal(signal.SIGCHLD, start)
signal.signal(signal.SIGTERM, stop)
start()
while True:
    note(told.recv(4096).decode().replace("\n", " "))
