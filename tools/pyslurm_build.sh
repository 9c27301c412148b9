#!/usr/bin/env bash
# Build the pyslurm that PyPI has for the Slurm that is installed, into a folder of its own.
#
#   tools/pyslurm_build.sh TARGET [ROOT]      ROOT: do it inside this other system (tools/slurm_root.sh), TARGET is a path in there
#
# One release of pyslurm goes with one release of Slurm, and PyPI has the current one only. Where Slurm is that release, this is a plain
# `pip install`. Where Slurm is 26.05, which passes job ids in another way, the sources are compiled against it with the macros below;
# nothing in them is changed but the version, which then names the Slurm it is for: 25.11.2+slurm26.5. Any other Slurm is refused:
# install the release of pyslurm that matches it.
# Needs apt-get for the build tools (as root), else: gcc, Cython, setuptools, Slurm's headers and the headers of Python.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
release=25.11.2
python=${COLOC_PYTHON:-python3}
say() { printf 'pyslurm_build: %s\n' "$*"; }
fail() { printf 'pyslurm_build: %s\n' "$@" >&2; exit 1; }

(($# == 1 || $# == 2)) || fail "usage: tools/pyslurm_build.sh TARGET [ROOT]"
target=$1 root=${2:-}
[[ $target == /* && $target != / && $target != *[[:space:]]* ]] || fail "TARGET must be an absolute path without spaces: $target"
if [[ -n $root ]]; then
    [[ -x $root/usr/sbin/slurmctld ]] || fail "there is no Slurm in $root" "make it with tools/slurm_root.sh"
    ((EUID == 0)) || fail "only root can change into another system"
    inner() { chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
else
    inner() { "$@"; }
fi
if [[ -e $root$target/pyslurm/__init__.py ]]; then
    say "$target has a pyslurm: $(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root$target/pyslurm/version.py")"
    exit 0
fi

packages=(gcc libc6-dev libslurm-dev python3-dev cython3 python3-setuptools)
missing=()
for package in "${packages[@]}"; do
    inner dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})) && inner sh -c 'command -v apt-get' >/dev/null; then
    say "installing ${missing[*]}"
    options=(-qq)
    [[ ${COLOC_STALE_MIRROR:-} != 1 ]] || options+=(-o Acquire::Check-Valid-Until=false)
    { inner apt-get "${options[@]}" update && DEBIAN_FRONTEND=noninteractive inner apt-get "${options[@]}" install -y \
        --no-install-recommends "${missing[@]}"; } </dev/null >/dev/null 2>&1 ||
        fail "the build tools cannot be installed: ${missing[*]}" "run: apt-get install ${missing[*]}"
fi

headers=/usr/include
number=$(sed -n 's/^#define SLURM_VERSION_NUMBER 0x//p' "$root$headers/slurm/slurm_version.h")
slurm="$((16#$number >> 16 & 255)).$((16#$number >> 8 & 255))"
case $slurm in
25.11) version=$release ;;
26.5) version=$release+slurm$slurm ;;
*) fail "pyslurm $release is for Slurm 25.11 (and, with this script, 26.05), not for $slurm" \
    "install the release of pyslurm that matches your Slurm" ;;
esac
library=$(inner sh -c 'for d in /usr/lib/*/slurm-wlm /usr/lib/*/slurm /usr/lib64/slurm /usr/lib/slurm; do
    [ ! -e "$d/libslurmfull.so" ] || { echo "$d"; break; }; done')
[[ -n $library ]] || fail "libslurmfull.so is not there" "install Slurm's client libraries"

work=$(mktemp -d "$root/var/tmp/coloc-pyslurm.XXXXXX")
trap 'rm -rf "$work"' EXIT
here=${work#"$root"}
say "pyslurm $version for Slurm $slurm"
"$python" -m pip download -q --no-deps --no-build-isolation --no-binary :all: -d "$work" "pyslurm==$release" >"$work/log" 2>&1 ||
    "$python" -m pip download -q --no-deps --no-binary :all: -d "$work" "pyslurm==$release" >>"$work/log" 2>&1 ||
    fail "pip cannot get pyslurm $release" "$(tail -n 3 "$work/log")"
tar -xzf "$work/pyslurm-$release.tar.gz" -C "$work"
flags=()
if [[ $slurm == 26.5 ]]; then
    mkdir -p "$work/include/slurm"
    for file in "$root$headers"/slurm/*.h; do
        ln -s "$headers/slurm/${file##*/}" "$work/include/slurm/${file##*/}"
    done
    rm "$work/include/slurm/slurm_version.h"
    sed 's/^#define SLURM_VERSION_NUMBER .*/#define SLURM_VERSION_NUMBER 0x190b00/' \
        "$root$headers/slurm/slurm_version.h" >"$work/include/slurm/slurm_version.h"
    cat >"$work/compat.h" <<'HEADER'
/* Slurm 26.05 names a job by a slurm_step_id_t where 25.11 took a number. */
#include <stdio.h>
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#define COLOC_JOB(id) ((slurm_step_id_t){.sluid = 0, .job_id = (id), .step_het_comp = NO_VAL, .step_id = NO_VAL})
#define slurm_load_job(resp, id, flags) slurm_load_job(resp, COLOC_JOB(id), flags)
#define slurm_kill_job(id, signal, flags) slurm_kill_job(COLOC_JOB(id), signal, flags)
#define slurm_signal_job(id, signal) slurm_signal_job(COLOC_JOB(id), signal)
#define slurm_suspend(id) slurm_suspend(COLOC_JOB(id))
#define slurm_resume(id) slurm_resume(COLOC_JOB(id))
#define slurm_requeue(id, flags) slurm_requeue(COLOC_JOB(id), flags)
#define slurm_notify_job(id, text) slurm_notify_job(COLOC_JOB(id), text)
#define slurm_job_batch_script(out, id) slurm_job_batch_script(out, COLOC_JOB(id))
#define slurm_get_end_time(id, end) slurm_get_end_time(COLOC_JOB(id), end)
#define slurm_get_rem_time(id) slurm_get_rem_time(COLOC_JOB(id))
#define slurm_job_node_ready(id) slurm_job_node_ready(COLOC_JOB(id))
#define slurm_terminate_job_step(id, step) slurm_terminate_job_step(COLOC_JOB(id), step)
#define slurm_free_ctl_conf slurm_free_conf
#ifndef ESLURM_ERROR_ON_DESC_TO_RECORD_COPY
#define ESLURM_ERROR_ON_DESC_TO_RECORD_COPY (-2)
#endif
static inline int coloc_pid2jobid(pid_t pid, uint32_t *id) {
    slurm_step_id_t found = COLOC_JOB(NO_VAL);
    int rc = slurm_pid2jobid(pid, &found);
    *id = found.job_id;
    return rc;
}
#define slurm_pid2jobid(pid, id) coloc_pid2jobid(pid, id)
HEADER
    sed -i "s/^__version__ = .*/__version__ = \"$version\"/" "$work/pyslurm-$release/pyslurm/version.py"
    headers=$here/include
    flags=("CFLAGS=-include $here/compat.h")
fi
# One process, low priority: the build takes some minutes of a core and nobody waits for it.
inner env "${flags[@]}" SLURM_INCLUDE_DIR="$headers" SLURM_LIB_DIR="${library%/*}" \
    sh -c "cd '$here/pyslurm-$release' && nice -n 10 python3 setup.py build_ext --inplace" >"$work/log" 2>&1 ||
    fail "the build failed" "$(tail -n 5 "$work/log")"
mkdir -p "$root$target"
(cd "$work/pyslurm-$release" && find pyslurm \( -name '*.py' -o -name '*.so' \) -print0 | tar -cf - --null -T -) |
    tar -xf - -C "$root$target"
[[ ! -e $work/pyslurm-$release/COPYING.txt ]] || cp "$work/pyslurm-$release/COPYING.txt" "$root$target/pyslurm/"
say "$target: pyslurm $version, for Slurm $slurm; use it with PYTHONPATH=$target"
