#!/usr/bin/env bash
# Plants one bug after another in a copy of src, and fails unless the lanes that the patch names go red.
#
#   tests/planted/run.sh [PREFIX …]      all patches, or those whose names begin so
#
# A patch begins with a sentence about the bug, then a line `Lane: loom FILTER` or `Lane: shuttle FILTER` for each lane
# that has to find it. The lanes are run on the unchanged copy first: what is red anyway finds nothing. A patch that does
# not apply any more, or does not compile, is to be written anew.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
copy=$root/target/planted
log=$root/target/planted.log
patience=300

# An unchanged copy of what the lanes build. It has build folders of its own: in those of the lanes, cargo would take a
# planted program for a fresh one.
fresh() {
    rm -rf "$copy"
    mkdir -p "$copy/tests/lanes"
    cp -r "$root/src" "$copy/src"
    for lane in loom shuttle; do
        mkdir "$copy/tests/lanes/$lane"
        find "$root/tests/lanes/$lane" -mindepth 1 -maxdepth 1 ! -name target \
            -exec cp -r {} "$copy/tests/lanes/$lane/" \;
    done
}

# Prints the path of a lane's test program.
build() {
    (cd "$copy/tests/lanes/$1" &&
        CARGO_TARGET_DIR=$root/target/planted-build/$1 cargo test --release --lib --no-run 2>&1) >"$log" || return 1
    (cd "$copy/tests/lanes/$1" && realpath "$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$log")")
}

# Runs the models of a lane whose names begin with a filter. The status is that of the tests; a filter that finds none
# ends everything.
run() {
    local status=0
    (cd "$copy" && timeout "$patience" "$2" "$1_models::$3") >"$log" 2>&1 || status=$?
    if grep -aq '^running 0 tests' "$log"; then
        echo "no model of the $1 lane is called $3" >&2
        exit 1
    fi
    return "$status"
}

lanes() {
    sed -n 's/^Lane: \(loom\|shuttle\) \(.*\)$/\1 \2/p' "$@"
}

patches=()
for patch in "$here"/*.patch; do
    name=$(basename "$patch" .patch)
    for prefix in "${@:-}"; do
        [[ $name == "$prefix"* ]] && patches+=("$patch") && break
    done
done
[[ ${#patches[@]} -gt 0 ]] || { echo "no patch is called so" >&2; exit 1; }

fresh
for lane in $(lanes "${patches[@]}" | cut -d' ' -f1 | sort -u); do
    program=$(build "$lane") || { cat "$log"; exit 1; }
    while read -r filter; do
        run "$lane" "$program" "$filter" ||
            { tail -n 40 "$log"; echo "red before anything was planted: $lane $filter"; exit 1; }
    done < <(lanes "${patches[@]}" | sed -n "s/^$lane //p" | sort -u)
done

failed=0
complain() {
    echo "MISSED  $1"
    failed=1
}
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    fresh
    if ! (cd "$copy" && patch -sp1 --no-backup-if-mismatch <"$patch"); then
        complain "$name: does not apply any more"
        continue
    fi
    if [[ -z $(lanes "$patch") ]]; then
        complain "$name: names no lane"
        continue
    fi
    while read -r lane filter; do
        if ! program=$(build "$lane"); then
            tail -n 20 "$log"
            complain "$name: does not compile any more"
            continue
        fi
        status=0
        run "$lane" "$program" "$filter" || status=$?
        case $status in
            0) complain "$name: $lane $filter stays green" ;;
            124) complain "$name: $lane $filter hangs" ;;
            *) echo "caught  $name: $lane $filter" ;;
        esac
    done < <(lanes "$patch")
done
exit "$failed"
