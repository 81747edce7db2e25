#!/usr/bin/env bash
# Lays out the root file system of the image: our three programs, nft for the redirection, and the shared
# libraries they need. The Dockerfile, build.sh and the tests all use it, so that they make the same image.
set -euo pipefail

if [ $# -ne 2 ] || [ ! -d "$1" ]; then
    echo "usage: root.sh FOLDER-OF-PROGRAMS NEW-ROOT" >&2
    exit 2
fi
programs="$1" root="$2"

nft="$(PATH="$PATH:/usr/sbin:/sbin" command -v nft)" ||
    { echo "root.sh: nft is missing; Debian's package nftables has it" >&2; exit 1; }
if [ -e "$root" ]; then
    echo "root.sh: $root is there already; name a folder that is not" >&2
    exit 1
fi

mkdir -p "$root/bin"
for name in tidegate-proxy tidegate-controller tidegate; do
    [ -x "$programs/$name" ] ||
        { echo "root.sh: $programs holds no $name; cargo build --release builds it" >&2; exit 1; }
    install -m 0755 "$programs/$name" "$root/bin/$name"
done
install -m 0755 "$nft" "$root/bin/nft"

# A library lies where the loader looks for it; ldd prints it as "name => path (address)" or "path (address)".
for file in "$root"/bin/*; do
    said="$(ldd "$file")" || { echo "root.sh: ldd $file: $said" >&2; exit 1; }
    if grep -F "not found" <<<"$said" >&2; then exit 1; fi
    grep -o '/[^ ]*' <<<"$said" || true
done | sort -u | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done

# Temporary files; the pods lay an emptyDir over it where they need one.
install -d -m 1777 "$root/tmp"
