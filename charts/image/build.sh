#!/usr/bin/env bash
# Builds the image without a daemon, without root's rights over the machine and without a registry: with
# buildah, as Debian ships it, from programs that are built already. The Dockerfile is for everybody else.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
    cat <<'HELP'
usage: charts/image/build.sh [--bin FOLDER] [--archive FILE] [NAME[:TAG]]

  NAME[:TAG]       what the image is called; default tidegate.dev/tidegate:VERSION
  --bin FOLDER     where tidegate-proxy, tidegate-controller and tidegate are; default target/release
  --archive FILE   writes the image to a file as `docker save` does, and keeps it nowhere else

It needs buildah, nft and ldd (Debian: buildah nftables libc-bin).
HELP
}

version="$(awk -F'"' '/^version = / { print $2; exit }' "$repository/Cargo.toml")"
name="tidegate.dev/tidegate:$version" bin="$repository/target/release" archive=""
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --bin) bin="${2:?--bin wants a folder}"; shift 2 ;;
        --archive) archive="${2:?--archive wants a file}"; shift 2 ;;
        -*) echo "unknown argument '$1'; see --help" >&2; exit 2 ;;
        *) name="$1"; shift ;;
    esac
done
command -v buildah >/dev/null ||
    { echo "build.sh: buildah is missing; Debian's package buildah has it" >&2; exit 1; }

work="$(mktemp -d)"
container=""
finish() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

"$repository/charts/image/root.sh" "$bin" "$work/root"
# vfs copies where an overlay would need rights that a build has not everywhere.
export STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}" BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
storage=()
[ -z "$archive" ] || storage=(--root "$work/storage" --runroot "$work/run")
buildah() { command buildah "${storage[@]}" "$@"; }
container="$(buildah from scratch)"
buildah copy --quiet --chown 0:0 "$container" "$work/root" / >/dev/null
# As the Dockerfile has it; a test compares the two.
buildah config --env PATH=/bin --user 2102:2102 --workingdir / \
    --label org.opencontainers.image.title=tidegate \
    --label org.opencontainers.image.description="Tidegate: sidecar, controller and command line" \
    --label org.opencontainers.image.licenses=Apache-2.0 \
    --label org.opencontainers.image.version="$version" \
    --cmd '["tidegate", "--help"]' "$container"
buildah commit --quiet "$container" "$name" >/dev/null
[ -z "$archive" ] || buildah push --quiet "$name" "docker-archive:$archive:$name"
echo "$name: $(du -sm "$work/root" | cut -f1) MiB"
