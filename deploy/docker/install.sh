#!/bin/sh
# What the image is made of, in two steps so that the first, long one is repeated only when the lock changes. Used by the Dockerfile and by
# its test, which has no builder: `install.sh dependencies <folder>` beside requirements.lock, then `install.sh package <folder>` in the
# sources. UV_NO_CACHE and UV_COMPILE_BYTECODE are the image's own choice.
set -eu
step=$1 folder=$2
case $step in
dependencies)
    "${PYTHON:-python}" -m venv "$folder"
    "$folder/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check 'uv>=0.9,<1'
    "$folder/bin/uv" pip sync --quiet --require-hashes --python "$folder/bin/python" requirements.lock
    ;;
package)
    # The build backend comes for the build alone; so does the installer, which leaves last.
    "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" 'setuptools>=80'
    "$folder/bin/uv" pip install --quiet --no-deps --no-build-isolation --python "$folder/bin/python" .
    "$folder/bin/uv" pip uninstall --quiet --python "$folder/bin/python" setuptools
    rm -f "$folder/bin/uv" "$folder/bin/uvx"
    ;;
*)
    echo "install.sh: wanted dependencies or package, got $step" >&2
    exit 2
    ;;
esac
