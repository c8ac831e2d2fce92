#!/usr/bin/env bash
# Try the package as it is installed: tools/test.sh --wheel. Its source archive, and the wheel that is
# built of it, are installed from the package index into fresh environments of Python 3.12 and 3.13,
# without extras and with the versions of requirements.lock, and tried outside this checkout. A Python
# that is neither here nor to be had by uv is skipped, which the last line says. The environments take
# several GB in $TMPDIR, by default /var/tmp; next to nothing where uv can link its cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Behind the environment's programs: where uv came by pip, a Python without packages lies beside it.
PATH=${PATH}:${PWD}/tools/.uv/bin
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" mome-wheel.XXXX)
trap 'rm -rf "${work}"' EXIT

# find_python VERSION: one that runs, on PATH, in pyenv or from uv.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-${HOME}/.pyenv}"/versions/"$1".*/bin/python; do
        if "${candidate}" -c 'import venv' 2> /dev/null; then
            command -v "${candidate}"
            return
        fi
    done
    uv python install --quiet "$1" && uv python find --managed-python "$1"
}

# outside COMMAND...: run one of the environment's commands beside the inputs, without this checkout.
# In one thread, as nothing of a model that tiny is faster in several.
outside() {
    (cd "${work}/inputs" && env -i HOME="${HOME}" PATH="${work}/venv/bin:/usr/bin:/bin" LC_ALL=C.UTF-8 \
        HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE "$@")
}

# try PACKAGE PYTHON: install it there and use it.
try() {
    uv venv --quiet --clear --python "$2" "${work}/venv"
    uv pip install --quiet --python "${work}/venv/bin/python" --constraints tools/requirements.lock "$1"
    outside python - << 'END'
from importlib.util import find_spec

import mome

assert "site-packages" in mome.__file__, mome.__file__
assert find_spec("espnet2") is None, "ESPnet was installed without its extra"
print(f"mome {mome.__version__} without ESPnet")
END
    outside python adapt.py downloads/lm notes.txt notes.pt 2
    outside env MOME_DOWNLOADS=downloads mome-transcribe noise.wav --model tiny.zip --format json \
        > "${work}/said"
    grep -q '"confidence"' "${work}/said"
    if outside mome-train --help > "${work}/said" 2>&1; then
        echo "mome-train needs no ESPnet?" >&2
        return 1
    fi
    [ "$(cat "${work}/said")" = "mome-train: espnet2 is missing: in the clone, pip install '.[recipes]'" ]
}

echo "building" >&2
uv build --quiet --out-dir "${work}/dist"
PYTHONPATH=${PWD}:${PWD}/test python tools/wheel_inputs.py "${work}/inputs"
tried=() skipped=()
for version in 3.12 3.13; do
    if ! python=$(find_python "${version}"); then
        skipped+=("${version}")
        continue
    fi
    for package in "${work}"/dist/mome-*; do
        echo "Python ${version}, ${package##*/}" >&2
        # Not in a condition, where `set -e` would not count within the function.
        try "${package}" "${python}"
        tried+=("${version} ${package##*/}")
    done
done
printf 'works: Python %s\n' "${tried[@]}"
echo "skipped: ${skipped[*]:-none}"
[ ${#tried[@]} -gt 0 ]
