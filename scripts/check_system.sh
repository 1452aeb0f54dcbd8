#!/bin/sh
# Finds a Python that can build and run talkpath and prints its path; otherwise says what is missing and which Debian
# package has it, and exits 1. Usage: check_system.sh [python]
set -u

missing=0
say() {
    echo "talkpath set-up: $*" >&2
    missing=1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=""
for candidate in "${1:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if command -v "$candidate" >/dev/null 2>&1 && new_enough "$candidate"; then
        python=$(command -v "$candidate")
        break
    fi
done

if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo "no python3 at all")
    say "Python 3.11 or newer is needed; found $found. Debian 12 and later: apt-get install python3 python3-venv python3-dev" \
        "(another interpreter: make PYTHON=/path/to/python3.12)"
else
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        say "$python cannot make virtual environments: apt-get install python3-venv (or python$version-venv)"
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [ -f "$include/Python.h" ] ||
        say "the C headers of $python are missing ($include/Python.h): apt-get install python3-dev (or python$version-dev)"
fi

compiler=${CC:-gcc}
if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
    say "no C compiler ($compiler): apt-get install gcc"
elif ! printf '#include <stdint.h>\n#include <string.h>\nint main(void){return 0;}\n' |
    $compiler -std=c11 -fsyntax-only -x c - >/dev/null 2>&1; then
    say "$compiler cannot compile C11 with the standard headers: apt-get install gcc libc6-dev"
fi

[ "$missing" -eq 0 ] || exit 1
echo "$python"
