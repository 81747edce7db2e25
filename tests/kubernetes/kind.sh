#!/usr/bin/env bash
# Runs the suite `kubernetes` in a kind cluster: makes the cluster, loads the image into it, tests, removes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'HELP'
usage: tests/kubernetes/kind.sh [--keep] [--cluster NAME] [--node-image IMAGE] [--image NAME:TAG] [TEST…]

  --cluster NAME      what the cluster is called; default tidegate
  --node-image IMAGE  kind's image of a node, so which Kubernetes; default kind's own
  --image NAME:TAG    an image that Docker has already; default: built from the Dockerfile
  --keep              leaves the cluster, and prints how to use it and how to remove it
  TEST…               only tests with one of these in their name

It needs docker, kind and kubectl; helm too for the tests of the chart.
HELP
}

fail() { echo "kind.sh: $*" >&2; exit 1; }

cluster=tidegate image="" node_image="" keep="" tests=()
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --keep) keep=1; shift ;;
        --cluster) cluster="${2:?--cluster wants a name}"; shift 2 ;;
        --node-image) node_image="${2:?--node-image wants an image}"; shift 2 ;;
        --image) image="${2:?--image wants NAME:TAG}"; shift 2 ;;
        -*) echo "unknown argument '$1'; see --help" >&2; exit 2 ;;
        *) tests+=("$1"); shift ;;
    esac
done

for program in docker kind kubectl helm; do
    command -v "$program" >/dev/null ||
        fail "$program is missing. Install it, or run tests/run --only kubernetes, which needs none of docker and kind."
done
said="$(docker info 2>&1)" || fail "docker is there, its daemon does not answer: $(tail -n 1 <<<"$said")"
if kind get clusters 2>/dev/null | grep -qxF "$cluster"; then
    fail "a kind cluster '$cluster' is there already: name another by --cluster, or kind delete cluster --name $cluster"
fi

work="$(mktemp -d)"
export KUBECONFIG="$work/kubeconfig"
made=""
finish() {
    local status=$?
    if [ -n "$keep" ] && [ -n "$made" ]; then
        echo "kept: export KUBECONFIG=$KUBECONFIG; afterwards: kind delete cluster --name $cluster"
        return "$status"
    fi
    [ -z "$made" ] || kind delete cluster --name "$cluster" || true
    rm -rf "$work"
    return "$status"
}
trap finish EXIT

if [ -z "$image" ]; then
    image=tidegate.test/tidegate:kind
    docker build --tag "$image" . || fail "the image does not build, see above"
fi

# Two nodes, as the suite has where it starts its own.
cat >"$work/kind.yaml" <<'YAML'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
YAML
made=1
kind create cluster --name "$cluster" --config "$work/kind.yaml" --wait 120s \
    ${node_image:+--image "$node_image"} || fail "kind made no cluster, see above"
kind load docker-image "$image" --name "$cluster" || fail "kind did not take the image $image"

# The tests' own pods run busybox under this name.
busybox=tidegate.test/busybox:1
docker build --quiet --tag "$busybox" - <<'DOCKERFILE' >/dev/null || fail "the image $busybox does not build"
FROM busybox:stable
ENTRYPOINT ["/bin/busybox", "sleep", "2147483647"]
DOCKERFILE
kind load docker-image "$busybox" --name "$cluster" || fail "kind did not take the image $busybox"

# The tests that take any cluster; the others are about the parts of our own, and need root.
suites=(--test chart)
TIDEGATE_TEST_IMAGE="$image" cargo test -p kubernetes --locked "${suites[@]}" -- \
    --test-threads=1 --show-output "${tests[@]}"
