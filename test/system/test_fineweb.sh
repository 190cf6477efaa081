#!/usr/bin/env bash
# scripts/get_fineweb.sh against a local server that plays the public addresses: whole shards, broken connections, damaged files, more
# shards later, a full disk; then a trainer on what came. Skipped without curl or python3.        test/system/test_fineweb.sh [build]
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(cd "${1:-build}" && pwd) || exit 1
for tool in curl python3; do command -v $tool >/dev/null || { echo "test_fineweb: skipped: $tool is not installed"; exit 0; }; done
VARIANTS=${VARIANTS:-$(sed -n 's/^VARIANTS *?= *//p' Makefile)}
T=$(mktemp -d) || exit 1
server=""
trap '[[ -z $server ]] || kill $server 2>/dev/null; rm -rf "$T"' EXIT
. test/system/shell_common.sh

# A vocabulary in GPT-2's two files: the 256 bytes and <|endoftext|>, no merges. Then three shards of this repository's text.
mkdir -p "$T/gpt2" "$T/www"
python3 - "$T/gpt2" <<'PY'
import json, sys
printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
names = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
json.dump({name: i for i, name in enumerate(names + ["<|endoftext|>"])}, open(sys.argv[1] + "/encoder.json", "w"))
open(sys.argv[1] + "/vocab.bpe", "w").write("#version: 0.2\n")
PY
cat train.cu model/*.h >"$T/text.txt"
"$BUILD/tokenizer" encode --tokenizer "$T/gpt2" --out "$T/shards" --shard-tokens 60000 "$T/text.txt" >/dev/null || exit 1
for n in 1 2; do cp "$T/shards/train_00000$((n - 1)).bin" "$T/www/fineweb_train_00000$n.bin"; done
cp "$T/shards/val_000000.bin" "$T/www/fineweb_val_000000.bin"
cp "$T/gpt2"/* "$T/www"

# /raw/main/FILE: the pointer; /resolve/main/FILE: the file, by range too. In the folder: cut, a number of bytes after which each connection
# breaks; damaged, then a byte of every shard is wrong. Each request is a line in log.
cat >"$T/server.py" <<'PY'
import hashlib, http.server, os, sys
www = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        open(www + "/log", "a").write(f"{self.path} {self.headers.get('Range', '')}\n")
        try: data = open(f"{www}/{name}", "rb").read()
        except OSError: return self.send_error(404)
        if "/raw/" in self.path:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n".encode()
        elif os.path.exists(www + "/damaged"): data = data[:-1] + bytes([data[-1] ^ 1])
        first = int(self.headers["Range"].split("=")[1].split("-")[0]) if "Range" in self.headers else 0
        if first >= len(data) > 0: return self.send_error(416)
        self.send_response(206 if first else 200)
        if first: self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        cut = int(open(www + "/cut").read()) if os.path.exists(www + "/cut") and "/resolve/" in self.path else len(data)
        self.wfile.write(data[first:first + cut])
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
open(www + "/port", "w").write(f"{server.server_port}\n")
server.serve_forever()
PY
python3 "$T/server.py" "$T/www" &
server=$!
for ((i = 0; i < 100; i++)); do [[ -s $T/www/port ]] && break; sleep 0.1; done
ADDRESS=http://127.0.0.1:$(<"$T/www/port")
sha() { sha256sum "$1" | cut -d' ' -f1; }
get() {
    env FINEWEB_URL="$ADDRESS" GPT2_URL="$ADDRESS/vocabulary" ENCODER_SHA256="$(sha "$T/gpt2/encoder.json")" \
        BPE_SHA256="$(sha "$T/gpt2/vocab.bpe")" TOKENIZER="$BUILD/tokenizer" \
        DATA_ROOT="$T/data" RETRY_WAIT=0 scripts/get_data.sh --source fineweb "$@"
}
requests() { grep -c "/resolve/main/$1" "$T/www/log"; }

expect "one shard and the validation's" 0 "$T/data/fineweb" get
D=$T/data/fineweb
cmp -s "$T/www/fineweb_train_000001.bin" "$D/train_000001.bin" && cmp -s "$T/www/fineweb_val_000000.bin" "$D/val_000000.bin"
report $? "they are what the server has" "$(ls -l "$D")"
expect "a trainer takes them" 0 "best validation loss" "$BUILD/train-${VARIANTS%% *}" --layers 1 --width 16 \
    --heads 2 --context 16 --batch-tokens 64 --steps 2 --val-tokens 256 --data "$D" --runs-dir "$T/runs"
echo 20000 >"$T/www/cut"
expect "a second shard, in pieces" 0 "2 training shards" get --shards 2
cmp -s "$T/www/fineweb_train_000002.bin" "$D/train_000002.bin"
report $? "it is whole" "$(ls -l "$D")"
report "$(grep -q 'fineweb_train_000002.bin bytes=20000-' "$T/www/log"; echo $?)" \
    "the download went on where it broke" "$(cat "$T/www/log")"
report "$(($(requests fineweb_train_000001.bin) != 1))" "what was there is not fetched again" "$(cat "$T/www/log")"
rm "$T/www/cut"
printf x >>"$D/train_000002.bin"
expect "a file that has changed is fetched again" 0 "" get --shards 2
cmp -s "$T/www/fineweb_train_000002.bin" "$D/train_000002.bin"
report $? "(and is whole)" ""
touch "$T/www/damaged"
rm "$D"/train_000002.bin*
expect "a shard with another checksum is refused" 1 "what came has the checksum" get --shards 2
report "$([[ ! -e $D/train_000002.bin && ! -e $D/train_000002.bin.part ]]; echo $?)" "and leaves nothing" "$(ls "$D")"
rm "$T/www/damaged" "$T/www/fineweb_train_000002.bin"
expect "a shard that is not there" 1 "fineweb_train_000002.bin: cannot be fetched" get --shards 2
expect "too many shards" 2 "from 1 to 103" get --shards 104
expect "a vocabulary is no choice" 2 "leave --vocab out" get --vocab 512
expect "shards of another source" 2 "goes with --source fineweb" scripts/get_data.sh --shards 2
printf 'test_fineweb: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
