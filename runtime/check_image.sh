#!/usr/bin/env bash
# Build Dockerfile.jetson on a plain root file system, without NVIDIA's packages, and run it:
# needs root, debootstrap and buildah, but no container engine and no board.
#
#   sudo runtime/check_image.sh
#   sudo SUITE=noble MIRROR=http://archive.ubuntu.com/ubuntu COMPONENTS=main,universe \
#     runtime/check_image.sh
#
# SUITE, MIRROR, COMPONENTS  as debootstrap takes them
# ARCH    such as arm64 on a PC, where qemu-user-static and binfmt_misc run its programs: slowly
# PYTHON  folder of a CPython for /usr/local, where the suite's own version is not the wanted one
# WORK    folder for everything that is made, kept afterwards; needs 4 GB
#
# Arguments go to buildah build, such as --volume /etc/pip.conf:/etc/pip.conf:ro.
set -Eeuo pipefail
trap 'echo "$0: failed in line $LINENO" >&2' ERR

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
components=${COMPONENTS:-main}
arch=${ARCH:-$(dpkg --print-architecture)}
python=${PYTHON:-}
work=${WORK:-}
context=$(cd "$(dirname "$0")/.." && pwd)

if [ -z "$work" ]; then
  work=$(mktemp --directory)
  trap 'rm --recursive --force "$work"' EXIT
fi
mkdir --parents "$work"
base=localhost/base:$suite
image=localhost/hermes-edge:$suite

# Works in a container too: no namespaces.
export BUILDAH_ISOLATION=chroot
store() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }

make_base() {
  local rootfs=$work/rootfs container
  debootstrap --variant=minbase --arch="$arch" --components="$components" \
    "$suite" "$rootfs" "$mirror" > "$work/debootstrap.log"
  # As distributions' images have it: no archives of packages, and in Ubuntu's a user 1000.
  echo 'APT::Keep-Downloaded-Packages "false";' > "$rootfs/etc/apt/apt.conf.d/keep-none"
  chroot "$rootfs" apt-get clean
  chroot "$rootfs" useradd --create-home --uid 1000 ubuntu
  if [ -n "$python" ]; then
    cp --archive "$python/." "$rootfs/usr/local/"
    rm --recursive --force "$rootfs"/usr/local/lib/python3*/site-packages/*
    chroot "$rootfs" ldconfig
  fi
  container=$(store from --arch "$arch" scratch)
  # An archive keeps its owners, a folder would become root's.
  tar --create --file "$rootfs.tar" --directory "$rootfs" --numeric-owner .
  store add --quiet "$container" "$rootfs.tar" / > /dev/null
  store commit --quiet --rm "$container" "$base" > /dev/null
  rm --recursive --force "$rootfs" "$rootfs.tar"
}

build_image() {
  # Health checks are known to Docker's format alone.
  store build --pull-never --network host --format docker --arch "$arch" \
    --build-arg "BASE=$base" --build-arg JETSON_RELEASE= \
    --file "$context/Dockerfile.jetson" --tag "$image" "$@" "$context"
  store images --format '{{.Name}} {{.Size}}'
}

# All packages of the image but its own are pinned, to just these versions.
check_pins() {
  local packages unpinned
  packages=$(inside python -c '
import sys
from importlib.metadata import distributions
for package in distributions(path=[path for path in sys.path if path.startswith(sys.prefix)]):
    print(package.name.lower().replace("_", "-"), package.version, sep="==")
')
  grep --quiet '^hermes-edge==' <<< "$packages"
  unpinned=$(grep --invert-match --line-regexp --fixed-strings \
    --file <(sed 's/;.*//' "$context/configs/container-constraints.txt") <<< "$packages" \
    | grep --invert-match '^hermes-edge==' || true)
  test -z "$unpinned" || { echo "not pinned: $unpinned"; exit 1; }
}

check_image() {
  local container demo
  container=$(store from --pull-never --arch "$arch" "$image")
  inside() { store run "$container" -- "$@"; }
  inside python -c 'import sys; from cuda.bindings import runtime; print(sys.version)'
  inside uname --machine
  inside id
  test "$(inside id --user)" = 1000
  inside test -w /engines
  check_pins
  inside hermes-edge doctor
  inside hermes-edge doctor --json > "$work/doctor.json"
  demo=$(inside hermes-edge demo)
  echo "$demo"
  grep --quiet '^1[0-9] of 20 right' <<< "$demo"
  inside test -s hermes-edge-demo.html
  store inspect --type image --format '{{.Docker.Config.Healthcheck.Test}}' "$image" \
    | grep 'hermes-edge doctor'
}

make_base
build_image "$@"
check_image
echo "$image: all checks passed"
