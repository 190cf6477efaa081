#!/usr/bin/env bash
# Tests of scripts/deps.sh: what it gathers is enough to compile, link and run with a compiler that sees no other
# copy. Where the kernel allows it, the system's copies are hidden by overlays in a namespace of our own; nothing
# outside it changes.    test/system/test_deps.sh [build]
# apart: half a minute, for machines with a GPU; .ci/run calls it
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
. test/system/shell_common.sh
CXX=${CXX:-g++}

expect "no folder given" 2 "usage: scripts/deps.sh" env -u DEPS scripts/deps.sh
expect "a folder that cannot be made" 1 "cannot be made" scripts/deps.sh /dev/null/x
expect "a machine that lacks the headers is told so" 1 "error: CLI/CLI.hpp: not found" env CXX=false scripts/deps.sh "$T/none"
if ! "$CXX" -E -x c++ - <<<'#include <CLI/CLI.hpp>' >/dev/null 2>&1; then
    echo "this machine has no copies of its own (DEPS?): nothing to gather"
    printf 'test_deps: %d checks, %d failed\n' "$checks" "$failures"
    exit $((failures > 0))
fi
expect "the folder is made" 0 "they need glibc 2." scripts/deps.sh "$T/deps"
expect "again, over the old one" 0 "1 libraries" scripts/deps.sh "$T/deps"
expect "no symbolic links" 0 "0" bash -c "find '$T/deps' -type l | wc -l"
expect "it says where things came from" 0 "include/xxhash.h  /" cat "$T/deps/manifest.txt"

cat >"$T/program.cpp" <<'EOF'
#define DOCTEST_CONFIG_IMPLEMENT
#include <CLI/CLI.hpp>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>
int main() {
    printf("xxhash %u, json %d\n", XXH_versionNumber(), nlohmann::json::parse("[1, 2]").at(1).get<int>());
}
EOF
cat >"$T/build.sh" <<'EOF'
# program.cpp with the flags of the Makefile's DEPS; which files the compiler and the loader took.
cd "$1" &&
    "$2" -std=gnu++20 -O0 -isystem deps/include -MMD program.cpp -o program -Ldeps/lib -Wl,-rpath,"$PWD/deps/lib" -lxxhash &&
    ./program && ldd ./program
EOF
output=$(bash "$T/build.sh" "$T" "$CXX" 2>&1)
report $? "compiles, links and runs" "$output"
[[ $output == *"xxhash 8"* && $output == *"json 2"* && $output == *"libxxhash.so.0 => $T/deps/lib"* ]]
report $? "takes the libraries of the folder" "$output"
elsewhere=$(tr -s ' \\' '\n' <"$T/program.d" | grep -E '/(CLI|nlohmann|doctest)/|/xxh' | grep -v '^deps/include/')
[[ -z $elsewhere ]]
report $? "takes no header from elsewhere" "$elsewhere"

# The same with the system's copies out of sight: overlays of the system's folders, seen by one process tree
# only, from which they are deleted.
cat >"$T/hidden.sh" <<'EOF'
set -e
mkdir "$1/over" "$1/empty"
mount -t tmpfs none "$1/over"
for folder in /usr/include $(find /usr/lib -maxdepth 2 -name libxxhash.so -printf '%h\n') ; do
    upper=$1/over/${folder//\//_}
    mkdir "$upper" "$upper-work"
    mount -t overlay none -o "lowerdir=$folder,upperdir=$upper,workdir=$upper-work" "$folder"
    rm -f "$folder"/{xxhash.h,xxh3.h} "$folder"/libxxhash.{so,a}
done
for folder in /usr/include/{CLI,nlohmann,doctest}; do [[ ! -d $folder ]] || mount --bind "$1/empty" "$folder"; done
! "$2" -E -x c++ - <<<'#include <CLI/CLI.hpp>' >/dev/null 2>&1 || { echo "the system's header is still in sight"; exit 1; }
! "$2" -shared -o /dev/null -lxxhash 2>/dev/null || { echo "the system's library is still in sight"; exit 1; }
shift 2
"$@"
EOF
probe="mkdir $T/probe && mount -t tmpfs none $T/probe && mkdir $T/probe/u $T/probe/w &&
    mount -t overlay none -o lowerdir=/usr/include,upperdir=$T/probe/u,workdir=$T/probe/w /usr/include"
if unshare --mount --map-root-user bash -c "$probe" 2>/dev/null; then
    output=$(unshare --mount --map-root-user bash "$T/hidden.sh" "$T" "$CXX" bash "$T/build.sh" "$T" "$CXX" 2>&1)
    report $? "compiles, links and runs without the system's copies" "$output"
else
    echo "no overlays in namespaces here: the system's copies could not be hidden"
fi
printf 'test_deps: %d checks, %d failed\n' "$checks" "$failures"
((failures == 0))
