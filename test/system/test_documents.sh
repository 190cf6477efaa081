#!/usr/bin/env bash
# The documents tell the truth about the tree: links lead somewhere, excerpts stand in the source, commands are accepted.
#   test/system/test_documents.sh [build]
# Excerpts: a fence ```cpp file=PATH. Its lines, without leading blanks, stand in PATH in that order; a line `...` is a gap.
# Commands: fences ```sh. `make ...` is asked for with -n; trainers run with --dry-run on a small text; the tokenizer and get_data.sh run as
# they stand, in a copy of the tree made of links. A fence ```sh not-run holds what needs another machine: hosts, a GPU, a network.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ROOT=$PWD
BUILD=$(realpath "${1:-build}")
. test/system/shell_common.sh
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
check() {        # description, command...
    local what=$1 output
    shift
    output=$("$@" 2>&1)
    report $? "$what" "$output"
}
documents=(README.md docs/*.md docs/gpu/README.md)

# ------------------------------------------------------------------------------------------------ links
for document in "${documents[@]}"; do
    broken=""
    while read -r target; do
        case $target in http*|mailto:*) continue ;; esac
        path=${target%%#*} anchor=${target#*#}
        [[ -z $path ]] && file=$document || file=$(dirname "$document")/$path
        [[ -e $file ]] || { broken+=" $target"; continue; }
        [[ $target == *#* ]] || continue
        # GitHub's anchors: the heading in lower case, blanks as dashes, other punctuation dropped.
        grep '^#' "$file" | sed 's/^#* *//' | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9_\n-' | grep -qx -- "$anchor" || broken+=" $target"
    done < <(grep -oE '\]\([^) ]+\)' "$document" | sed 's/^](//; s/)$//')
    check "$document: every link leads somewhere; broken:$broken" test -z "$broken"
done

# ------------------------------------------------------------------------------------------------ excerpts
# Prints "FILE<tab>line" for every line of every excerpt; "-" as the file ends one.
excerpts() {
    awk '/^```cpp file=/ { file = substr($2, 6); next }
         /^```/ { if (file) print "-\t"; file = "" }
         file { sub(/^[ \t]+/, ""); print file "\t" $0 }' "$1"
}
stands_in() {      # $1 file, $2 the excerpt's lines: they are in the file, in this order
    awk -v file="$1" 'NR == FNR { want[++n] = $0; next }
         { sub(/^[ \t]+/, ""); sub(/[ \t]+$/, "") }
         { while (i < n && (want[i + 1] == "" || want[i + 1] == "...")) i++ }
         i < n && $0 == want[i + 1] { i++ }
         END { while (i < n && (want[i + 1] == "" || want[i + 1] == "...")) i++
               if (i < n) { print file ": not found, after the lines before it: " want[i + 1]; exit 1 } }' "$2" "$1"
}
for document in "${documents[@]}"; do
    number=0
    : >"$T/excerpt"
    while IFS=$'\t' read -r file line; do
        if [[ $file != - ]]; then
            current=$file
            printf '%s\n' "${line%"${line##*[![:space:]]}"}" >>"$T/excerpt"
            continue
        fi
        number=$((number + 1))
        check "$document: excerpt $number stands in $current" stands_in "$current" "$T/excerpt"
        : >"$T/excerpt"
    done < <(excerpts "$document")
done
printf 'x = 1;\nz = 3;\n' >"$T/planted.cpp"
printf 'z = 3;\nx = 1;\n' >"$T/excerpt"
differs() { ! stands_in "$@"; }
check "an excerpt in another order is seen" differs "$T/planted.cpp" "$T/excerpt"

# ------------------------------------------------------------------------------------------------ commands
# A tree of links, so that what the commands write stays out of the real one.
mkdir "$T/tree"
for entry in "$ROOT"/* "$ROOT"/.ci; do
    case ${entry##*/} in build|data|runs) ;; *) ln -s "$entry" "$T/tree/" ;; esac
done
ln -s "$BUILD" "$T/tree/build"
mkdir -p "$T/tree/data"
"$BUILD/tokenizer" train --vocab-size 300 --out "$T/t.json" README.md docs/usage.md >/dev/null
"$BUILD/tokenizer" encode --tokenizer "$T/t.json" --out "$T/data" README.md docs/*.md train.cu model/*.h >/dev/null
"$BUILD/train-qkv" --data "$T/data" --runs-dir "$T/tree/runs" --run first --layers 1 --context 16 --batch-tokens 64 \
    --steps 1 --val-tokens 64 --quiet >/dev/null 2>&1
commands() { awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' "$1" | sed 's/ *#.*//; s/[[:space:]]*$//' | grep -v '^$'; }
accepted() {       # $1 a command of a document
    local command=$1
    while [[ $command == mpirun* ]]; do command="build/${command#*build/}"; done
    case $command in
        git\ clone*|cd\ *|sudo\ *|apt-get\ *) return 0 ;;
        make|make\ *|*=*\ make\ *) env NO_INSTALL=1 bash -c "${command/make/make -n}" ;;
        build/train-*)
            [[ $command == *" ..." ]] && command=${command% ...}
            [[ $command == *--help* ]] && { bash -c "$command"; return; }
            command=$(sed -E 's# --data [^ ]+##; s# --run [^ ]+##; s# --config [^ ]+##; s# --(resume|overwrite)##' <<<"$command")
            bash -c "$command --data '$T/data' --dry-run --layers 1 --threads 1" ;;
        build/*|scripts/*) bash -c "$command" ;;
        *) echo 'the test does not know how to try this'; return 1 ;;
    esac
}
cd "$T/tree"
for document in "${documents[@]}"; do
    while read -r command; do
        check "$document: $command" accepted "$command"
    done < <(commands "$document")
done
printf 'test_documents: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
