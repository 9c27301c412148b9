#!/usr/bin/env bash
# Make .venv-presets, the Python environment of `make test-presets`: the real libraries, builds for the CPU. Each one that cannot be
# installed is named, and its test says that it was skipped. COLOC_PRESETS_VENV names another folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${COLOC_PRESETS_VENV:-.venv-presets}
say() { printf 'presets_env: %s\n' "$*"; }

[[ -x $venv/bin/python ]] || .venv/bin/python -m venv "$venv"
add() {   # NAME PACKAGE...: install unless it is there
    local name=$1
    shift
    "$venv/bin/python" -c "import $name" 2>/dev/null && return 0
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@" >"$venv/pip.log" 2>&1 ||
        say "$name is missing: pip could not install $* ($(tail -n 1 "$venv/pip.log"))"
}
add torch "torch==2.13.0"   # first, and exactly: what needs torch then takes it and no CUDA build
if "$venv/bin/python" -c "import torch" 2>/dev/null; then
    add lightning "lightning>=2.5,<3"
    add accelerate "transformers>=5.20,<6" "accelerate>=1.10,<2"
fi
add submitit "submitit>=1.5,<2"
add orbax.checkpoint "jax>=0.10,<1" "orbax-checkpoint>=0.12,<1"

# CRIU has to be as new as the kernel. Where the system's is not, and apt and root are there, a newer Debian's is unpacked below
# $venv/criu with its own libraries; nothing is installed.
get_criu() {
    local deb dir=$PWD/$venv/criu mirror suite=${COLOC_CRIU_SUITE:-forky}
    [[ $venv != /* ]] || dir=$venv/criu
    if [[ -x $venv/bin/criu ]] || { type -P criu >/dev/null && criu check >/dev/null 2>&1; }; then return 0; fi
    ((EUID == 0)) && type -P apt-get dpkg >/dev/null || return 1
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' 'Component: main' |
        grep -v security | awk '$2 == "Debian" { print $1; exit }') && [[ $mirror ]] || return 1
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
    printf 'deb %s %s main\n' "$mirror" "$suite" >"$dir/apt/sources.list"
    : >"$dir/apt/status"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache=$dir/apt"
        -o APT::Sandbox::User=root)
    "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only criu || return 1
    for deb in "$dir"/apt/archives/*.deb; do dpkg -x "$deb" "$dir/root"; done
    rm -rf "$dir/apt"
    local lib=$dir/root/usr/lib/x86_64-linux-gnu
    printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' "$lib/ld-linux-x86-64.so.2" "$lib" "$dir/root/usr/sbin/criu" >"$venv/bin/criu"
    chmod 755 "$venv/bin/criu"
    "$venv/bin/criu" check >/dev/null 2>&1
}
get_criu >"$venv/criu.log" 2>&1 || say "criu is missing: no working one could be had (see $venv/criu.log)"
say "$venv is ready"
