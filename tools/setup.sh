#!/usr/bin/env bash
# Build tools/venv: Python 3.12 or 3.13 with everything in requirements.lock, by uv. A second call
# finds it finished. Options:
#   --backend cuda|cpu  cuda (default): torch as the package index gives it, which also runs on CPUs;
#                       cpu: PyTorch's own CPU builds, which are smaller but come from PyTorch's own
#                       index (a path that could not be tried where this was written)
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The one that is there stays unless another is asked for.
read -r backend _ 2> /dev/null < "${tools}/venv/.packages" || backend=cuda
while [ $# -gt 0 ]; do
    case $1 in
        --backend) backend=${2:-}; shift 2 ;;
        -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "$0: unknown option $1; see --help" >&2; exit 2 ;;
    esac
done
case ${backend} in cuda | cpu) ;; *) echo "$0: --backend is cuda or cpu" >&2; exit 2 ;; esac

# What is installed, and the commands, which are made of setup.py and the names of mome/bin's modules.
packages="${backend} $(cksum < "${tools}/requirements.lock")"
commands=$({ cat "${tools}/../setup.py"; (cd "${tools}/../mome/bin" && ls ./*.py); } | cksum)
is_stamped() { [ "$(cat "${tools}/venv/$1" 2> /dev/null)" = "$2" ]; }
if [ -x "${tools}/venv/bin/python" ] && is_stamped .packages "${packages}"; then
    if is_stamped .commands "${commands}"; then exit 0; fi
else
    rm -f "${tools}/venv/.packages"
fi

# find_uv: uv on PATH, else installed by pip into a folder of its own.
find_uv() {
    if command -v uv > /dev/null; then
        command -v uv
        return
    fi
    if [ ! -x "${tools}/.uv/bin/uv" ]; then
        echo "setup: installing uv into tools/.uv" >&2
        if ! { python3 -m venv "${tools}/.uv" && "${tools}/.uv/bin/pip" install --quiet uv; } >&2; then
            echo "setup: uv could not be installed. Install it (any way its documentation names) so" >&2
            echo "  that 'uv' is on PATH, or install python3 with its venv module; then try again." >&2
            exit 1
        fi
    fi
    echo "${tools}/.uv/bin/uv"
}

# works PYTHON: it runs and is 3.12 or 3.13 (a pyenv shim may exist and yet not run).
works() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null
}

find_python() {
    local candidate
    local candidates=("${PYTHON:-}" python3.12 python3.13 python3)
    candidates+=("${PYENV_ROOT:-${HOME}/.pyenv}"/versions/3.1[23]*/bin/python)
    candidates+=("${CONDA_PREFIX:-}/bin/python")
    if command -v conda > /dev/null; then
        candidates+=("$(conda info --base 2> /dev/null)"{,/envs/*}/bin/python)
    fi
    for candidate in "${candidates[@]}"; do
        if [ -n "${candidate}" ] && works "${candidate}"; then
            command -v "${candidate}"
            return
        fi
    done
    "${uv}" python install --quiet 3.12 >&2 && "${uv}" python find --managed-python 3.12
}

uv=$(find_uv)
if ! is_stamped .packages "${packages}"; then
    if ! python=$(find_python) || [ -z "${python}" ]; then
        echo "setup: no Python 3.12 or 3.13 on PATH, in pyenv or in conda, and uv could not fetch one." >&2
        echo "  Install one (system packages, pyenv install 3.12, conda create -n mome python=3.12) or" >&2
        echo "  name it: PYTHON=/path/to/python3.12 $0" >&2
        exit 1
    fi
    echo "setup: building tools/venv with ${python}" >&2
    "${uv}" venv --quiet --clear --python "${python}" "${tools}/venv"
    if [ "${backend}" = cpu ]; then
        grep -Ev '^(nvidia-|cuda-|triton)' "${tools}/requirements.lock" > "${tools}/venv/requirements.txt"
        extra=(--torch-backend cpu)
    else
        cp "${tools}/requirements.lock" "${tools}/venv/requirements.txt"
        extra=()
    fi
    "${uv}" pip install --quiet --python "${tools}/venv/bin/python" "${extra[@]}" \
        -r "${tools}/venv/requirements.txt"
    echo "${packages}" > "${tools}/venv/.packages"
fi
"${uv}" pip install --quiet --python "${tools}/venv/bin/python" --no-deps --no-build-isolation \
    -e "${tools}/.."
echo "${commands}" > "${tools}/venv/.commands"
echo "setup: done" >&2
