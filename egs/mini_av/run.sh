#!/usr/bin/env bash
# mini_av: the whole pipeline on a generated corpus and real pretrained parts, on a CPU.
#   ./run.sh                           all stages; the table is exp/mome/RESULTS.md
#   ./run.sh --preset quick            the same with an eighth of the clips and a fifth of the steps, in
#                                      quick/: a first transcript in minutes, no error rates to cite
#   ./run.sh --preset open             sentences of 6 to 12 words out of 1,500, in open/: a harder
#                                      task, on which experiments.sh compares methods
#   ./run.sh --snrs "-5 0 5 10 15"     noise at five SNRs in place of two
#   ./run.sh --stage 4 --expdir exp2   train again elsewhere; see ../TEMPLATE/avsr1/avsr.sh --help
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
preset=full
# shellcheck disable=SC2034
own_options="preset"
# shellcheck source=utils/own_options.sh
. "${recipe}/../../utils/own_options.sh"
cd "${recipe}"
downloads=${MOME_DOWNLOADS:-$(cd ../.. && pwd)/downloads}

options=(
    --corpus "${downloads}/mini_av"
    --lm "${downloads}/smollm2-135m-instruct"
    --audio_model "${downloads}/whisper-tiny.en"
    --video_config conf/video_encoder.yaml
    --projector_config conf/projectors.yaml
    --train_config conf/train.yaml
    --language en
    --trained_on "mini_av: synthetic voices and drawn faces that say sentences of some 50 words"
    --beam 1
    --times times/full
    --snrs "-5 0"
)
case ${preset} in
    full) ;;
    quick)
        options+=(
            --corpus "${downloads}/mini_av_quick"
            --download_opts "--num_train 240 --num_valid 16 --num_test 12"
            --datadir quick/data --dumpdir quick/dump --expdir quick/exp
            --video_config conf/quick/video_encoder.yaml
            --projector_config conf/quick/projectors.yaml
            --train_config conf/quick/train.yaml
            --times times/quick --snrs "" --pack_clips 8
        )
        ;;
    open)
        options+=(
            --corpus "${downloads}/mini_av_open"
            --download_opts "--mode open"
            --datadir open/data --dumpdir open/dump --expdir open/exp
            --trained_on "mini_av: synthetic voices and drawn faces that say sentences from a vocabulary of 1,500 words"
            --times ""
        )
        ;;
    *) echo "$0: --preset '${preset}': there are full, quick and open" >&2 && exit 2 ;;
esac
exec ../TEMPLATE/avsr1/avsr.sh "${options[@]}" "$@"
