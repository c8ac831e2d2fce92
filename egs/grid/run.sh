#!/usr/bin/env bash
# GRID (Cooke et al., 2006): 33 speakers, 1,000 sentences each; 16 GB, downloaded from Zenodo.
#   ./run.sh --ngpu 1                                      s1, s2, s20 and s22 are tested, unseen
#   ./run.sh --ngpu 1 --prepare_opts "--split overlapped" \
#       --datadir data/overlapped --dumpdir dump/overlapped --expdir exp/overlapped
#                                                          255 sentences of every speaker are tested
#   ./run.sh --download_opts "--speakers 1" --prepare_opts "--split overlapped --speakers 1" \
#       --corpus_parts s1 --datadir data/s1 --dumpdir dump/s1 --expdir exp/s1
#                                                          s1 alone is downloaded, and is tested
#   ./run.sh --corpus /data/grid --download_opts none      it is there: /data/grid/s1/bbaf2n.mpg, ...
# Folders of their own keep splits apart; whoever makes only one of them needs none.
# The steps of conf/ are those for one speaker on a CPU. Other options:
# ../TEMPLATE/avsr1/avsr.sh --help
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
corpus=
# shellcheck disable=SC2034
own_options=corpus
# shellcheck source=utils/own_options.sh
. "${recipe}/../../utils/own_options.sh"
corpus=$(from_here "${corpus}")
cd "${recipe}"
downloads=${MOME_DOWNLOADS:-$(cd ../.. && pwd)/downloads}

exec ../TEMPLATE/avsr1/avsr.sh \
    --corpus "${corpus:-${downloads}/grid}" \
    --lm "${downloads}/smollm2-135m-instruct" \
    --audio_model "${downloads}/whisper-tiny.en" \
    --video_config conf/video_encoder.yaml \
    --projector_config conf/projectors.yaml \
    --train_config conf/train.yaml \
    --tasks "avsr asr vsr" \
    --language en \
    --trained_on "GRID (Cooke et al., 2006): sentences of six of 51 words in a fixed order" \
    --inference_model valid.epoch.best.pth --beam 1 \
    "$@"
