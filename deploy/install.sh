#!/bin/sh
# Installs the mesh with kubectl alone; the same objects as `meshctl install --set profile=PROFILE`.
# usage: deploy/install.sh [demo|demo-auth]
set -eu
profile="${1:-demo}"
here="$(cd "$(dirname "$0")" && pwd)"
manifest="$here/manifests/istio-$profile.yaml"
[ -f "$manifest" ] || { echo "there is no profile $profile: $manifest is missing" >&2; exit 64; }

kubectl apply --server-side --force-conflicts -f "$here/crds"
kubectl wait --for=condition=Established --timeout=60s -f "$here/crds"
kubectl apply --server-side --force-conflicts -f "$manifest"
kubectl -n istio-system wait --for=condition=Available --timeout=300s deployment --all
