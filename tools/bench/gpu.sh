#!/usr/bin/env bash
# The benchmarks of the LLM on a GPU, in bfloat16 and with random weights: tools/bench/gpu.sh [output]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
output=${1:-gpu.txt}
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. egs/TEMPLATE/avsr1/path.sh
if ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: PyTorch finds no GPU; each script of tools/bench runs on a CPU by itself" >&2
    exit 1
fi
python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}"   # for the tokenizer
{
    for geometry in smollm2-135m llama-3.2-1b llama-3.1-8b; do
        python tools/bench/experts.py --geometry "${geometry}" --dtype bfloat16 --compile
    done
    for options in "" --gradient_checkpointing; do
        # shellcheck disable=SC2086
        python tools/bench/train_step.py --geometry llama-3.2-1b --dtype bfloat16 ${options}
    done
    python tools/bench/attention.py --geometry llama-3.2-1b --dtype bfloat16
    python tools/bench/dispatch.py --dim 2048 --dtype bfloat16 --tokens 8 64 512 2048 8192
    python tools/bench/growth.py --geometry llama-3.2-1b --dtype bfloat16 --output "${output%.txt}.png"
} | tee "${output}"
