# SPDX-License-Identifier: MIT
# Sourced by ./run and ./test: finding and installing what the machine lacks.
set -eu
top=$(cd "$(dirname "$0")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# install_packages KIND... - install what packages.txt lists under these kinds and is missing.
install_packages() {
    missing=
    for kind in "$@"; do
        for pkg in $(awk -v k="$kind" '$1 == k { print $2 }' "$top/packages.txt"); do
            dpkg-query -W -f '${Status}' "$pkg" 2>/dev/null | grep -q 'ok installed' ||
                missing="$missing $pkg"
        done
    done
    [ -n "$missing" ] || return 0
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo=$(command -v sudo) || die "these Debian packages are missing, and I am not root to install them:$missing"
    fi
    say "installing:$missing"
    apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
    # shellcheck disable=SC2086
    if ! $apt install -y --no-install-recommends $missing >&2 </dev/null; then
        $apt update >&2 </dev/null
        $apt install -y --no-install-recommends $missing >&2 </dev/null ||
            die "apt-get could not install:$missing"
    fi
}

# build DIR MESON-OPTION... - configure once, then build.
build() {
    dir=$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        meson setup "$dir" "$top" "$@" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; die "cannot configure $dir"; }
    fi
    ninja -C "$dir" >"$dir.log" 2>&1 || { tail -n 60 "$dir.log" >&2; die "cannot build in $dir"; }
    rm -f "$dir.log"
}
