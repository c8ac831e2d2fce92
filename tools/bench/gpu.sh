#!/usr/bin/env bash
# Everything that a GPU is to be checked and measured for: tools/bench/gpu.sh [options]
#   --output DIR     the results, one file a part, written as it goes; default: gpu
#   --parts LIST     of tests, experts-1b, -3b, -8b, products, train, decode, table5, table8, devices,
#                    recipes; default: all but the last two, which need data and a trained model, and
#                    the paper's tables of seconds (../../egs/lrs2/RESULTS.md)
#   --exp DIR        for devices: a trained model of mini_av; default: egs/mini_av/exp/mome
#   --data DIR       for devices: a set for it; default: egs/mini_av/dump/test
#   --recipes LIST   for recipes: trained and decoded, stages 4 and 5; default: "mini_av grid"
#   --train_opts OPTS  further options of lrs3.py --part train
#   --quick true     two layers and little data, to try the script where there is no GPU
# A part that fails or takes too long is reported, and the next one runs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. "${root}/egs/TEMPLATE/avsr1/path.sh"

output=gpu
parts="tests experts-1b experts-3b experts-8b products decode train"
exp=${root}/egs/mini_av/exp/mome
data=${root}/egs/mini_av/dump/test
recipes="mini_av grid"
train_opts=
quick=false
help_message=$(sed -n '2,/^set -/{/^#/p}' "${BASH_SOURCE[0]}")
# shellcheck source=utils/parse_options.sh
. "${root}/utils/parse_options.sh"

mkdir -p "${output}"
output=$(cd "${output}" && pwd)
if ! "${quick}" && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: PyTorch finds no GPU; --quick true tries the script without one" >&2
    exit 1
fi

# part NAME SECONDS COMMAND...: into NAME.txt, at most so many seconds.
part() {
    local name=$1 limit=$2 started=${SECONDS} status=0
    shift 2
    echo "## ${name}: $*"
    timeout "${limit}" "$@" > >(tee "${output}/${name}.txt") 2> "${output}/${name}.err" || status=$?
    if [ "${status}" -ne 0 ]; then
        echo "## ${name} ended with status ${status}; the end of ${output}/${name}.err:"
        tail -n 15 "${output}/${name}.err"
    fi
    echo "## ${name}: $((SECONDS - started)) s"
}

cd "${root}/tools/bench"
for name in ${parts}; do
    case ${name} in
        tests)
            part tests 150 python -m pytest -q --maxfail 5 -rs "${root}/test/gpu" "${root}/test/adapters/test_experts_triton.py"
            ;;
        experts-1b | experts-3b | experts-8b)
            # Bottlenecks as the paper has them: the LLM's width over 256, of the largest over 512.
            case ${name} in
                *-1b) sizes=(--lm llama-3.2-1b --bottleneck 8) ;;
                *-3b) sizes=(--lm llama-3.2-3b --bottleneck 12) ;;
                *-8b) sizes=(--lm llama-3.1-8b --bottleneck 8) ;;
            esac
            if "${quick}"; then
                sizes+=(--dtype float32 --layers 2 --repetitions 1 --prefill 1x10 --step 1x10)
            else
                sizes+=(--dtype bfloat16 --repetitions 5 --prefill 1x600 16x600 --step 1x600 16x600 64x600)
                # What 16 utterances at four rate pairs and beam 15 make.
                if [ "${name}" = experts-1b ]; then sizes+=(960x100); fi
            fi
            part "${name}" 120 python experts.py "${sizes[@]}"
            ;;
        products)
            sizes=(--dtype bfloat16)
            if "${quick}"; then sizes=(--dtype float32 --layers 1 --repetitions 1); fi
            part products 60 python products.py --lm llama-3.1-8b "${sizes[@]}"
            ;;
        train | decode)
            sizes=()
            if "${quick}"; then
                sizes=(--layers 1 --repetitions 1 --clips 1 --seconds 1 --beam 2 --tokens 2 --dtype float32)
            fi
            if [ "${name}" = train ]; then
                read -r -a more <<< "${train_opts}"
                sizes+=("${more[@]}")
            fi
            part "${name}" 150 python lrs3.py --part "${name}" "${sizes[@]}"
            ;;
        table5 | table8)
            conf=${root}/egs/lrs2/conf
            sizes=(--lm llama-3.2-3b --clips 1)
            if "${quick}"; then
                sizes+=(--layers 1 --beam 2 --tokens 2 --dtype float32 --seconds 1)
            elif [ "${name}" = table5 ]; then
                sizes+=(--seconds 23)
            else
                sizes+=(--seconds 4 8 12 16)
            fi
            rates=(a4_v2) rows=(table1/llama_avsr table1/llama_mtsk_mss table3/mome_15_1_24)
            if [ "${name}" = table5 ]; then rates=(a1_v1 a4_v2 a16_v5) rows=(table3/mome_15_1_24); fi
            for row in "${rows[@]}"; do
                part "${name}-${row##*/}" 120 python lrs3.py --part decode --config "${conf}/${row}.yaml" \
                    --rates "${rates[@]}" "${sizes[@]}"
            done
            ;;
        devices)
            part devices 90 python devices.py --exp "${exp}" --data "${data}"
            part devices-bfloat16 60 python devices.py --exp "${exp}" --data "${data}" --dtype bfloat16
            ;;
        recipes)
            for recipe in ${recipes}; do
                part "${recipe}" 420 "${root}/egs/${recipe}/run.sh" --stage 4 --ngpu 1 --snrs -5 --tag gpu
                cp "${root}/egs/${recipe}/exp/gpu/RESULTS.md" "${output}/${recipe}-RESULTS.md" || true
            done
            ;;
        *) echo "gpu.sh: unknown part ${name}" >&2 && exit 2 ;;
    esac
done
