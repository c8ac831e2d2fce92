# shellcheck shell=bash
# Sourced by avsr.sh and by hand: where things are, and the environment's Python first on PATH.
MOME_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
export MOME_ROOT
export MOME_DOWNLOADS=${MOME_DOWNLOADS:-${MOME_ROOT}/downloads}
export PATH=${MOME_ROOT}/tools/venv/bin:${MOME_ROOT}/utils:${PATH}
export PYTHONPATH=${MOME_ROOT}${PYTHONPATH:+:${PYTHONPATH}}
# Containers often set this. Every process would then compile PyTorch, Transformers and ESPnet again
# before it begins, which takes longer than many a stage.
unset PYTHONDONTWRITEBYTECODE
export LC_ALL=C.UTF-8
export TOKENIZERS_PARALLELISM=false
# Threads that have done their part of a product wait for the others for 1,000 turns and then sleep until
# the next one. GNU's OpenMP lets them spin for 300,000, which takes the core from the thread that they wait
# for wherever another process is busy, and sleeping at once costs time where none is:
# tools/bench/wait_policy.py. A policy that the user sets counts, also after an earlier call of this file.
if [ -z "${OMP_WAIT_POLICY:-}" ]; then
    export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
elif [ "${GOMP_SPINCOUNT:-}" = 1000 ]; then
    unset GOMP_SPINCOUNT
fi
# Nothing in the stages looks for newer files on a hub once a model folder is there.
export HF_HUB_DISABLE_TELEMETRY=1
# glibc gives large blocks back to the system at once and faults them in again for every tensor;
# keeping them makes a forward pass of a small LLM on a CPU a third faster.
export MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_MMAP_THRESHOLD_=100000000000
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
