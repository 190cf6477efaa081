#!/usr/bin/env bash
# Minimal Debian systems, made here with debootstrap: only g++, make and git are installed, there is no /sys,
# no sudo, no procps. In each, from a clean clone of the last commit, what the README says: a user who may
# install nothing is told what is missing; root runs a comparison, which installs the rest; then that user
# builds, compares and tests.        make test-machines, as root
#   RELEASES="bookworm trixie"    Debian 12 and 13
#   FULL=1                        `make compare SIZE=tiny` of all variants and all of `make test`, instead of two
#                                 variants, the unit tests and one gradient suite
#   CACHE=DIR                     keep the new systems as DIR/debian-RELEASE.tar (200 to 350 MB) and take them from there
#   MIRROR=http://deb.debian.org/debian        SCRATCH=/var/tmp: where the systems are made (3 GB)
#   LIMIT=1800                    seconds a step may take
# Prints a table; exit code 3: a system could not be made (no network?). Everything runs in namespaces of its
# own: interrupted, its processes and mounts end with it, and the systems are removed.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
RELEASES=${RELEASES:-bookworm trixie} FULL=${FULL:-} CACHE=${CACHE:-} MIRROR=${MIRROR:-http://deb.debian.org/debian} \
    SCRATCH=${SCRATCH:-/var/tmp}
LIMIT=${LIMIT:-$([[ -n $FULL ]] && echo 7200 || echo 1800)}
die() { printf 'test-machines: %s\n' "$*" >&2; exit 1; }
if [[ -z ${QV_INSIDE:-} ]]; then
    ((EUID == 0)) || die "needs root, for debootstrap and chroot"
    export PATH=$PATH:/usr/sbin:/sbin
    command -v debootstrap >/dev/null || die "needs debootstrap:  apt-get install -y debootstrap"
    command -v git >/dev/null && git rev-parse HEAD >/dev/null 2>&1 || die "needs a git clone: it tests its last commit"
    unshare --mount --pid --fork true 2>/dev/null || die "this machine does not allow namespaces"
    [[ -z $(git status --porcelain --untracked-files=no) ]] ||
        printf 'test-machines: note: changes that are not committed are not tested\n' >&2
    QV_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc bash "$0"
fi

T=$(mktemp -d "$SCRATCH/qv-machines.XXXXXX") || exit 1
leave() {
    (($$ != 1)) || kill -KILL -1 2>/dev/null             # the first process of its namespace: this ends all the others in it
    for mounted in "$T"/*/{proc,dev/pts,dev/shm}; do mountpoint -q "$mounted" && umount -l "$mounted"; done
    rm -rf --one-file-system "$T"
}
trap leave EXIT
trap 'exit 130' INT TERM HUP
checks=0 failures=0 table="" missing=""

# step WHO WHAT CODE TEXT COMMAND: in $ROOT, in that user's clone; exit code and a text that must appear; a row of the table
step() {
    local who=$1 what=$2 code=$3 text=$4 command=$5 got started=$SECONDS home=/root user=root
    [[ $who == root ]] || home=/home/reader user=reader
    # timeout ends the whole group.
    timeout -k 10 "$LIMIT" chroot --userspec="$user:$user" --groups="" "$ROOT" env -i HOME=$home USER=$user \
        PATH=/usr/local/bin:/usr/bin:/bin$([[ $who == root ]] && echo :/usr/sbin:/sbin) \
        LC_ALL=C.UTF-8 ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} bash \
        -c "cd $home/qv.cu 2>/dev/null || cd $home; $command" >"$T/log" 2>&1 </dev/null &
    wait $!
    got=$?
    checks=$((checks + 1))
    local verdict=ok
    if [[ $got != "$code" ]] || ! grep -qF -- "$text" "$T/log"; then
        failures=$((failures + 1))
        verdict=FAILED
        printf 'FAILED: %s, %s: %s\n  exit code %s, expected %s; expected text: %s\n' "$SYSTEM" "$who" "$what" "$got" "$code" "$text"
        tail -n 60 "$T/log"
    fi
    table+=$(printf '| %-22s | %-6s | %-62s | %-6s | %5d s |' "$SYSTEM" "$who" "$what" "$verdict" $((SECONDS - started)))$'\n'
    printf '%s, %s: %s: %s, %d s%s\n' "$SYSTEM" "$who" "$what" "$verdict" $((SECONDS - started)) \
        "$(grep -oE '^[0-9]+ passed, [0-9]+ failed|test cases: .*' "$T/log" | tail -n 1 | sed 's/^/; /')"
    [[ $verdict == ok ]]
}

make_system() {          # release
    mkdir -p "$ROOT"
    if [[ -n $CACHE && -s $CACHE/debian-$1.tar ]]; then
        tar -xpf "$CACHE/debian-$1.tar" -C "$ROOT" || return 1
    else
        debootstrap --variant=minbase "$1" "$ROOT" "$MIRROR" >"$T/log" 2>&1 || { tail -n 5 "$T/log"; return 1; }
        if [[ -n $CACHE ]]; then mkdir -p "$CACHE" && tar -cf "$CACHE/debian-$1.tar.part" -C "$ROOT" . &&
            mv "$CACHE/debian-$1.tar.part" "$CACHE/debian-$1.tar"; fi
    fi
    mount -t proc proc "$ROOT/proc" && mount -t devpts devpts "$ROOT/dev/pts" && mkdir -p "$ROOT/dev/shm" &&
        mount -t tmpfs -o mode=1777 shm "$ROOT/dev/shm" || return 1
    cat /etc/resolv.conf >"$ROOT/etc/resolv.conf"
    echo force-unsafe-io >"$ROOT/etc/dpkg/dpkg.cfg.d/unsafe-io"          # dpkg need not wait for the disk: this system is thrown away
    printf '127.0.0.1 localhost %s\n' "$(hostname)" >"$ROOT/etc/hosts"
    apt-config dump 2>/dev/null | grep -E '^Acquire::(http|https)::Proxy' >"$ROOT/etc/apt/apt.conf.d/90proxy"
    { chroot "$ROOT" apt-get update && DEBIAN_FRONTEND=noninteractive chroot "$ROOT" apt-get install -y \
        --no-install-recommends g++ make git &&
        chroot "$ROOT" useradd --create-home --shell /bin/bash reader; } >"$T/log" 2>&1 || { tail -n 5 "$T/log"; return 1; }
    git clone -q --no-local . "$ROOT/root/qv.cu" && git clone -q --no-local . "$ROOT/home/reader/qv.cu" &&
        chroot "$ROOT" chown -R reader: /home/reader/qv.cu
}
version() { chroot "$ROOT" dpkg-query -W -f '${Version}' "$1" 2>/dev/null | sed 's/^[0-9]*://; s/[-+~].*//'; }

for release in $RELEASES; do
    started=$SECONDS ROOT=$T/$release
    make_system "$release" &                              # in the background, so that a signal is acted on at once
    wait $! || { missing+=" $release"; printf 'no %s can be made from %s\n' "$release" "$MIRROR"; continue; }
    SYSTEM="Debian $(cut -d. -f1 "$ROOT/etc/debian_version"), g++ $(version g++)"
    printf '%s: made in %d s\n' "$SYSTEM" $((SECONDS - started))
    step reader "without the libraries: says what to install, without sudo" 2 "(as root; there is no sudo here)" "make train"
    if [[ -n $FULL ]]; then
        step root "make compare SIZE=tiny" 0 "report.md" \
            "make compare SIZE=tiny && ls runs/compare-tiny/report.md runs/compare-tiny/loss.svg"
        step root "make test" 0 ", 0 failed" "make test"
        step reader "make compare SIZE=tiny" 0 "report.md" "make compare SIZE=tiny && ls runs/compare-tiny/report.md"
        step reader "make test" 0 ", 0 failed" "make test"
    else
        # The first makes what both need; the user goes on with root's objects, in a clone of his own.
        step root "make compare SIZE=tiny VARIANTS=qkv" 0 "report.md" \
            "make compare SIZE=tiny VARIANTS=qkv && ls runs/compare-tiny/report.md && scripts/setup.sh test"
        chroot "$ROOT" bash -c 'cp -r /root/qv.cu/build /home/reader/qv.cu/ && chown -R reader: /home/reader/qv.cu'
        step reader 'make compare SIZE=tiny VARIANTS="qkv qv"' 0 "report.md" \
            'make compare SIZE=tiny VARIANTS="qkv qv" && ls runs/compare-tiny/report.md'
        step reader "the unit tests" 0 "SUCCESS" 'make -j"$(nproc)" build/test-unit && build/test-unit --no-colors'
        step reader "the gradients of qv" 0 "SUCCESS" \
            'make -j"$(nproc)" PRECISION=fp64 build/test-gradients-qv && build/test-gradients-qv --no-colors'
    fi
    table+=$(printf '| %s |' "$SYSTEM: json $(version nlohmann-json3-dev), CLI11 $(version \
        libcli11-dev), oneDNN $(version libdnnl-dev), Open MPI $(version libopenmpi-dev)")$'\n'
    umount -l "$ROOT"/{proc,dev/pts,dev/shm}
    rm -rf --one-file-system "$ROOT"
done
printf '\n%s' "$table"
printf 'test_machines: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0)) || exit 1
[[ -z $missing ]] || exit 3
