#!/usr/bin/env bash
# Runs a command in the Ruby container, in the folder interop/ruby:
#
#   REDIS_URL=redis://127.0.0.1:6379/9 interop/container/run.sh ruby replay.rb
#
# Docker where an engine answers, else a chroot into what rootfs.sh builds (as
# root). Either way the network is this machine's, so that its 127.0.0.1 is
# Redis's, and interop/ is this checkout's. In the chroot this process becomes
# the command: its pid is Ruby's, and signals sent to it arrive there.
#
#   INTEROP_SIDEKIQ       7 (default) or 8
#   INTEROP_ENGINE        docker or chroot: do not choose, take this one
#   INTEROP_EXTRA         folder that the command finds as /interop/extra
#   SIDEKIQ_WORKFLOW_LIB  folder of the real gem's lib, instead of the stand-in
#
# The command gets REDIS_URL, SIDEKIQ_WORKFLOW_LIB, RUBYOPT and every INTEROP_*
# variable, nothing else of the environment.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
interop=$(dirname "$here")
. "$here/suite.sh"
# Named after what is in it: another list of packages is another image.
image=dramatiq-sidekiq-flow-ruby:$suite-$(cksum <"$here/Dockerfile" | cut -d ' ' -f 1)

die() { echo "run.sh: $*" >&2; exit 125; }

[ $# -gt 0 ] || die "what command?"

# NAME=VALUE of what the command may see, with the paths that it has inside.
environment=()
while read -r name; do
    case $name in
    INTEROP_ENGINE | INTEROP_SIDEKIQ | INTEROP_EXTRA | INTEROP_ROOTFS | INTEROP_MIRROR) ;;
    REDIS_URL | RUBYOPT | INTEROP_*) environment+=("$name=${!name}") ;;
    esac
done < <(compgen -e)

# Pairs: folder of this machine, its place inside.
mounts=("$interop/ruby" /interop/ruby "$interop/recordings" /interop/recordings)
add_mount() {
    [ -d "$1" ] || die "$1 is no folder"
    mounts+=("$(cd "$1" && pwd)" "$2")
}
if [ -n "${SIDEKIQ_WORKFLOW_LIB:-}" ]; then
    add_mount "$SIDEKIQ_WORKFLOW_LIB" /interop/gem
    environment+=(SIDEKIQ_WORKFLOW_LIB=/interop/gem)
fi
[ -z "${INTEROP_EXTRA:-}" ] || add_mount "$INTEROP_EXTRA" /interop/extra

in_docker() {
    docker image inspect "$image" >/dev/null 2>&1 ||
        docker build --build-arg "SUITE=$suite" --file "$here/Dockerfile" --tag "$image" "$interop" >&2 ||
        die "docker build failed"
    local options=(--rm --interactive --init --network host --workdir /interop/ruby) pair index
    for ((index = 0; index < ${#mounts[@]}; index += 2)); do
        options+=(--volume "${mounts[index]}:${mounts[index + 1]}:ro")
    done
    for pair in "${environment[@]}"; do options+=(--env "$pair"); done
    exec docker run "${options[@]}" "$image" "$@"
}

# Mounts in a namespace of our own: nothing to take down, whatever kills us.
enter_with_mounts='
    set -e
    root=$1 count=$2; shift 2
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    while [ "$count" -gt 0 ]; do
        mkdir -p "$root$2"
        mount --bind "$1" "$root$2"
        shift 2; count=$((count - 2))
    done
    exec "$@"'

in_chroot() {
    [ "$(id -u)" = 0 ] || die "no Docker engine answers, and the chroot needs root"
    local root index
    root=$("$here/rootfs.sh") || die "no Docker engine answers, and rootfs.sh failed"
    local enter=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
        "${environment[@]}" chroot "$root" /bin/sh -c 'cd /interop/ruby && exec "$@"' sh)
    if unshare --mount true 2>/dev/null; then
        exec unshare --mount --propagation private /bin/sh -c "$enter_with_mounts" sh \
            "$root" "${#mounts[@]}" "${mounts[@]}" "${enter[@]}" "$@"
    fi
    # No right to mount (a container in a container): copies do. Replaced file
    # by file under a lock, for a worker may be running from them.
    (
        flock 9
        for ((index = 0; index < ${#mounts[@]}; index += 2)); do
            mkdir -p "$root${mounts[index + 1]}"
            cp -R --remove-destination "${mounts[index]}/." "$root${mounts[index + 1]}"
        done
    ) 9>"$root.lock"
    exec "${enter[@]}" "$@"
}

engine=${INTEROP_ENGINE:-}
if [ -z "$engine" ]; then
    if docker info >/dev/null 2>&1; then engine=docker; else engine=chroot; fi
fi
case $engine in
docker) in_docker "$@" ;;
chroot) in_chroot "$@" ;;
*) die "INTEROP_ENGINE must be docker or chroot, not $engine" ;;
esac
