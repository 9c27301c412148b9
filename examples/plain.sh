#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=plain --coloc-interval=60
# Work in steps, saved in the file `checkpoint`. USR1 only sets a flag: bash runs the trap between two commands.
asked=
trap 'asked=1' USR1
step=$(cat checkpoint 2>/dev/null || echo 0)
while ((step < ${STEPS:-600})); do
    sleep 0.1                             # one step of work
    step=$((step + 1))
    echo "${SLURM_RESTART_COUNT:-0} $step" >>journal
    if [[ $asked ]]; then
        echo "$step" >checkpoint.new && mv checkpoint.new checkpoint
        coloc checkpointed --yield
        while :; do sleep 1; done         # coloc requeues the job now; if it ended, Slurm would call it done
    fi
done
echo "$step" >finished
