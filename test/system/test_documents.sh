#!/usr/bin/env bash
# The documents tell the truth about the tree: links lead somewhere, excerpts stand in the source, commands are accepted.
# And the text can be read: no line is too wide, and the files that comments name exist.
#   test/system/test_documents.sh [build]
# Excerpts: a fence ```cpp file=PATH. Its lines, without leading blanks, stand in PATH in that order; a line `...` is a gap.
# Commands: fences ```sh. `make ...` is run with -n; trainers run with --dry-run on a small text; the tokenizer and
# get_data.sh run as they stand, in a copy of the tree made of links. A fence ```sh not-run holds what needs another
# machine: hosts, a GPU, a network.
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

# ------------------------------------------------------------------------------------------------ width
# No line over 140 columns, so that the "why" at its right is visible in a browser. Exempt are rows of Markdown tables,
# which cannot be broken. Not looked at: what programs write (*.inc, *.json, *.tsv), fixtures, the fuzzers' corpus.
sources() {
    find . \( -path ./.git -o -path ./build -o -path ./data -o -path ./runs \
        -o -path ./test/fuzz/corpus -o -path "./docs/study/[a-z]*-*" -o -path "./docs/study/claims*" \) -prune -o \
        -type f \( -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' \
        -o -name '*.awk' -o -name '*.mk' -o -name '*.md' -o -name Makefile -o -path ./scripts/help.txt -o -path ./.ci/run \) -print |
        sed 's|^\./||' | sort
}
too_wide() {        # $1 file: its lines that are, as "FILE:LINE: text"
    LC_ALL=C.UTF-8 grep -HnE '^.{141,}' "$1" | if [[ $1 == *.md ]]; then grep -vE '^[^:]*:[0-9]+: *\|'; else cat; fi | cut -c1-100
}
wide=""
while read -r file; do
    lines=$(too_wide "$file")
    [[ -z $lines ]] || wide+=$lines$'\n'
done < <(sources)
check "no line is over 140 columns: $wide" test -z "$wide"
printf '%0141d\n' 0 >"$T/wide.sh"
printf '| %0141d |\n' 0 >"$T/wide.md"
check "(141 columns are seen)" test -n "$(too_wide "$T/wide.sh")"
check "(a table's row is not)" test -z "$(too_wide "$T/wide.md")"

# ------------------------------------------------------------------------------------------------ files that comments name
# "See sdpa.h", "layers/x.h" and so on: a file of that name exists, at the end of that path if there is one.
named_in_comments() {
    sources | grep -E '\.(h|c|cpp|cu|cuh)$' | xargs grep -hoE '//.*' |
        grep -oE '(^|[^A-Za-z0-9_./<])[A-Za-z_][A-Za-z0-9_/]*\.(h|cpp|cuh|cu)($|[^A-Za-z0-9_])' |
        grep -oE '[A-Za-z_].*\.(h|cpp|cuh|cu)' | sort -u
}
missing=""
every=$'\n'$(sources)$'\n'
while read -r name; do
    case $name in */name.h | x.h | qv.cu) continue ;; esac        # "attention/name.h", any; the program's own name
    [[ $every == *[$'\n/']"$name"$'\n'* ]] || missing+=" $name"
done < <(named_in_comments)
check "the files that comments name exist; missing:$missing" test -z "$missing"

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
        *BACKEND=cuda*) command -v /usr/local/cuda/bin/nvcc nvcc >/dev/null || return 0
            env NO_INSTALL=1 bash -c "${command/make/make -n}" ;;
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

# ------------------------------------------------------------------------------------------------ the study
# Its numbers come from the records: the report made from them again says the same, the page is filled with it, README's table
# is the report's.
cd "$ROOT"
for folder in docs/study/study-*/ docs/study/claims*/ docs/study/ladder-*/ docs/study/budget-*/; do
    name=$(basename "$folder")
    [[ -e $folder/report.json ]] || continue
    check "$name: reported again" "$BUILD/report" "$folder" --baseline qkv --out "$T/$name" --no-plot --quiet
    check "$name: the same numbers as in the repository" cmp "$folder/report.json" "$T/$name/report.json"
done
for kind in ladder budget; do
    [[ -d docs/study/scaling-$kind ]] || continue
    check "scaling-$kind: fitted again" "$BUILD/scaling" docs/study/$kind-*/ --out "$T/scaling-$kind"
    check "scaling-$kind: the same numbers as in the repository" cmp "docs/study/scaling-$kind/report.json" "$T/scaling-$kind/report.json"
done
check "the claims: judged again" "$BUILD/claims" docs/study --write "$T/claims.md"
check "the claims: the same verdicts as in the repository" cmp docs/study/claims.md "$T/claims.md"
check "docs/STUDY.md: filled again" "$BUILD/report" --fill docs/study/page.md --out "$T/STUDY.md"
check "docs/STUDY.md: is docs/study/page.md with the reports' numbers" diff docs/STUDY.md "$T/STUDY.md"
missing=$(sed -n '/^## Result/,/^## The variants/p' README.md | grep '^|' | grep -vxFf docs/study/study-kjv/report.md)
report "$([[ -z $missing ]]; echo $?)" "README.md: the result's table is that of docs/study/study-kjv/report.md" "$missing"
printf 'test_documents: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
