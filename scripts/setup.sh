#!/usr/bin/env bash
# Installs what is missing on Debian and Ubuntu, as root or with sudo that asks no password; elsewhere prints the command to run.
#   scripts/setup.sh [build|data|test|compare]      what for (compare: build and data too); default: everything
# Exit 0: everything required is installed (if something optional is missing, one line says so). Exit 1: something required
# is missing. If everything is there, it costs one run of the preprocessor and prints nothing. Never asks a question.
#   DEPS=dir      folder whose include/ and lib/ hold copied headers and libraries, for machines without a package manager
#   CXX=g++       the compiler      NO_INSTALL=1  only check and print
set -u
MODE=${1:-all}
CXX=${CXX:-g++}
DEPS=${DEPS:-}
# Optional packages that could not be installed: not every `make` should try again.
TRIED=${BUILD:-build}/.setup-not-available

case $MODE in
    build | data | test | compare | all) ;;
    *) printf 'usage: scripts/setup.sh [build|data|test|compare]\n' >&2; exit 2 ;;
esac

# package | how it is found: h:header, l:library and header, m:header that mpicc finds, c:command, f:file |
# needed for | R required, W wanted (works without it) | what it gives
PACKAGES='
g++                  c:CXX                      build    R  the compiler, version 10 or later (C++20)
make                 c:make                     build    R  runs the build
libcli11-dev         h:CLI/CLI.hpp              build    R  command lines
nlohmann-json3-dev   h:nlohmann/json.hpp        build    R  JSON
libxxhash-dev        h:xxhash.h                 build    R  checksums
libdnnl-dev          h:dnnl.h                   build    W  faster matrix products
libopenblas-dev      l:openblas:cblas.h         build    W  faster matrix products
libopenmpi-dev       m:mpi.h                    build    W  several processes and machines
openmpi-bin          c:mpirun                   build    W  starts several processes
doctest-dev          h:doctest/doctest.h        test     R  the test framework
procps               c:pkill                    test     R  tests find and end processes with it
strace               c:strace                   test     W  a test looks at the order of system calls with it
librsvg2-bin         c:rsvg-convert             compare  W  pictures of the report as PNG, beside the SVG
curl                 c:curl                     data     W  fetches tiny Shakespeare
ca-certificates      f:/etc/ssl/certs/ca-certificates.crt data W  curl checks with them whom it speaks to
bible-kjv            c:bible                    data     W  a text when the network is closed
'

# One preprocessor run over __has_include of every header; prints "have HEADER" for those it finds.
probe_headers() {
    local source="" package how rest
    while read -r package how rest; do
        [[ $how == h:* ]] || continue
        source+="#if __has_include(<${how#h:}>)"$'\n'"have ${how#h:}"$'\n'"#endif"$'\n'
    done <<<"$PACKAGES"
    "$CXX" -std=gnu++17 -E -P ${DEPS:+-isystem "$DEPS/include"} -x c++ - <<<"$source" 2>/dev/null
}

# Another package's cblas.h, the reference one, is no OpenBLAS: a program is linked.
links() {        # library:header
    printf '#include <%s>\nint main() {}\n' "${1#*:}" |
        "$CXX" ${DEPS:+-isystem "$DEPS/include" -L"$DEPS/lib"} -x c++ - -l"${1%%:*}" -o /dev/null >/dev/null 2>&1
}

# Sets missing_required and missing_wanted, and tells why in `reasons`.
look() {
    missing_required=() missing_wanted=() reasons=""
    local headers package how mode need what version
    headers=$(probe_headers)
    while read -r package how mode need what; do
        [[ -n $package ]] || continue
        [[ $MODE == all || $mode == build || $mode == "$MODE" || $MODE-$mode == compare-data ]] || continue
        # Whoever asks for a library gets it, or is told.
        [[ $package-${BLAS:-} != libopenblas-dev-openblas && $package-${BLAS:-} != libdnnl-dev-onednn ]] || need=R
        case $how in
            c:CXX)
                version=$("$CXX" -dumpversion 2>/dev/null) && [[ ${version%%.*} =~ ^[0-9]+$ ]] && ((${version%%.*} >= 10)) && continue
                [[ -n $version ]] && what="$what; found $CXX $version" ;;
            m:*) printf '#include <%s>\n' "${how#m:}" | mpicc -E -o /dev/null -x c - >/dev/null 2>&1 && continue ;;
            f:*) [[ -s ${how#f:} ]] && continue ;;
            c:*) command -v "${how#c:}" >/dev/null 2>&1 && continue ;;
            l:*) [[ $need == R || $'\n'$headers$'\n' != *$'\nhave dnnl.h\n'* ]] || continue        # one of the two is enough
                 links "${how#l:}" && continue ;;
            h:*) [[ $'\n'$headers$'\n' == *$'\n'"have ${how#h:}"$'\n'* ]] && continue ;;
        esac
        if [[ $need == R ]]; then missing_required+=("$package"); else missing_wanted+=("$package"); fi
        reasons+="  $package: $what"$([[ $need == W ]] && printf ' (works without)')$'\n'
    done <<<"$PACKAGES"
}

# Root runs apt-get itself; others through sudo if that asks nothing.
as_root() { if ((EUID == 0)); then "$@"; else sudo -n -- "$@"; fi; }
can_install() {
    [[ -z ${NO_INSTALL:-} ]] && command -v apt-get >/dev/null 2>&1 || return 1
    ((EUID == 0)) || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}
apt() {      # waits for another apt's lock (dpkg's own by its option, the list's by trying again), gives up on a dead network
    local try log
    for try in 1 2 3 4 5 6; do
        log=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 \
              -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15 -y -q "$@" </dev/null 2>&1) && return 0
        [[ $log == *"Could not get lock"* || $log == *"Unable to lock"* ]] || break
        sleep 5
    done
    return 1
}
updated=""
install_packages() {      # a stale or empty package list is refreshed once
    apt install --no-install-recommends "$@" && return 0
    [[ -z $updated ]] || return 1
    updated=1
    apt update && apt install --no-install-recommends "$@"
}

# What a user without root's rights has to do: through sudo where there is one, else whoever is root does it.
advice() {       # packages...
    if ((EUID == 0)); then printf 'apt-get update && apt-get install -y %s' "$*"
    elif command -v sudo >/dev/null 2>&1; then printf 'sudo apt-get update && sudo apt-get install -y %s' "$*"
    else printf 'apt-get update && apt-get install -y %s      (as root; there is no sudo here)' "$*"; fi
}

look
((${#missing_required[@]} + ${#missing_wanted[@]})) || exit 0

wanted=()
for package in ${missing_wanted[@]+"${missing_wanted[@]}"}; do
    { [[ -f $TRIED && $MODE != all ]] && [[ $'\n'$(<"$TRIED")$'\n' == *$'\n'"$package"$'\n'* ]]; } || wanted+=("$package")
done
if ((${#missing_required[@]} + ${#wanted[@]})) && can_install; then
    printf 'installing: %s\n' "${missing_required[*]-} ${wanted[*]-}" >&2
    if ! install_packages ${missing_required[@]+"${missing_required[@]}"} ${wanted[@]+"${wanted[@]}"}; then
        # One package that the archive lacks must not keep the others away.
        ((${#missing_required[@]})) && install_packages "${missing_required[@]}"
        for package in ${wanted[@]+"${wanted[@]}"}; do
            install_packages "$package"
        done
    fi
    hash -r
    look
    for package in ${missing_wanted[@]+"${missing_wanted[@]}"}; do      # not there after all: not again every time
        [[ " ${wanted[*]-} " != *" $package "* ]] || { mkdir -p "${TRIED%/*}" && printf '%s\n' "$package" >>"$TRIED"; }
    done
fi

if ((${#missing_required[@]})); then
    printf 'missing:\n%sinstall with:\n  %s\n' "$reasons" \
        "$(advice "${missing_required[@]}" ${missing_wanted[@]+"${missing_wanted[@]}"})" >&2
    printf 'without a package manager: copy the headers into folder/include and give DEPS=folder\n' >&2
    exit 1
fi
if ((${#missing_wanted[@]})); then
    printf 'works without, better with: %s\n' "$(advice "${missing_wanted[@]}")" >&2
fi
exit 0
