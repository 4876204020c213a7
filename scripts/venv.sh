#!/bin/sh
# Usage: scripts/venv.sh DIR base|demo|test
# Makes the virtual environment DIR (or brings it up to date) from the pinned, hashed requirements and installs the
# project into it, editable and without dependencies. Needs Python >= 3.11 and a package index; nothing else.
# PYTHON=... picks the interpreter. Plain pip installs `base`, so that a person's pip configuration counts; uv (itself
# pinned and hashed) installs `demo` and `test`, ten times the size, and pip does where uv cannot.
set -eu

dir=$1
kind=$2
modern='import sys; sys.exit(sys.version_info < (3, 11))'

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c "$modern" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "Berth needs Python 3.11 or later; found: $(python3 --version 2>&1 || true)." \
        "Install one, or name it: make ${MAKECMDGOALS:-demo} PYTHON=/path/to/python3.12" >&2
    exit 1
}

if ! "$dir/bin/python" -c "$modern" >/dev/null 2>&1 || ! "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $dir with $("$python" --version)"
    if ! "$python" -m venv --clear "$dir"; then
        echo "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

pip() { "$dir/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

echo "Installing the pinned requirements of requirements/$kind.txt into $dir"
if [ "$kind" = base ]; then
    # Bytecode is written when a module is first used; the Pulumi provider alone has thousands that most never are.
    pip install --no-compile --require-hashes --requirement requirements/base.txt
else
    if [ "$kind" = demo ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
        echo "torch brings NVIDIA's libraries along: 3 GB to download and 6 GB of disk, once"
        quiet=
    else
        quiet=--quiet
    fi
    pip install --require-hashes --requirement requirements/uv.txt
    if ! "$dir/bin/uv" pip install $quiet --python "$dir/bin/python" --require-hashes \
        --requirement "requirements/$kind.txt"; then
        echo "uv could not install them; trying pip" >&2
        pip install --no-compile --require-hashes --requirement "requirements/$kind.txt"
    fi
fi
pip install --no-deps --no-build-isolation --editable .
