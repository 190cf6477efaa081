#!/usr/bin/env bash
# Gathers the headers and libraries that a build needs, for a machine without a package manager (a rented GPU, say):
#   here:   make deps DEPS=deps          then copy the sources with deps/ to the other machine
#   there:  make train BACKEND=cuda DEPS=deps        with g++, make and the CUDA toolkit (also: make gpu-check DEPS=deps)
# The folder: include/, lib/ with each library under its soname and a one-line linker script libNAME.so beside it (no symbolic links:
# not every way of copying keeps them), licences/, and manifest.txt, which says what was taken from where.
#   MPI=1   also MPI's headers and libraries, to link with: mpirun on the other machine must be of the same MPI (soname)
# Libraries need a glibc as new as the newest symbol that they use: the last line printed says which. Not for the CUDA
# toolkit, NCCL or BLAS.
set -euo pipefail
TO=${1:-${DEPS:-}}
CXX=${CXX:-g++}
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
[[ -n $TO ]] || { printf 'usage: scripts/deps.sh FOLDER   (make deps DEPS=FOLDER)\n' >&2; exit 2; }
mkdir -p "$TO/include" "$TO/lib" "$TO/licences" 2>/dev/null || die "$TO: cannot be made; give another folder"
manifest=$TO/manifest.txt
: >"$manifest"
newest_glibc=0

# The file that #include <$1> takes, from the preprocessor's line markers. Options after it.
header_file() {
    local h=$1
    shift
    "$CXX" -E "$@" -x c++ - <<<"#include <$h>" 2>/dev/null | sed -n "s|^# 1 \"\(.*/$h\)\".*|\1|p" | head -n 1
}
licence_of() {       # a file of a Debian package
    local package
    package=$(dpkg -S "$1" 2>/dev/null | head -n 1 | cut -d: -f1) || return 0
    [[ -z $package || ! -r /usr/share/doc/$package/copyright ]] || cp "/usr/share/doc/$package/copyright" "$TO/licences/$package"
}
take_header() {      # header: alone, or with its folder when it is in one; options of the preprocessor
    local h=$1 file
    shift
    file=$(header_file "$h" "$@") || true
    [[ -n $file ]] || die "$h: not found; scripts/setup.sh installs what the build needs, then run this again"
    if [[ $h == */* ]]; then
        rm -rf "$TO/include/${h%/*}"
        cp -RL "${file%/*}" "$TO/include/${h%/*}"
    else
        cp -L "$file" "$TO/include/$h"
    fi
    licence_of "$file"
    printf 'include/%s  %s\n' "$h" "$file" >>"$manifest"
}
soname_of() { LC_ALL=C objdump -p "$1" | sed -n 's/^ *SONAME *//p'; }
note_glibc() {
    local version
    version=$(LC_ALL=C objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -n 1) || return 0
    newest_glibc=$(printf '%s\n%s\n' "$newest_glibc" "$version" | sort -V | tail -n 1)
}
take_library() {     # shared library file
    local file soname
    file=$(readlink -f "$1")
    soname=$(soname_of "$file")
    [[ -n $soname ]] || die "$file: has no soname"
    cp -f "$file" "$TO/lib/$soname"
    chmod u+w "$TO/lib/$soname"
    note_glibc "$file"
    licence_of "$1"
    printf 'lib/%s  %s\n' "$soname" "$file" >>"$manifest"
    taken=$soname
}
link_as() { printf '/* GNU ld script */\nINPUT(-l:%s)\n' "$2" >"$TO/lib/lib$1.so"; }        # -lNAME, soname

for h in CLI/CLI.hpp nlohmann/json.hpp doctest/doctest.h xxhash.h; do take_header "$h"; done
xxh3=$(header_file xxh3.h) && [[ -z $xxh3 ]] || cp -L "$xxh3" "$TO/include/"        # xxhash.h before 0.8 includes it
for name in xxhash; do
    file=$("$CXX" -print-file-name="lib$name.so")
    [[ $file == /* ]] || die "lib$name.so: not found; scripts/setup.sh installs what the build needs, then run this again"
    take_library "$file"
    link_as "$name" "$taken"
done

if [[ ${MPI:-} == 1 ]]; then
    command -v "${MPICC:-mpicc}" >/dev/null || die "MPI=1, but there is no ${MPICC:-mpicc}; apt-get install libopenmpi-dev openmpi-bin"
    read -ra flags <<<"$("${MPICC:-mpicc}" -show)"
    includes=() folders=()
    for flag in "${flags[@]}"; do
        case $flag in -I*) includes+=("$flag") ;; -L*) folders+=("${flag#-L}") ;; esac
    done
    file=$(header_file mpi.h "${includes[@]}") || true
    [[ -n $file ]] || die "mpi.h: not found with ${flags[*]}"
    cp -RL "${file%/*}"/. "$TO/include/"
    printf 'include/mpi.h  %s\n' "$file" >>"$manifest"
    library=""
    for folder in "${folders[@]}" ""; do
        [[ -n $library ]] || { [[ -n $folder && -e $folder/libmpi.so ]] && library=$folder/libmpi.so; }
    done
    [[ -n $library ]] || library=$("$CXX" -print-file-name=libmpi.so)
    [[ $library == /* ]] || die "libmpi.so: not found with ${flags[*]}"
    take_library "$library"
    link_as mpi "$taken"
    mpi=$taken
    # What libmpi needs itself, without glibc's and g++'s own libraries, which every machine that compiles has.
    while read -r dependency; do
        case ${dependency##*/} in
            libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libutil.so* | ld-linux*) continue ;;
            libgcc_s.so* | libstdc++.so*) continue ;;
        esac
        take_library "$dependency"
    done < <(ldd "$library" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p')
fi

printf '%s: %s, %d libraries; they need glibc %s or later\n' \
    "$TO" "$(du -sh "$TO" | cut -f1)" "$(grep -c '^lib/' "$manifest")" "$newest_glibc"
[[ ${MPI:-} != 1 ]] || printf 'MPI: %s; mpirun on the other machine must be of the same MPI\n' "$mpi"
