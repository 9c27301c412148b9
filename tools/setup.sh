#!/usr/bin/env bash
# Set up a fresh Debian or Ubuntu machine for `make test` and `make demo`.
#
#   tools/setup.sh packages   install the missing Debian packages (root), or say which command does it (others)
#   tools/setup.sh venv       make .venv and install coloc with its tools into it
#   tools/setup.sh            both
#   tools/setup.sh routers    install HAProxy, nginx and Prometheus for `make test-routers`
#
# Only missing things are installed, and no service is started: tests and demo run daemons of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PATH:/usr/sbin:/sbin"   # Debian keeps slurmctld and munged there; an ordinary user's PATH lacks it
venv=.venv
# the distribution's own first: every user can read it, so the demo can run jobs of several users
pythons=(/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

find_python() {   # prints the first Python >= 3.11 that can make virtual environments
    local name path
    for name in "${pythons[@]}"; do
        path=$(type -P "$name") || continue
        if "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

have_postgres() {
    type -P postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

missing_packages() {   # one a line; python3-venv stands for any Python that will do
    { type -P slurmctld && type -P slurmd && type -P sbatch; } >/dev/null || echo slurm-wlm
    type -P munged >/dev/null || echo munge
    # accounting of the test clusters
    type -P slurmdbd >/dev/null || echo slurmdbd
    type -P mariadbd >/dev/null || echo mariadb-server-core
    have_postgres || echo postgresql
    type -P systemd-analyze >/dev/null || echo systemd
    type -P git >/dev/null || echo git
    # tests compile a stand-in for NVIDIA's library
    { type -P gcc && [[ -e /usr/include/stdio.h ]]; } >/dev/null || printf '%s\n' gcc libc6-dev
    find_python >/dev/null || echo python3-venv
}

missing_routers() {   # for `make test-routers` only
    type -P haproxy >/dev/null || echo haproxy
    type -P nginx >/dev/null || echo nginx-light
    type -P promtool >/dev/null || echo prometheus
}

apt() {   # quiet when it works; the end of what it printed when it fails
    local output
    output=$(DEBIAN_FRONTEND=noninteractive apt-get -qq -o=Dpkg::Use-Pty=0 "$@" </dev/null 2>&1) && return 0
    tail -n 20 <<<"$output" >&2
    return 1
}

known() {   # does apt know a version to install?
    local candidate
    candidate=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [[ -n $candidate && $candidate != '(none)' ]]
}

policy=/usr/sbin/policy-rc.d
drop_policy() { [[ -z ${made_policy:-} ]] || rm -f "$policy"; }

keep_services_down() {   # packages ask this file before they start their services; where a site has one, it rules
    [[ -e $policy ]] && return 0
    made_policy=yes
    trap drop_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

install() {
    apt install --no-install-recommends "$@" && return 0
    say "apt-get install failed; reading the package lists again"
    apt update && apt install --no-install-recommends "$@"
}

packages() {
    local missing package version
    mapfile -t missing < <("$1")
    ((${#missing[@]})) || return 0
    type -P apt-get >/dev/null ||
        fail "missing here: ${missing[*]} (Debian's names), and there is no apt-get to install them" \
            "install Slurm, munge, PostgreSQL, systemd, git, a C compiler and Python 3.11 or later, then run this again"
    if ((EUID)); then
        fail "Debian packages are missing: ${missing[*]}" \
            "run this first, once, then the same make command again:  sudo tools/setup.sh $2"
    fi
    say "installing ${missing[*]}"
    for package in "${missing[@]}"; do
        known "$package" || { apt update; break; }
    done
    keep_services_down
    install "${missing[@]}"
    if ! find_python >/dev/null; then   # the distribution's own Python is older: is there a newer one beside it?
        for version in 3.14 3.13 3.12 3.11; do
            known "python$version-venv" && install "python$version" "python$version-venv" && break
        done
    fi
    mapfile -t missing < <("$1")
    ((${#missing[@]} == 0)) || fail "still missing after the installation: ${missing[*]}"
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@" </dev/null; }

fill_venv() {
    local try
    for try in 1 2 3; do
        pip_install -e '.[dev,postgresql]' && return 0
        say "pip failed (try $try of 3)"
        # without a network: everything may be there already, and only coloc itself needs installing again
        pip_install --no-index --no-build-isolation -e '.[dev,postgresql]' 2>/dev/null && return 0
        ((try == 3)) || sleep $((try * 3))
    done
    fail "pip could not install coloc's dependencies; the first message above says why" \
        "pip's own configuration decides where packages come from (pip config list)"
}

make_venv() {
    local python
    python=$(find_python) || fail "no Python 3.11 or later with venv found; run first: sudo tools/setup.sh packages"
    if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "making $venv with $python"
        "$python" -m venv --clear "$venv"
    fi
    [[ -w $venv ]] || fail "$venv belongs to $(stat -c %U "$venv") and cannot be written by $(id -un)" \
        "remove it as that user (make clean), or work as that user"
    # the build back-end stays in the environment, so that coloc can be installed again without a network
    pip_install 'hatchling>=1.24,<2' editables || say "hatchling not installed here; going on"
    fill_venv
}

case ${1:-all} in
    packages) packages missing_packages packages ;;
    routers) packages missing_routers routers ;;
    venv) make_venv ;;
    all) packages missing_packages packages && make_venv ;;
    *) fail "usage: tools/setup.sh [packages|venv|routers]" ;;
esac
