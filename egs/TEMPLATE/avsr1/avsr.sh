#!/usr/bin/env bash
# The one driver of all recipes: from raw data to a table of word error rates.
#   stage 0  environment, pretrained models, raw data
#   stage 1  Kaldi data folders                        -> <datadir>/<set>
#   stage 2  lip regions and audio                     -> <dumpdir>/<set>
#   stage 3  noise; noisy, mismatched, corrupted tests -> <dumpdir>/noise, <set>_..., test_sets.json
#   stage 4  training                                  -> <expdir>/<model>
#   stage 5  decoding at every rate pair and scoring   -> <expdir>/<model>/RESULTS.md
#   stage 6  the model packed; two clips read by it    -> <expdir>/<model>/packed
#   stage 7  figures, and a page with clips to play    -> <expdir>/<model>/report
# Finished work is not redone unless --force true asks for it, broken work goes on where it stopped,
# and work that was made with other options is never taken for that asked for. Call it from a
# recipe's run.sh; any option can be given there or on the command line as --name value, and those of
# one's own in a file as well, a line name=value for each, which --config FILE names. The command line
# overrides the file, the file the recipe's run.sh, and that the defaults, which follow.
set -euo pipefail

template=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=egs/TEMPLATE/avsr1/path.sh
. "${template}/path.sh"
# shellcheck source=egs/TEMPLATE/avsr1/cmd.sh
. "${template}/cmd.sh"

## Stages
stage=0                    # the first
stop_stage=7               # the last
force=false                # true: do the stages asked for anew, with these options; downloads stay
dry_run=false              # true: only say what the models cost; no data or weights needed
seed=0                     # of all that is drawn at random
times=                     # seconds of the parts of a run that was timed (progress.sh): with these it is
                           # said how long a run will take and, while it runs, how much is left
## Folders
datadir=data               # what stage 1 writes
dumpdir=dump               # what stages 2 and 3 write
expdir=exp                 # what stages 4 and 5 write
tag=                       # name of the model's folder in expdir; default: mome or mome_<task>
decode_tag=                # further decoding of a model, to decode_<tag>, RESULTS_<tag>.md,
                           # packed_<tag> and report_<tag>
## Processes and machines
nj=$(nproc)                # parallel jobs of the data stages, on this machine
parallel=                  # YAML of a Dask cluster that runs the data stages 2 and 3 instead
ngpu=0                     # GPUs of a machine, all used by one model in training
num_nodes=1                # machines for training; more than one need a train_cmd of a cluster
decode_nj=                 # parallel jobs of decoding, with a GPU each if ngpu > 0; default: ngpu or 1
## Data (stages 0 to 2)
corpus=                    # where the raw corpus is, or is made: given to local/data.py
download_opts=             # further options of local/data.py download; not called if "none"
prepare_opts=              # further options of local/data.py prepare
corpus_parts=              # files and folders of the corpus that are prepared: whether these have
                           # changed since is looked at; default: all of it
train_set=train            # the set trained on
valid_set=valid            # the set that chooses the best epoch
test_sets="test"           # the sets decoded, clean and as the copies below
lip_dir=                   # mouth crops made elsewhere (Auto-AVSR, AV-HuBERT), used as they are
detector=dlib              # or mediapipe: finds faces and landmarks; where one loses the face, the
                           # other is tried, if its model is in downloads (stage 0 puts both there)
streams=                   # what stage 2 prepares, of audio and video; default: what the tasks and
                           # video_config need, or both if both are there already
lip_opts=                  # further options of mome-prepare-media
test_max_excluded=0        # share of a test set that stage 2 may exclude, without a face for example
test_fallback=false        # true: of test clips without a face the whole picture is read, as AV-HuBERT does;
                           # RESULTS.md counts them
exclude=                   # file of utterances that stage 2 leaves out of any set: an id a line, a reason
train_max_seconds=         # clips of the training set that are longer are left out
## Noise and corrupted lips (stage 3; the copies are decoded in stage 5)
musan=                     # folder of the MUSAN corpus, or "download": adds noise, speech and music
musan_opts=                # further options of mome-fetch-musan, such as --mirror <url>
noisex=                    # NOISEX-92's babble.wav, or a folder of its recordings: kind noisex
test_babble_from=          # set whose voices make the babble of tests, such as valid: the same for every
                           # training set; default: the training set, a fifth of which is kept for that
train_noise=               # kinds of noise in training, of babble noise speech music noisex;
                           # default: all there are
test_noise=                # the same for noisy test copies and decoding
snrs="-5 0 5 10 15"        # of the noisy test copies, in dB; empty: clean test sets only
noise_opts=                # further options of mome-make-noise
corruptions=               # of lips in test copies, of blur occlusion darkness drop, at three
                           # strengths each, see mome/data/corrupt.py; none if empty
corrupt_sets=              # the sets for that, such as "test test_babble_snr-5"; default: test_sets
## Models and training (stage 4)
tasks=avsr                 # rows of the table, such as "avsr asr vsr"
one_model=true             # one model for all tasks; otherwise one model for each
train_config=conf/train.yaml # configuration of the model and its training
train_opts=                # further options of mome-train
lm=                        # hub name or folder of the LLM
audio_model=               # hub name or folder of the Whisper model
video_weights=             # file or folder of the video encoder's weights, if it comes from elsewhere
video_config=              # configuration of the video encoder's pretraining, if it is trained here
units_opts=                # further options of mome-make-units, the targets of that
projector_config=          # configuration of the warm start by CTC of the projectors and of a video
                           # encoder that was pretrained here; no warm start if empty
init_projectors=true       # false: of the warm start only the lip encoder is taken, and projectors
                           # begin with random values
## Decoding (stage 5)
inference_model=valid.acc.best.pth # weights decoded; valid.epoch.ave.pth: mean of the last epochs
beam=15                    # hypotheses kept; 1 is greedy
length_penalty=0           # exponent of the length that divides a hypothesis' log-probability: 0 for
                           # the likeliest transcript; Transformers' default is 1
max_new_tokens=            # tokens of a transcript; default: a quarter more than the longest of the
                           # training set has, and at least 32
no_repeat_ngram_size=      # n-grams of so many tokens that occur once in a transcript, against loops;
                           # default: no limit
decode_batch_size=16       # utterances at once
decode_opts=               # further options of mome-decode, such as "--rates a4_v2"
## Packing (stage 6)
trained_on=                # the data in words, for those who use the model; default: the recipe
language=                  # of the corpus, as ISO 639 writes it, for the model card
datasets=                  # names of the data on the Hugging Face hub, for the model card
pack_clips=40              # of the validation set, on which the packed model is measured
pack_opts=                 # further options of mome-pack, such as "--push_to me/my-model"
## Report (stage 7)
report_opts=               # further options of mome-report, such as "--clips 20"

help_message=$(sed -n '2,/^set -/{/^#/p}' "${BASH_SOURCE[0]}" &&
    list_options.sh "${template}/cmd.sh" "${BASH_SOURCE[0]}")
# shellcheck source=utils/parse_options.sh
. "${MOME_ROOT}/utils/parse_options.sh"

log() { echo "$(date '+%H:%M:%S') ($(basename "$0")) $*" >&2; }
die() { log "$*" && exit 1; }
wants() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

[ $# -eq 0 ] ||
    die "'$1' belongs to no option: a value of several words needs quotes, as in --snrs \"-5 0\""
for folder in "${datadir}" "${dumpdir}" "${expdir}"; do
    [[ ${folder} =~ ^[^[:space:],]+$ ]] ||
        die "folder '${folder}': its name separates words in lists of files; no blank and no comma"
done
[[ ${expdir} != *:* ]] ||
    die "--expdir '${expdir}': to ESPnet the name of a file to start from ends at a colon; none in it"
for option in tag decode_tag train_set valid_set; do
    [[ ${!option} =~ ^[^[:space:],]*$ ]] ||
        die "--${option} '${!option}': folders are named by it; no blank and no comma"
done
[[ ${decode_tag} != */* ]] || die "--decode_tag '${decode_tag}': files are named by it; no slash"
for snr in ${snrs}; do
    [[ ${snr} =~ ^[-+]?[0-9]+(\.[0-9]*)?$ ]] || die "--snrs '${snrs}': ${snr} is not an SNR in dB"
done

# What programs write to a pipe ends on this terminal, and may rewrite its last line.
if [ -t 2 ]; then export MOME_TERMINAL=true; fi

# took STAGE: note how long it took, for the last line.
spent='' begun=${SECONDS}
took() {
    end_part
    spent+="; stage $1 $(((SECONDS - begun) / 60)):$(printf %02d $(((SECONDS - begun) % 60)))"
    begun=${SECONDS}
}

# The streams that are prepared: clips without sound serve models that read lips, and clips without a
# face those that hear.
if [ -z "${streams}" ]; then
    case " ${tasks} " in *" avsr "* | *" asr "*) streams=audio ;; esac
    if [ -n "${video_config}" ] && [ -z "${video_weights}" ]; then streams=audio; fi
    case " ${tasks} " in *" avsr "* | *" vsr "*) streams+=" video" ;; esac
    streams=${streams# }
    if [ -f "${dumpdir}/${train_set}/wav.scp" ] && [ -f "${dumpdir}/${train_set}/lip.scp" ]; then
        streams="audio video"
    fi
fi
prepares() { [[ " ${streams} " == *" $1 "* ]]; }

# run_once OPTION... -- COMMAND...: run unless its mark says that it has succeeded like this.
run_once() { python -m mome.bin.run_once --force "${force}" "$@"; }

# counts MARK NAME: whether the work of a mark depends on what is called so. Marks of before do not name
# it, and still hold.
counts() { "${force}" || [ ! -e "$1" ] || grep -q "\"$2\"" "$1"; }

# prepared MARK SET...: what the work of a mark needs of sets: stage 2's marks, and what the clips were
# made from.
prepared() {
    local mark=$1 set
    shift
    for set in "$@"; do
        echo "${dumpdir}/${set}/.done"
        if counts "${mark}" "input .*/sources"; then echo "${dumpdir}/${set}/sources"; fi
    done
}

# as_job LOG: how a command starts where decoding does, in the array launch. The -- of env says where
# the command begins whose options a mark knows.
as_job() {
    launch=()
    # shellcheck disable=SC2206
    if [ "${decode_cmd}" != run.pl ]; then
        launch=(${decode_cmd} --gpu "$((ngpu > 0))" --num_threads 2 "$1" env --)
    fi
}

# shellcheck source=egs/TEMPLATE/avsr1/train.sh
. "${template}/train.sh"
# shellcheck source=egs/TEMPLATE/avsr1/progress.sh
. "${template}/progress.sh"

# The models to train, as "name task task ...".
if "${one_model}"; then
    models=("${tag:-mome} ${tasks}")
else
    models=()
    for task in ${tasks}; do models+=("${tag:-mome}_${task} ${task}"); done
fi

if "${dry_run}"; then
    for model in "${models[@]}"; do
        set_model_args "${model#* }" "${video_weights}"
        # shellcheck disable=SC2086
        python -m mome.bin.train --config "${train_config}" --dry_run true --ngpu "${ngpu}" \
            "${model_args[@]}" ${train_opts}
    done
    exit
fi

log "stages ${stage} to ${stop_stage}; finished work is kept; ./run.sh --help lists the options"
if [ -n "${times}" ]; then
    read_times
    set_pace
fi
say_plan

if wants 0; then
    begin 0_setup "environment"
    "${MOME_ROOT}/tools/setup.sh"
    part= # this takes as long as the network does
    if [ -n "${times}" ] && [ -z "${pace}" ]; then set_pace; fi # on a new machine Python is there now
    begin 0 "pretrained models, raw data"
    python -m mome.bin.fetch_models --downloads "${MOME_DOWNLOADS}"
    if [ "${download_opts}" != none ]; then
        # shellcheck disable=SC2086
        python local/data.py download --out "${corpus}" --nj "${nj}" ${download_opts}
    fi
    took 0
fi

# Days of data stages would lie between, and the weights of a licence that is not yet accepted. Whoever
# has begun to train had them.
to_train=false
for model in "${models[@]}"; do
    if "${force}" || [ ! -e "${expdir}/${model%% *}/.done" ]; then to_train=true; fi
done
if wants 4 && [ "${stage}" -lt 4 ] && "${to_train}" && [ -f "${train_config}" ]; then
    set_model_args "${tasks}" "${video_weights}"
    # shellcheck disable=SC2086
    python -m mome.bin.check_pretrained --config "${train_config}" "${model_args[@]}" ${train_opts}
fi

musan_dir=${musan}
if [ "${musan}" = download ]; then
    musan_dir=${MOME_DOWNLOADS}/musan
    if wants 0 || wants 3; then
        # shellcheck disable=SC2086
        python -m mome.bin.fetch_musan --downloads "${MOME_DOWNLOADS}" ${musan_opts}
    fi
fi

if wants 1; then
    begin 1 "data folders"
    folders=()
    for set in "${train_set}" "${valid_set}" ${test_sets}; do folders+=("${datadir}/${set}"); done
    sources=()
    # A corpus that has other files now, such as those of further speakers, is another one.
    if [ -d "${corpus}" ] && counts "${datadir}/.done" "source .*"; then
        for part in ${corpus_parts}; do sources+=("${corpus}/${part}"); done
        [ -n "${corpus_parts}" ] || sources=("${corpus}")
    fi
    if counts "${datadir}/.done" "source local/data.py"; then sources+=(local/data.py); fi
    # shellcheck disable=SC2086
    run_once --mark "${datadir}/.done" --elsewhere=--datadir --sources "${sources[@]}" \
        --valid "${folders[@]}" -- \
        python local/data.py prepare --corpus "${corpus}" --out "${datadir}" --nj "${nj}" \
        ${prepare_opts}
    took 1
fi

if wants 2; then
    begin 2 "lip regions and audio"
    dlib=${MOME_DOWNLOADS}/dlib/shape_predictor_68_face_landmarks.dat
    mediapipe=${MOME_DOWNLOADS}/mediapipe
    landmarks=("${dlib}" "${mediapipe}")
    if [ "${detector}" = mediapipe ]; then landmarks=("${mediapipe}" "${dlib}"); fi
    stream_args=()
    # shellcheck disable=SC2206
    if ! { prepares audio && prepares video; }; then stream_args=(--streams ${streams}); fi
    for set in "${train_set}" "${valid_set}" ${test_sets}; do
        # A test set without some of its utterances is another one: that is for the user to allow.
        limit=()
        if [[ " ${test_sets} " == *" ${set} "* ]]; then
            limit=(--max_excluded "${test_max_excluded}")
            if "${test_fallback}"; then limit+=(--fallback true); fi
        fi
        if [ "${set}" = "${train_set}" ]; then
            limit+=(${train_max_seconds:+--max_seconds "${train_max_seconds}"})
        fi
        inputs=("${datadir}/.done" ${exclude:+"${exclude}"}) mark=${dumpdir}/${set}/.done
        if counts "${mark}" "input .*/text"; then
            inputs+=("${datadir}/${set}"/{text,utt2spk,video.scp,wav.scp,segments,excluded})
        fi
        # shellcheck disable=SC2206
        prepare=(python -m mome.bin.prepare_media --data "${datadir}/${set}" --dump "${dumpdir}/${set}"
            --detector "${detector}" --landmarks "${landmarks[0]}"
            --other_landmarks "$(if [ -e "${landmarks[1]}" ]; then echo "${landmarks[1]}"; fi)"
            "${stream_args[@]}" --nj "${nj}" ${parallel:+--parallel "${parallel}"}
            ${lip_dir:+--lip_dir "${lip_dir}"} ${exclude:+--exclude "${exclude}"}
            ${lip_opts} "${limit[@]}")
        # A recording that was replaced under its name is another one.
        sources=()
        if counts "${mark}" "source .*"; then
            "${prepare[@]}" --look_only true
            sources=("${dumpdir}/${set}/sources.sha256")
        fi
        run_once --mark "${mark}" --elsewhere=--dumpdir --needs "${inputs[@]}" --sources "${sources[@]}" \
            --valid "${dumpdir}/${set}" --forget "${dumpdir}/${set}/settings.json" -- "${prepare[@]}"
        if prepares video && [ ! "${dumpdir}/${set}/lips.png" -nt "${mark}" ]; then
            python -m mome.bin.contact_sheet --data "${dumpdir}/${set}" \
                --output "${dumpdir}/${set}/lips.png"
        fi
    done
    took 2
fi

if wants 3; then
    begin 3 "noise, mismatched streams, corrupted lips"
    # Without run_once: these add to what is there, and look at the settings of each set themselves.
    if prepares audio; then
        # shellcheck disable=SC2086
        python -m mome.bin.make_noise --dump "${dumpdir}" --train_set "${train_set}" \
            --force "${force}" --test_sets ${test_sets} --snrs ${snrs} --nj "${nj}" \
            --seed "${seed}" ${parallel:+--parallel "${parallel}"} \
            ${musan_dir:+--musan "${musan_dir}"} ${noisex:+--noisex "${noisex}"} \
            ${test_babble_from:+--test_babble_from "${dumpdir}/${test_babble_from}"} \
            ${test_noise:+--test_kinds ${test_noise}} ${noise_opts} 2>&1 | tee -a "${dumpdir}/noise.log"
    fi
    # shellcheck disable=SC2086
    python -m mome.bin.swap_stream --dump "${dumpdir}" --sets ${test_sets}
    if [ -n "${corruptions}" ] && ! prepares video; then
        log "stage 3: no --corruptions, as --tasks ${tasks} reads no lips"
    elif [ -n "${corruptions}" ]; then
        # shellcheck disable=SC2086
        python -m mome.bin.corrupt_lips --dump "${dumpdir}" --sets ${corrupt_sets:-${test_sets}} \
            --kinds ${corruptions} --nj "${nj}" --seed "${seed}" --force "${force}" \
            ${parallel:+--parallel "${parallel}"} 2>&1 | tee -a "${dumpdir}/corrupt.log"
    fi
    took 3
fi

if wants 4; then
    encoder=${video_weights} needs='' units=() init=() freeze=true
    if [ -n "${video_config}" ] && [ -z "${video_weights}" ] && [ "${tasks}" != asr ]; then
        begin 4_units "acoustic units, the targets of the video encoder"
        as_job "${expdir}/units_job.log"
        # shellcheck disable=SC2046,SC2086
        run_once --mark "${expdir}/units/.done" --elsewhere=--expdir \
            --needs $(prepared "${expdir}/units/.done" "${train_set}" "${valid_set}") -- \
            "${launch[@]}" python -m mome.bin.make_units \
            --data "${dumpdir}/${train_set}" "${dumpdir}/${valid_set}" \
            --output "${expdir}/units" --whisper "${audio_model}" --seed "${seed}" \
            --ngpu "$((ngpu > 0))" ${units_opts}
        begin 4_video_encoder "pretraining of the video encoder"
        train "${expdir}/video_encoder" "${video_config}" "${expdir}/units/.done" \
            --units "${expdir}/units"
        export_encoder "${expdir}/video_encoder" "${expdir}/video_encoder/valid.acc.best.pth"
        encoder=${expdir}/video_encoder/video_encoder.safetensors
        needs="${expdir}/units/.done ${expdir}/video_encoder/.exported.done"
        units=(--units "${expdir}/units") freeze=false
    fi
    if [ -n "${projector_config}" ]; then
        # A warm start holds the projectors of what the tasks read, and is named by that.
        case " ${tasks} " in
            *" avsr "* | *" asr "*"vsr "* | *" vsr "*"asr "*) reads=avsr ;;
            *) reads=${tasks} ;;
        esac
        warm=${expdir}/projectors_${reads}
        begin 4_projectors "warm start of the projectors"
        train_avsr "${warm}" "${projector_config}" "${needs}" "${reads}" "${encoder}" \
            --freeze_video_encoder "${freeze}" "${units[@]}"
        if ! "${freeze}"; then
            export_encoder "${warm}" "${warm}/valid.loss.best.pth"
            encoder=${warm}/video_encoder.safetensors needs=${warm}/.exported.done
        fi
        if "${init_projectors}"; then
            init=(--ignore_init_mismatch true --init_param "${warm}/valid.loss.best.pth")
        fi
        needs+=" ${warm}/.done"
    fi
    for model in "${models[@]}"; do
        begin 4_model "training of ${model%% *} for ${model#* }"
        # shellcheck disable=SC2086
        elsewhere="--expdir or --tag" \
            train_avsr "${expdir}/${model%% *}" "${train_config}" "${needs}" "${model#* }" "${encoder}" \
            "${init[@]}" ${train_opts}
    done
    took 4
fi

if wants 5; then
    jobs=${decode_nj:-$((ngpu > 1 ? ngpu : 1))}
    for model in "${models[@]}"; do
        dir=${expdir}/${model%% *}
        out=${dir}/decode${decode_tag:+_${decode_tag}}
        begin 5 "decoding and scoring of ${model%% *}"
        [ -f "${dir}/config.yaml" ] || die "${dir}/config.yaml does not exist; train the model first (stage 4)"
        # shellcheck disable=SC2206
        decode=(python -m mome.bin.decode --config "${dir}/config.yaml" --dump "${dumpdir}"
            --weights "${dir}/${inference_model}" --output "${out}" --force "${force}"
            --train_set "${train_set}" --parameters "${dir}/parameters.txt"
            --test_sets ${test_sets} --snrs ${snrs} ${test_noise:+--kinds ${test_noise}}
            --corruptions ${corruptions} ${corrupt_sets:+--corrupt_sets ${corrupt_sets}}
            --beam "${beam}" --length_penalty "${length_penalty}" --ngpu "$((ngpu > 0))"
            ${max_new_tokens:+--max_new_tokens "${max_new_tokens}"}
            ${no_repeat_ngram_size:+--no_repeat_ngram_size "${no_repeat_ngram_size}"}
            --batch_size "${decode_batch_size}" ${decode_opts})
        if [ "${jobs}" -eq 1 ] && [ "${decode_cmd}" = run.pl ]; then
            "${decode[@]}" 2>&1 | tee -a "${out}.log"
        else
            ${decode_cmd} --gpu "$((ngpu > 0))" --num_threads 2 "JOB=1:${jobs}" \
                "${out}/log/decode.JOB.log" \
                "${decode[@]}" --part "JOB/${jobs}"
            python -m mome.bin.merge_decoding --decode "${out}" --nj "${jobs}"
        fi
        cat "${dir}/parameters.txt"
        python -m mome.bin.score --expdir "${dir}" --dump "${dumpdir}" --decode_tag "${decode_tag}" \
            --train_text "${dumpdir}/${train_set}/text"
        log "word error rates: ${dir}/RESULTS${decode_tag:+_${decode_tag}}.md"
    done
    took 5
fi

if wants 6; then
    for model in "${models[@]}"; do
        dir=${expdir}/${model%% *}
        packed=packed${decode_tag:+_${decode_tag}}
        begin 6 "packing of ${model%% *}"
        mark=${dir}/.${packed}.done
        # Of before, one may say that all 200 of mome.bin.pack's default were measured on; it holds.
        measured=()
        if counts "${mark}" "--max_clips"; then measured=(--max_clips "${pack_clips}"); fi
        # shellcheck disable=SC2206
        pack=(python -m mome.bin.pack --expdir "${dir}" --weights "${inference_model}"
            --dump "${dumpdir}" --train_set "${train_set}" --valid_set "${valid_set}"
            --trained_on "${trained_on:-${train_set} of $(basename "${PWD}")}"
            ${datasets:+--datasets ${datasets}} ${language:+--language ${language}}
            ${decode_tag:+--decode_tag "${decode_tag}"}
            --device "$( ((ngpu > 0)) && echo cuda || echo cpu)" --beam "${beam}"
            --length_penalty "${length_penalty}"
            ${no_repeat_ngram_size:+--no_repeat_ngram_size "${no_repeat_ngram_size}"}
            --output "${dir}/${packed}" "${measured[@]}" ${pack_opts})
        # Earlier versions named the recipe's folder as a dataset. What they packed holds: it is not
        # measured again, and its card is renewed.
        former=()
        if ! counts "${mark}" "input .*/sources" && [[ ${pack[*]} != *" --datasets "* ]]; then
            former=(--datasets "$(basename "${PWD}")")
        fi
        # The card's renewal uploads, here, where there is a network.
        measure=() word=''
        for next in "${pack[@]}" "${former[@]}"; do
            [[ ${word} = --push_to || ${next} = --push_to || ${next} = --push_to=* ]] || measure+=("${next}")
            word=${next}
        done
        as_job "${dir}/${packed}_job.log"
        # shellcheck disable=SC2046
        run_once --mark "${mark}" --elsewhere=--expdir --modules_of "${dir}/config.yaml" \
            --needs "${dir}/.done" $(prepared "${mark}" "${valid_set}") -- \
            "${launch[@]}" "${measure[@]}"
        # Without run_once: stage 5 may have decoded further sets since. That needs no GPU.
        "${pack[@]}" --card_only --device cpu
        # Two recordings as they came, from the file to the text.
        if [ -z "${lip_dir}" ]; then
            mapfile -t clips < <(head -n 2 "${datadir}/${test_sets%% *}/video.scp" | cut -d' ' -f2-)
            # A packed model does not tell where its frozen parts are; the training's files do.
            mapfile -t folders < <(python -c 'import sys; from pathlib import Path
from mome.tasks.frozen_parts import folders_of
for folder in folders_of(Path(sys.argv[1])): print("--downloads", folder, sep="\n")' "${dir}/config.yaml")
            faces=()
            if prepares video; then faces=(--detector "${detector}"); fi
            python -m mome.bin.transcribe "${clips[@]}" --model "${dir}/${packed}" --beam "${beam}" \
                "${faces[@]}" --downloads "${MOME_DOWNLOADS}" "${folders[@]}" || {
                # 1 is for clips that cannot be read, and anything else says that the model cannot.
                code=$? && [ "${code}" -eq 1 ] || exit "${code}"
                log "stage 6: not both of these could be read, for the reasons above; the model is packed"
            }
        fi
        log "transcribe others by: . $(realpath "${template}/path.sh")"
        log "                       mome-transcribe <recording> --model $(realpath "${dir}/${packed}")"
    done
    took 6
fi

if wants 7; then
    for model in "${models[@]}"; do
        dir=${expdir}/${model%% *}
        begin 7 "figures and report of ${model%% *}"
        # Without run_once: it takes a minute, and stage 5 may have decoded further sets.
        as_job "${dir}/report${decode_tag:+_${decode_tag}}_job.log"
        # shellcheck disable=SC2086
        "${launch[@]}" python -m mome.bin.report --expdir "${dir}" --dump "${dumpdir}" \
            --test_set "${test_sets%% *}" ${decode_tag:+--decode_tag "${decode_tag}"} \
            --device "$( ((ngpu > 0)) && echo cuda || echo cpu)" \
            --output "${dir}/report${decode_tag:+_${decode_tag}}" ${report_opts}
        log "report: ${dir}/report${decode_tag:+_${decode_tag}}/report.html"
    done
    took 7
fi
write_times
log "finished stages ${stage} to ${stop_stage}${spent}"
