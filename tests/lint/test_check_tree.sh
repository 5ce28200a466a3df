#!/bin/sh
# SPDX-License-Identifier: MIT
# The checker finds what it is there to find: a tree that holds one bad file must fail.
set -eu
top=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad() { # FILE LINE WORD
    rm -rf "$dir/t"
    mkdir -p "$dir/t/tests" "$dir/t/include"
    cp -r "$top/tests/lint" "$dir/t/tests/"
    mkdir -p "$(dirname "$dir/t/src/$1")"
    printf '/* SPDX-License-Identifier: MIT */\n%s\n' "$2" >"$dir/t/src/$1"
    if python3 "$dir/t/tests/lint/check_tree.py" >"$dir/out"; then
        echo "not found: $1: $2"
        exit 1
    fi
    grep -q "$3" "$dir/out" || { cat "$dir/out"; exit 1; }
}
bad os/up.c '#include "loop/context.h"' 'points up'
bad driver/format/aaa/a.c '#include "driver/format/raw/raw.h"' 'points sideways'
bad driver/format/aaa/b.c '#include "block/node.h"' 'sees only block/driver.h'
bad wire/side.c '#include "loop/io.h"' 'points sideways'
bad util/long.c "$(printf 'void f(void)\n{'; yes '' | head -n 72; echo '}')" 'longer than 70'
bad util/print.c 'int f(void) { return printf("x"); }' 'does not call printf'
