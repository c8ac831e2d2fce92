# shellcheck shell=bash disable=SC2154
# Sourced by avsr.sh: what a run is at and how long the rest of it takes. The programs that it starts
# are told so in the environment, and show it (mome/common/progress.py). Options of avsr.sh are read
# here, none is changed.
#
# A recipe's `times` has lines "<part> <seconds>", in the order of the run, of one that was timed; part
# N or N_<name> belongs to stage N, and `product` is what that machine took for matrix products, in
# milliseconds. A run that has come to its end writes such a file, <expdir>/times.

declare -A expected=() # part -> seconds of the table
planned=()             # the table's parts that belong to the stages asked for
pace=                  # thousandths of the table's times that this machine takes; empty if unknown
part='' part_begun=0 table_done=0 here_done=0
spent_by_part='' # lines of this run's own table

# read_times: the table.
read_times() {
    local name seconds
    while read -r name seconds _; do
        case ${name} in '' | '#'*) continue ;; esac
        expected[${name}]=${seconds}
        if [ "${name}" != product ] && wants "${name%%_*}"; then planned+=("${name}"); fi
    done < "${times}"
}

# set_pace: compare this machine with the table's, if Python is there already.
set_pace() {
    local product
    if [ -n "${expected[product]:-}" ] && product=$(python -m mome.common.progress 2> /dev/null); then
        pace=$((1000 * product / expected[product]))
    fi
}

# minutes SECONDS_OF_THE_TABLE: what this machine takes for that, in words.
minutes() {
    local seconds=$(($1 * ${pace:-1000} / 1000))
    if [ "${seconds}" -lt 50 ]; then echo "less than a minute"; else echo "about $(((seconds + 30) / 60)) min"; fi
}

# say_plan: what each stage makes, and how long it takes where that is known.
say_plan() {
    local number name sum all=0 takes
    for ((number = stage; number <= stop_stage; number++)); do
        sum=0 takes=
        for name in "${planned[@]}"; do
            if [ "${name%%_*}" = "${number}" ]; then ((sum += expected[${name}])) || true; fi
        done
        if [ "${sum}" -gt 0 ]; then takes=", $(minutes "${sum}")"; fi
        ((all += sum)) || true
        sed -n "s/^#   stage ${number} \(.*\)/  stage ${number} \1${takes}/p" "${template}/avsr.sh" >&2
    done
    if [ "${all}" -gt 0 ]; then log "$(minutes "${all}") in all, if nothing is done yet"; fi
}

# begin PART TITLE: what the programs called from now on do.
begin() {
    local name after=false later=0
    end_part
    part=$1 part_begun=${SECONDS}
    log "stage ${1%%_*}: $2"
    for name in "${planned[@]}"; do
        if "${after}"; then ((later += expected[${name}])) || true; fi
        if [ "${name}" = "${part}" ]; then after=true; fi
    done
    export MOME_PART="stage ${1%%_*} of ${stop_stage}, $2" MOME_PART_SECONDS='' MOME_LATER_SECONDS=''
    if "${after}"; then
        MOME_PART_SECONDS=$((expected[${part}] * ${pace:-1000} / 1000))
        MOME_LATER_SECONDS=$((later * ${pace:-1000} / 1000))
    fi
}

# end_part: learn from how long a part took, unless it was done before.
end_part() {
    local here=$((SECONDS - part_begun)) table=${expected[${part:-none}]:-0}
    if [ -n "${part}" ]; then spent_by_part+="${part} ${here}"$'\n'; fi
    if [ -n "${part}" ] && [ "${table}" -gt 0 ] && [ $((5000 * here)) -ge $((table * ${pace:-1000})) ]; then
        ((table_done += table, here_done += here)) || true
        pace=$((1000 * here_done / table_done))
    fi
    part=
}

# write_times: what this run took, as a table for others.
write_times() {
    if [ -d "${expdir}" ]; then
        { echo "product $(python -m mome.common.progress)" && echo -n "${spent_by_part}"; } > "${expdir}/times"
    fi
}
