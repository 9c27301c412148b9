#!/bin/bash
# A batch job of the benchmark: slurm_job.sh FOLDER STEP SAVE [coloc]. Counts steps of STEP seconds, resumes at its checkpoint,
# saves (SAVE seconds) when it is told to: at USR1, and at TERM if it has not saved since its last step. Both arms run the same
# script. It is bash alone, since the system it runs in may have no Python; with `coloc` it writes what
# `coloc checkpointed --yield` writes: saved and yielded in its own comment.
folder=$1 pause=$2 cost=$3 care=${4:-}
asked='' ended='' safe=''
trap 'asked=1' USR1
trap 'ended=1' TERM
exec {idle}<> <(:)            # reading it waits without starting a process
nap() { read -r -t "$1" -u "$idle"; }
step=0
[[ -e $folder/checkpoint ]] && read -r step <"$folder/checkpoint"
mkdir -p "$folder"
printf 'start %s\n' "$step" >>"$folder/journal"

save() {
    [[ $cost == 0 ]] || nap "$cost"
    printf '%s\n' "$step" >"$folder/checkpoint.new"
    mv "$folder/checkpoint.new" "$folder/checkpoint"
    safe=1
}

tell() {
    local comment now
    comment=$(squeue -h -j "$SLURM_JOB_ID" -o %k)
    printf -v now '%(%s)T' -1
    comment=${comment%]}
    [[ -n $comment ]] && scontrol update "jobid=$SLURM_JOB_ID" "comment=${comment%% saved=*} saved=$now yielded=$now]"
}

while [[ -z $ended ]]; do
    nap "$pause"
    [[ -n $ended ]] && break
    ((step += 1))
    safe=''
    printf 'step %s\n' "$step" >>"$folder/journal"
    if [[ -n $asked ]]; then
        asked=''
        save
        [[ -n $care ]] && tell
        for ((k = 0; k < 600; k++)); do       # nobody took the GPUs for a minute: go on
            [[ -n $ended ]] && break
            nap 0.1
        done
    fi
done
[[ -n $safe ]] || save
