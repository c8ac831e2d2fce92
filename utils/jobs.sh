#!/usr/bin/env bash
# Start one job or an array of jobs and wait for them, as Kaldi's launchers of the same names do:
#
#   run.pl   [options] [JOB=1:N] <log> <command>...    on this machine, all jobs at once
#   slurm.pl [options] [JOB=1:N] <log> <command>...    on a Slurm cluster, by sbatch
#
# JOB stands for the number of the job in <log> and <command>. Options: --gpu N, --num_threads N (the
# largest of several), --num_nodes N. slurm.pl gives any other to sbatch, as sbatch writes it: --partition
# gpu, --partition=gpu, -p gpu. A word after an option is its value unless it begins with -, so one
# without a value, such as --exclusive, stands before another option: --exclusive --gpu 1 <log> ...
# run.pl --gpu 1 spreads the jobs of an array over the GPUs; without --gpu they share the cores, unless
# OMP_NUM_THREADS says how many threads each has. Failed jobs are named with their logs. An interrupt ends
# the jobs, on Slurm by scancel; while a job of an earlier call is in the queue, no other writes its log.
# espnet2.bin.launch tells by the name how jobs of several machines are started, hence the links.
set -euo pipefail

gpu=0 num_threads=1 num_nodes=1 first='' last=''
sbatch_options=()
die() { echo "${0##*/}: $*" >&2 && exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        --gpu=* | --num_threads=* | --num_nodes=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --gpu | --num_threads | --num_nodes)
            [[ ${2:-} =~ ^[0-9]+$ ]] || die "$1 '${2:-}' is no number"
            # ESPnet's launcher asks for a thread for each GPU after what its --cmd asks for.
            [ "$1" = --num_threads ] && [ "$2" -lt "${num_threads}" ] || printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        -*)
            [ "${0##*/}" != run.pl ] || die "unknown option $1; it has --gpu, --num_threads, --num_nodes and" \
                "starts all jobs at once: --decode_nj of the recipes says how many"
            if [[ $# -eq 1 || $1 =~ ^(--.*=|-[^-].) || $2 =~ ^(-|JOB=) ]]; then
                sbatch_options+=("$1")
            else
                if [[ $1 == --* ]]; then sbatch_options+=("$1=$2"); else sbatch_options+=("$1" "$2"); fi
                shift
            fi
            shift
            ;;
        JOB=*) first=${1#JOB=}; last=${first#*:}; first=${first%:*}; shift ;;
        *) break ;;
    esac
done
[ $# -ge 2 ] || die "a log file and a command are needed; see --help"
log=$1
shift

log_of() { if [ -n "${first}" ]; then echo "${log//JOB/$1}"; else echo "${log}"; fi; }

for job in $(seq "${first:-1}" "${last:-1}"); do mkdir -p "$(dirname "$(log_of "${job}")")"; done

# all_end CODE: whether the logs of all jobs end with that status; * is any.
all_end() {
    local job end="# Ended (code $1)"
    for job in $(seq "${first:-1}" "${last:-1}"); do
        # shellcheck disable=SC2053
        [[ $(tail -n 1 "$(log_of "${job}")" 2> /dev/null) == ${end} ]] || return 1
    done
}

# report: name the jobs whose log does not end well.
report() {
    local job
    for job in $(seq "${first:-1}" "${last:-1}"); do
        if [ "$(tail -n 1 "$(log_of "${job}")" 2> /dev/null)" != "# Ended (code 0)" ]; then
            echo "${0##*/}: job ${job} failed; the end of $(log_of "${job}"):" >&2
            tail -n 10 "$(log_of "${job}")" >&2 || true
        fi
    done
    exit 1
}

# slurm COMMAND JOB: squeue or scancel of a job, whose name is as sbatch --parsable prints it: its number,
# and after a semicolon its cluster where there are several.
slurm() {
    local words=("$1" "${2%%;*}")
    if [ "$1" = squeue ]; then words=(squeue --noheader --jobs="${2%%;*}"); fi
    [[ $2 != *";"* ]] || words+=(--clusters="${2#*;}")
    "${words[@]}"
}

# in_queue JOB: whether Slurm still has a job. Whoever cannot ask Slurm takes it that it has.
in_queue() {
    local found
    if found=$(slurm squeue "$1" 2> /dev/null); then
        grep -qv '^CLUSTER:' <<< "${found:-CLUSTER:}"
    else
        [[ $(slurm squeue "$1" 2>&1) != *"Invalid job id"* ]]
    fi
}

# The job itself, as a script: its number is $1.
job_script() {
    local command=("$@")
    declare -p command
    # shellcheck disable=SC2016
    [ -z "${first}" ] || echo 'command=("${command[@]//JOB/$1}")'
    # shellcheck disable=SC2016
    printf '%s\n' 'echo "# Running on $(hostname): ${command[*]@Q}"' \
        '"${command[@]}" && code=0 || code=$?' 'echo "# Ended (code ${code})"' 'exit "${code}"'
}

case ${0##*/} in
    run.pl)
        # A job is a session of its own, so that an interrupt ends all that it started.
        trap 'for pid in $(jobs -p); do kill -- "-${pid}" || true; done; exit 130' INT TERM
        if [ "${gpu}" -gt 0 ] && [ -n "${first}" ]; then
            visible=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd,)}
            IFS=, read -ra devices <<< "${visible}"
        fi
        if [ "${gpu}" -eq 0 ] && [ -n "${first}" ] && [ -z "${OMP_NUM_THREADS:-}" ]; then
            threads=$(($(nproc) / (last - first + 1)))
            export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
        fi
        script=$(job_script "$@")
        for job in $(seq "${first:-1}" "${last:-1}"); do
            if [ -n "${devices:-}" ]; then
                export CUDA_VISIBLE_DEVICES=${devices[(job - 1) % ${#devices[@]}]}
            fi
            setsid bash -c "${script}" job "${job}" > "$(log_of "${job}")" 2>&1 &
        done
        failed=0
        for pid in $(jobs -p); do wait "${pid}" || failed=1; done
        [ "${failed}" -eq 0 ] || report
        ;;
    slurm.pl)
        script=$(log_of all).sh submitted=$(log_of all).job
        if [ -s "${submitted}" ] && in_queue "$(< "${submitted}")"; then
            die "job $(< "${submitted}") of an earlier call still runs and writes ${log}: wait until it has" \
                "ended (squeue --jobs $(< "${submitted}")), or end it by scancel $(< "${submitted}")"
        fi
        options=(--parsable --job-name="$(basename "${log}" .log)")
        # Slurm does not take both --cpus-per-gpu and --cpus-per-task.
        [[ " ${sbatch_options[*]}" =~ \ (-c|--cpus-per-) ]] || options+=(--cpus-per-task="${num_threads}")
        [ "${gpu}" -eq 0 ] || options+=(--gres="gpu:${gpu}")
        [ "${num_nodes}" -eq 1 ] || options+=(--nodes="${num_nodes}" --ntasks-per-node=1)
        number=1
        if [ -n "${first}" ]; then
            options+=(--array="${first}-${last}")
            # shellcheck disable=SC2016
            number='${SLURM_ARRAY_TASK_ID}'
        fi
        {
            # shellcheck disable=SC2016
            printf '%s\n' '#!/usr/bin/env bash' "set -- ${number}" \
                '# srun: a process that dies ends the others, and each has the CPUs of the job.' \
                'export SLURM_KILL_BAD_EXIT=1' \
                '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK}'
            job_script "$@"
        } > "${script}"
        for job in $(seq "${first:-1}" "${last:-1}"); do : > "$(log_of "${job}")"; done
        # Not sbatch --wait: that tells the number of its job, by which it can be ended, at its own end.
        id=
        trap '[ -z "${id}" ] || slurm scancel "${id}"; exit 130' INT TERM
        id=$(sbatch "${options[@]}" "${sbatch_options[@]}" --output="$(log_of %a)" "${script}")
        [[ ${id} =~ ^[0-9]+(;|$) ]] || die "sbatch says '${id}', which is no number of a job"
        echo "${id}" > "${submitted}"
        pause=1
        while in_queue "${id}"; do
            sleep "${pause}" & wait $!
            pause=$((pause < 16 ? 2 * pause : 30))
        done
        rm "${submitted}"
        # A network's file system may show late what a job wrote.
        for pause in 1 2 4 8 15; do
            ! all_end '*' || break
            sleep "${pause}" & wait $!
        done
        all_end 0 || report
        ;;
    *) echo "$0: call this as run.pl or slurm.pl" >&2; exit 2 ;;
esac
