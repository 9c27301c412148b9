#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=command --coloc-checkpoint='sh criu.sh dump' --coloc-resume='sh criu.sh restore'
# with DMTCP: start `dmtcp_launch python3 unaware.py`, and
#   --coloc-checkpoint='dmtcp_command --bcheckpoint' --coloc-resume='exec sh dmtcp_restart_script.sh'
exec setsid python3 unaware.py </dev/null >>unaware.log 2>&1
