#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs a build into an empty prefix and uses it as a stranger would: the example from C through
# pkg-config (shared and static), every header from C++, the program from PREFIX/bin.
set -eu
top=$1
build=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
DESTDIR=$dir meson install -C "$build" --no-rebuild --quiet
prefix=$dir$(meson introspect --buildoptions "$build" |
    python3 -c 'import json,sys; print([o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"][0])')
pc=$(dirname "$(find "$prefix" -name platter.pc)")
lib=$(dirname "$pc")
export PKG_CONFIG_PATH="$pc" PKG_CONFIG_SYSROOT_DIR="$dir" PKG_CONFIG_ALLOW_SYSTEM_LIBS=1

printf 'hello, disk.....' >"$dir/disk"
head -c 4096 /dev/zero >>"$dir/disk"
want="4112 bytes: 68 65 6c 6c 6f 2c 20 64 69 73 6b 2e 2e 2e 2e 2e"

# shellcheck disable=SC2046
cc -Wall -Wextra -Werror "$top/examples/read_disk.c" -I"$prefix/include" -L"$lib" -lplatter -o "$dir/shared"
got=$(LD_LIBRARY_PATH="$lib" "$dir/shared" "$dir/disk")
[ "$got" = "$want" ] || { echo "shared: $got"; exit 1; }
pkg-config --exists platter || { echo "pkg-config does not find platter"; exit 1; }
# shellcheck disable=SC2046
cc "$top/examples/read_disk.c" -I"$prefix/include" "$lib/libplatter.a" \
    $(pkg-config --static --libs-only-l platter | sed 's/-lplatter//') -o "$dir/static"
[ "$("$dir/static" "$dir/disk")" = "$got" ] || { echo "static differs"; exit 1; }

for header in "$prefix"/include/platter/*.h; do
    printf '#include <platter/%s>\nint main() { return 0; }\n' "$(basename "$header")" >"$dir/t.cc"
    c++ -std=c++17 -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only "$dir/t.cc"
done
cat >"$dir/use.cc" <<'END'
#include <platter/backend.h>
int main()
{
    Platter *pl = platter_new(nullptr, nullptr);
    platter_free(pl);
    return pl == nullptr;
}
END
c++ -std=c++17 -Wall -Wextra -Werror "$dir/use.cc" -I"$prefix/include" -L"$lib" -lplatter -o "$dir/cxx"
LD_LIBRARY_PATH="$lib" "$dir/cxx"
"$prefix/bin/platter" --version >/dev/null
