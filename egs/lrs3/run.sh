#!/usr/bin/env bash
# LRS3-TED: from the licensed corpus to a table of word error rates.
#   ./run.sh --lrs3 /data/lrs3 --ngpu 4                433 h: pretrain/ and trainval/
#   ./run.sh --lrs3 /data/lrs3 --ngpu 1 --subset 30h   30 h: trainval/ alone
# /data/lrs3 holds pretrain/, trainval/ and test/, each with <video id>/<number>.mp4 and .txt.
# Further needed: access to the LLM (--lm, a hub name or a folder), and AV-HuBERT Large as
# mome.bin.convert_avhubert makes it (--video_weights). Mouth crops that exist: --lip_dir, such as
# Auto-AVSR's <root>/lrs3/lrs3_video_seg16s. Other options: ../TEMPLATE/avsr1/avsr.sh; those of the
# data (--prepare_opts): local/data.py prepare --help. The defaults are the paper's system (with a
# configuration in conf/table6 that of its Table 6, whose LLM and Whisper are larger), and RESULTS.md
# has the command of each row of its tables.
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

lrs3=                      # folder of the corpus
subset=433h                # or 30h
train_config=conf/train.yaml # it also says which LLM and Whisper are the default
train_opts=                # beside those of the subset
train_set=                 # is chosen by the subset
# shellcheck disable=SC2034
own_options="lrs3 subset train_set train_config train_opts"
# shellcheck source=utils/own_options.sh
. "${recipe}/../../utils/own_options.sh"
corpus=$(corpus_folder lrs3 "${lrs3}" "$@")
if [ -n "${train_set}" ]; then
    echo "$0: --train_set ${train_set}: name --subset, to which folders and steps belong, too" >&2
    exit 1
fi
cd "${recipe}"
downloads=${MOME_DOWNLOADS:-$(cd ../.. && pwd)/downloads}

case ${subset} in
    433h) schedule="" ;;
    30h)
        schedule="--num_iters_per_epoch 340 --scheduler_conf total_steps=3400"
        ;;
    *) echo "$0: --subset is 433h or 30h, not ${subset}" >&2 && exit 1 ;;
esac
case ${train_config} in
    */table6/*) lm=meta-llama/Llama-3.1-8B audio_model=openai/whisper-medium ;;
    *) lm=meta-llama/Llama-3.2-1B audio_model=openai/whisper-small ;;
esac

exec ../TEMPLATE/avsr1/avsr.sh \
    --corpus "${corpus}" --download_opts none --train_set "train_${subset}" \
    --dumpdir "dump/${subset}" --expdir "exp/${subset}" \
    --lm "${lm}" --audio_model "${audio_model}" \
    --video_weights "${downloads}/avhubert-large/model.safetensors" \
    --test_babble_from valid --snrs "-5 0 2.5 5 7.5" \
    --inference_model valid.epoch.ave.pth --length_penalty 1 \
    --max_new_tokens 32 --language en \
    --trained_on "LRS3-TED: English talks" \
    --train_config "${train_config}" --train_opts "${schedule} ${train_opts}" \
    "$@"
