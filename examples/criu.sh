#!/bin/sh
# dump: save the program that coloc names in COLOC_PROGRAMS, which ends by that; restore: let it go on. CRIU needs root, or
# CAP_CHECKPOINT_RESTORE.
set -eu
case $1 in
dump)
    rm -rf image.new && mkdir image.new
    ${CRIU:-criu} dump --tree "${COLOC_PROGRAMS%% *}" --images-dir image.new --shell-job --log-file dump.log
    rm -rf image && mv image.new image ;;
restore)
    exec ${CRIU:-criu} restore --images-dir image --shell-job --log-file restore.log ;;
esac
