# Sourced by the scripts that fetch data. Needs curl or wget, and sha256sum.
# shellcheck shell=bash

checksum_of() { sha256sum "$1" 2>/dev/null | cut -d' ' -f1 || true; }     # "" when there is no such file
bytes_in() { if [[ -f $1 ]]; then wc -c <"$1"; else echo 0; fi; }

# Goes on from FILE where it ends. A server that has nothing beyond that end (416) has sent everything.
download() {     # address, file
    local progress=(-sS) code
    [[ ! -t 2 ]] || progress=(--progress-bar)
    if command -v curl >/dev/null; then
        code=$(curl -fL "${progress[@]}" --connect-timeout 10 --speed-limit 1000 --speed-time 60 -C - -o "$2" -w '%{http_code}' "$1") ||
            [[ $code == 416 ]]
    elif command -v wget >/dev/null; then
        wget -nv --timeout=60 --connect-timeout=10 --tries=1 -c -O "$2" "$1" >&2
    else
        echo "neither curl nor wget is installed: apt-get install -y curl" >&2
        return 1
    fi
}

# FILE with this checksum; it grows as FILE.part, from which the next call goes on. A broken connection is taken up again as long as it
# brings something. What is whole and has another checksum is fetched once more from its beginning, then refused.
# Status: 0, FILE is there; 1, nothing comes; 2, what came has another checksum, in fetch_got.
fetch() {        # address, file, sha256, fruitless attempts (3)
    local attempt idle before most=${4:-3}
    [[ $(checksum_of "$2") != "$3" ]] || return 0
    for attempt in resume afresh; do
        [[ $attempt == resume ]] || rm -f "$2.part"
        for ((idle = 0; idle < most;)); do
            before=$(bytes_in "$2.part")
            fetch_got=$(checksum_of "$2.part")
            if [[ $fetch_got != "$3" ]] && download "$1" "$2.part"; then
                fetch_got=$(checksum_of "$2.part")
                [[ $fetch_got == "$3" ]] || continue 2
            fi
            if [[ $fetch_got == "$3" ]]; then mv "$2.part" "$2"; return 0; fi
            (($(bytes_in "$2.part") > before)) && idle=0 || ((++idle))
            ((idle == 0 || idle == most)) || sleep "${RETRY_WAIT:-5}"
        done
        return 1
    done
    rm -f "$2.part"
    return 2
}
