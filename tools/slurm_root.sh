#!/usr/bin/env bash
# Make a folder with another Debian and its Slurm in it, for COLOC_TEST_SLURM_ROOT: newer releases of Slurm on an older host.
#
#   tools/slurm_root.sh DIR [SUITE]      as root; SUITE: a Debian release, default forky (Slurm 26.05 and later)
#
# Packages come from the mirror that apt uses on this machine (python3 for the jobs of tests). Needs debootstrap. A folder that is complete is left alone, one
# that lacks only Slurm is completed. COLOC_STALE_MIRROR=1 accepts a mirror whose lists have expired; signatures are checked anyway.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
say() { printf 'slurm_root: %s\n' "$*"; }
fail() { printf 'slurm_root: %s\n' "$@" >&2; exit 1; }

(($# >= 1 && $# <= 2)) || fail "usage: tools/slurm_root.sh DIR [SUITE]"
dir=$1 suite=${2:-forky}
[[ $dir == /* && $dir != / && $dir != *[[:space:]]* ]] || fail "DIR must be an absolute path without spaces: $dir"
[[ $suite =~ ^[a-z]+$ ]] || fail "no name of a Debian release: $suite"
if [[ -x $dir/usr/sbin/slurmctld && -x $dir/usr/sbin/munged && -x $dir/usr/bin/python3 ]]; then
    say "$dir is complete: $(chroot "$dir" /usr/sbin/slurmctld -V)"
    exit 0
fi
((EUID == 0)) || fail "only root can do this" "run: sudo tools/slurm_root.sh $dir $suite"
type -P debootstrap >/dev/null || fail "debootstrap is missing" "run: apt-get install debootstrap"

mirror() {   # of the distribution's main component, as apt knows it; not the one for security updates
    local uri repo origin
    while read -r uri repo origin; do
        if [[ $origin == Debian && $repo != *security* ]]; then
            printf '%s\n' "$repo"
            return 0
        fi
    done < <(apt-get indextargets --format '$(URI) $(REPO_URI) $(ORIGIN)' 'Created-By: Packages' 'Component: main')
    return 1
}

base=$dir/.coloc-base   # says that debootstrap came to its end
if [[ ! -e $base ]]; then
    from=${COLOC_DEBIAN_MIRROR:-$(mirror)} ||
        fail "apt on this machine knows no Debian mirror" "set COLOC_DEBIAN_MIRROR"
    script=/usr/share/debootstrap/scripts/sid   # the host's debootstrap may not know the suite's name yet
    # half a system cannot be continued, and only an empty folder is surely ours
    [[ ! -e $dir || -z $(ls -A "$dir") ]] || fail "$dir is not empty and not complete" "remove it, or name another folder"
    say "Debian $suite into $dir"
    debootstrap --variant=minbase "$suite" "$dir" "$from" "$script" >"$dir.log" 2>&1 ||
        fail "debootstrap failed, see $dir.log" "$(tail -n 3 "$dir.log")"
    touch "$base"
fi
# apt on this machine may go through a proxy or trust a certificate of its own: the new system needs the same
for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*proxy* /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
    if [[ -f $file ]]; then
        mkdir -p "$dir${file%/*}"
        cp --dereference "$file" "$dir$file"
    fi
done
printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"   # no service is to start
chmod 755 "$dir/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
options=(-qq)
[[ ${COLOC_STALE_MIRROR:-} != 1 ]] || options+=(-o Acquire::Check-Valid-Until=false)
inner() { chroot "$dir" apt-get "${options[@]}" "$@" </dev/null >>"$dir.log" 2>&1; }
if ! { inner update && inner install --no-install-recommends slurm-wlm munge python3; }; then
    ! tail -n 5 "$dir.log" | grep -q 'is expired' ||
        fail "the mirror's lists of $suite have expired" "name a fresher one (COLOC_DEBIAN_MIRROR), or set COLOC_STALE_MIRROR=1"
    fail "apt-get in $dir failed, see $dir.log" "$(tail -n 3 "$dir.log")"
fi
chroot "$dir" apt-get clean
say "$dir: $(chroot "$dir" /usr/sbin/slurmctld -V)"
say "use it with: export COLOC_TEST_SLURM_ROOT=$dir"
