# shellcheck shell=bash
# Processes on loopback that end with the script that sources this; `patience` is its to set, in seconds.

# a proxy that the machine may have is not meant for loopback
export NO_PROXY='*' no_proxy='*'
host=127.0.0.1
processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true; wait || true' EXIT

until_true() {
    local deadline=$((SECONDS + patience))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "waited in vain: $*" >&2; return 1; }
        read -rt 0.05 <> <(:) || true
    done
}

# start NAME COMMAND...: in the background, until the end of the script; its id is $!.
start() {
    local name=$1
    shift
    "$@" >>"$name.out" 2>>"$name.err" &
    processes+=($!)
}

free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}
