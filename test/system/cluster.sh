#!/usr/bin/env bash
# Several machines, made of network namespaces: each has its name, its address on a virtual cable to a switch, and its own sshd; folders are
# shared. mpirun with a list of hosts over them as scripts/hostfile.example has it: the curve of one process, resuming on other numbers of
# hosts, a cable cut in the middle of a step. Then Slurm on them with scripts/slurm_cpu.sh (cluster_slurm.sh).
#   make test-cluster                         as root; no address outside these namespaces is used, nothing outlives them
#   test/system/cluster.sh BUILD [mpi|slurm]
# All of it lives in namespaces of processes, mounts and networks of its own, with a /run of its own: when its first process ends, however
# that comes, the kernel ends and removes the rest.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
PARTS=${2:-mpi slurm}
HOSTS=4 HEAD=10.77.0.254
die() { printf 'test-cluster: %s\n' "$*" >&2; exit 1; }

if [[ -z ${QV_INSIDE:-} ]]; then
    ((EUID == 0)) || die "needs root, for namespaces (nothing outside them is touched)"
    missing=""
    for need in ip:iproute2 unshare:util-linux sshd:openssh-server ssh:openssh-client mpirun:openmpi-bin pgrep:procps; do
        PATH=$PATH:/usr/sbin command -v "${need%:*}" >/dev/null || missing+=" ${need#*:}"
    done
    [[ $PARTS != *slurm* ]] || PATH=$PATH:/usr/sbin command -v slurmctld slurmd munged >/dev/null || missing+=" slurm-wlm"
    [[ -z $missing ]] || die "needs$missing:  apt-get install -y --no-install-recommends$missing"
    mpirun --version 2>&1 | grep -q "Open MPI" || die "needs Open MPI's mpirun: its options are used"
    ldd "$BUILD/train-qv" 2>/dev/null | grep -q libmpi || die "needs $BUILD/train-qv built with MPI: make train ATTN=qv"
    unshare --net --mount --uts --pid --fork true 2>/dev/null || die "this machine does not allow namespaces"
    QV_INSIDE=1 exec unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc bash "$0" "$BUILD" "$PARTS"
fi

trap 'exit 130' INT TERM HUP
export PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none /run
T=/run/cluster
mkdir -p "$T" /run/sshd /run/netns
cd "$(pwd)"
. test/system/shell_common.sh

# ---------------------------------------------------------------------------------------------- the machines
# on HOST COMMAND...: on that machine's network and under its name
on() { local host=$1; shift; nsenter --net="/run/netns/$host" --uts="$T/$host.uts" "$@"; }
cable() { ip link set "to-$1" "$2"; }                    # host up|down
make_hosts() {
    local i host
    {
        echo "127.0.0.1 localhost"
        echo "$HEAD head"
        for ((i = 1; i <= HOSTS; i++)); do echo "10.77.0.$i node$i"; done
    } >"$T/hosts"
    mount --bind "$T/hosts" /etc/hosts
    hostname head
    ip link set lo up
    ip link add switch type bridge && ip addr add "$HEAD/24" dev switch && ip link set switch up || die "no bridge can be made here"
    ssh-keygen -q -t ed25519 -N "" -f "$T/host_key" && ssh-keygen -q -t ed25519 -N "" -f "$T/key" || die "no ssh key"
    cat >"$T/sshd_config" <<EOF
HostKey $T/host_key
AuthorizedKeysFile $T/key.pub
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
EOF
    printf '%s\n' 'Host *' "  IdentityFile $T/key" '  UserKnownHostsFile /dev/null' '  StrictHostKeyChecking no' \
        '  LogLevel ERROR' >"$T/ssh_config"
    for ((i = 1; i <= HOSTS; i++)); do
        host=node$i
        ip netns add "$host"
        touch "$T/$host.uts"
        unshare --uts="$T/$host.uts" hostname "$host"
        ip link add "to-$host" type veth peer name eth0 netns "$host"
        ip link set "to-$host" master switch up
        on "$host" ip link set lo up
        on "$host" ip addr add "10.77.0.$i/24" dev eth0
        on "$host" ip link set eth0 up
        on "$host" "$(command -v sshd)" -f "$T/sshd_config" -o "ListenAddress=10.77.0.$i" \
            -o "PidFile=$T/$host.sshd.pid" || die "no sshd on $host"
    done
    for ((i = 1; i <= HOSTS; i++)); do
        [[ $(on node1 ssh -F "$T/ssh_config" "node$i" hostname 2>&1) == "node$i" ]]
        report $? "node1 reaches node$i through ssh"
    done
}
# Open MPI 4 and 5 under the names of each.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm_rsh_agent="ssh -F $T/ssh_config" PRTE_MCA_plm_ssh_agent="ssh -F $T/ssh_config"
# launch HOSTS RANKS-A-HOST PROGRAM...: from node1, with a list of hosts
launch() {
    local hosts=$1 each=$2 i
    shift 2
    for ((i = 1; i <= hosts; i++)); do echo "node$i slots=$each"; done >"$T/hostfile-$hosts-$each"
    on node1 timeout -k 5 120 mpirun -np $((hosts * each)) --hostfile "$T/hostfile-$hosts-$each" \
        --map-by "ppr:$each:node" --bind-to none "$@"
}
trainers() { pgrep -f -- "^$BUILD/train-[a-z_]* .*--run $1( |\$)"; }
wait_for_step() {        # run, step, seconds
    local i
    for ((i = 0; i < $3 * 10; i++)); do
        (($(tail -n 1 "$R/$1/metrics.csv" 2>/dev/null | cut -d, -f1 | grep -E '^[0-9]+$' || echo 0) >= $2)) && return 0
        sleep 0.1
    done
    return 1
}

make_hosts
make_data
SIZE=(--layers 2 --width 48 --heads 4 --context 32 --batch-tokens 768 --micro-batch 2 --warmup 5 --val-tokens 1000 \
    --val-every 10 --data "$DATA" --threads 1)
TRAIN=("$BUILD/train-qv" "${SIZE[@]}" --runs-dir "$R")

# ---------------------------------------------------------------------------------------------- mpirun with a list of hosts
if [[ $PARTS == *mpi* ]]; then
    SAME=("${TRAIN[@]}" --deterministic-ranks 4)
    expect "one process" 0 "done: best" "${SAME[@]}" --run alone --steps 40 --save-every 5
    expect "the ranks are on four hosts" 0 "node4" launch 4 1 hostname
    expect "4 hosts" 0 "done: best" launch 4 1 "${SAME[@]}" --run four --steps 40 --save-every 5
    same_run "4 hosts against one process" "$R/alone" "$R/four" step-00000040
    expect "2 hosts with 2 ranks each, zero 0" 0 "done: best" launch 2 2 "${SAME[@]}" --run two --steps 40 --save-every 5 --zero 0
    same_run "2 hosts with 2 ranks each against one process" "$R/alone" "$R/two" step-00000040
    expect "3 hosts, sums in their own order" 0 "done: best" launch 3 1 "${TRAIN[@]}" --run three --steps 40 --save-every 5
    difference=$(paste -d, <(cut -d, -f4 "$R/alone/metrics.csv") <(cut -d, -f4 "$R/three/metrics.csv") |
        awk -F, 'NR > 1 { d = $1 - $2; if (d < 0) d = -d; if (d / $1 > m) m = d / $1 } END { print (NR < 41 ? 9 : m + 0) }')
    report "$(awk -v d="$difference" 'BEGIN { exit !(d <= 1e-6) }'; echo $?)" \
        "3 hosts: the curve of one process, within rounding" "relative difference $difference"

    # A checkpoint does not know on how many hosts it was written.
    expect "half on 2 hosts" 75 "stopped at step 20" launch 2 1 "${SAME[@]}" --run half --steps 40 --save-every 5 --stop-at 20
    for hosts in 1 2 4; do
        whole "$R/half" "$R/half-$hosts"
        expect "the other half on $hosts" 0 "resumed from" launch $hosts 1 "${SAME[@]}" --run "half-$hosts" --resume
        same_run "half on 2 hosts, half on $hosts" "$R/alone" "$R/half-$hosts" step-00000040
    done

    # A cable is cut in the middle of a step, with a timeout of 3 s: to the host of rank 1, then to that of
    # rank 0 and mpirun. The ranks are gone some seconds later, on both sides. mpirun (Open MPI 4.1) wants to
    # hear from the lost host all the same, until the kernel gives its connection up: after 15 minutes with
    # tcp_retries2 = 15, Linux's default, after 13 s with 5, as here.
    for ((i = 1; i <= HOSTS; i++)); do on "node$i" sysctl -qw net.ipv4.tcp_retries2=5; done
    declare -A lost=([node2]="node2" [node1]="node2), rank 2 (node3")
    for victim in node2 node1; do
        run=cut-$victim
        launch 3 1 "${TRAIN[@]}" --run "$run" --steps 100000 --schedule constant --save-every 5 --comm-timeout 3 \
            >"$T/$run.out" 2>&1 </dev/null &
        job=$!
        wait_for_step "$run" 8 60
        report $? "$run: runs" "$(cat "$T/$run.out")"
        started=$(now_ms)
        cable "$victim" down
        for ((i = 0; i < 600; i++)); do trainers "$run" >/dev/null || break; sleep 0.1; done
        ranks_ms=$(($(now_ms) - started))
        ! trainers "$run" >/dev/null
        report $? "$run: no rank is left on any host after a minute" "$(trainers "$run")"
        wait $job
        code=$?
        report "$((code == 0 || code == 124 || code == 137))" "$run: mpirun ends, with exit code $code" "$(cat "$T/$run.out")"
        line="error: rank [0-9].* did not answer: hung, stopped or lost; rank [0-9] \(node[1-3]\) has waited"
        grep -qE "$line for [0-9]+ s at step [0-9]+ in " "$T/$run.out"
        report $? "$run: one line says who was waited for" "$(cat "$T/$run.out")"
        [[ $(grep -o "error: rank .* did not answer" "$T/$run.out") == *"(${lost[$victim]})"* ]]
        report $? "$run: it names who is behind the cut cable, seen from mpirun's side" "$(grep -o "error: rank .*" "$T/$run.out")"
        printf '%s: ranks gone after %.1f s, mpirun after %.1f s, exit code %d\n  %s\n' "$run" "${ranks_ms}e-3" \
            "$(($(now_ms) - started))e-3" "$code" "$(grep -o -m1 'error: rank.*' "$T/$run.out")"
        cable "$victim" up
        last=$(<"$R/$run/checkpoints/latest")
        expect "$run: goes on, on the two other hosts" 75 "resumed from" launch 2 1 "${TRAIN[@]}" --run "$run" \
            --resume --stop-at $((10#${last#step-} + 10))
        report "$([[ $(cut -d, -f1 "$R/$run/metrics.csv" | sort -n | uniq -d | wc -l) == 0 ]]; echo $?)" "$run: one line a step"
    done
fi

[[ $PARTS != *slurm* ]] || . test/system/cluster_slurm.sh

printf 'test_cluster: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
