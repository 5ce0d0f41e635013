# shellcheck shell=bash
# The checks of a shell script, one line of result each; to be sourced.

# check NAME COMMAND...: what a failing command wrote is the reason.
check() {
    local name=$1 why
    shift
    if why=$("$@" 2>&1); then
        echo "ok $name"
    else
        echo "not ok $name: $(tail -c 600 <<<"$why" | tr '\n' ' ')"
    fi
}

# has WANTED TEXT: the text holds what is wanted, or is the reason.
has() { [[ $2 == *"$1"* ]] || { echo "no $1 in: $2"; return 1; }; }

# field FILE NAME...: a member of a JSON file, by its path.
field() {
    python3 -c '
import functools, json, sys
print(functools.reduce(dict.get, sys.argv[2:], json.load(open(sys.argv[1]))))
' "$@"
}
