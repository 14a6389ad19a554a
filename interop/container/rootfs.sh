#!/usr/bin/env bash
# Builds a Debian root file system with Ruby and Sidekiq, for machines without
# Docker: the same content as the Dockerfile beside this file. Prints its path.
# Does nothing when it is there already: one of a suite that has moved on stays
# as it was built until it is removed. Needs root.
#
#   INTEROP_SIDEKIQ  7 (default; Debian trixie) or 8 (forky)
#   INTEROP_ROOTFS   where (default: in ~/.cache/dramatiq-sidekiq-flow); one for
#                    each Sidekiq, as another one's is built anew
#   INTEROP_MIRROR   Debian mirror (default: this machine's own, from apt)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/suite.sh"
packages=ruby,ruby-sidekiq,ruby-activejob,puma,ruby-rack-session,ruby-rackup,ruby-minitest,rubocop,ca-certificates
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Names what was built: a change of the list above is a reason to build again.
stamp="$suite $packages"
# Beside what another list has built, which another checkout may be using.
root=${INTEROP_ROOTFS:-${HOME:-/root}/.cache/dramatiq-sidekiq-flow/$suite-$(cksum <<<"$stamp" | cut -d ' ' -f 1)}
building=$root.building

say() { echo "rootfs.sh: $*" >&2; }
die() { say "$*"; exit 1; }

complete() { [ "$(cat "$root/.interop-complete" 2>/dev/null)" = "$stamp" ]; }

# Only what this script made is ever removed.
remove() {
    [ -e "$1" ] || return 0
    [ -e "$1/.interop-rootfs" ] || die "$1 is there and was not made by this script: remove it, or set INTEROP_ROOTFS"
    rm -rf --one-file-system "$1"
}

# The repositories that apt knows, in whichever of its file formats. Asked of
# apt, which reads both, in a way that needs no package lists yet. Security and
# update suites have no base system and are left out; a third party's repository
# has none either, and debootstrap says so in a second.
mirrors() {
    if [ -n "${INTEROP_MIRROR:-}" ]; then
        echo "$INTEROP_MIRROR"
        return
    fi
    apt-get update --print-uris |
        sed -nE "s#^'((https?|file):[^' ]*)/dists/([^/' ]+)/InRelease'.*#\1 \3#p" |
        awk '$2 !~ /security|updates|backports/ && !seen[$1]++ { print $1 }'
}

install_debootstrap() {
    command -v debootstrap >/dev/null && [ -e "$keyring" ] && return
    command -v apt-get >/dev/null || die "debootstrap is missing, and there is no apt-get to install it"
    say "installing debootstrap"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap debian-archive-keyring; } >&2
}

if complete; then
    echo "$root"
    exit 0
fi
[ "$(id -u)" = 0 ] || die "must run as root"
case $root in /*) ;; *) die "INTEROP_ROOTFS must be an absolute path" ;; esac
[ "$root" != / ] || die "INTEROP_ROOTFS must not be /"
mkdir -p "$(dirname "$root")"

# Two test runs at once: the second waits and then finds it built.
exec 9>"$root.lock"
flock 9
if complete; then
    echo "$root"
    exit 0
fi

install_debootstrap
remove "$root"
# Its own mount namespace, where there may be one: what debootstrap mounts is
# gone with it, even if it is killed.
isolate=(unshare --mount)
"${isolate[@]}" true 2>/dev/null || isolate=()

# debootstrap has a script for each suite that it knows; sid's fits newer ones.
script=()
[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=(sid)

built=
found=$(mirrors) || die "apt does not say what its mirrors are: set INTEROP_MIRROR"
for mirror in $found; do
    remove "$building"
    mkdir "$building"
    touch "$building/.interop-rootfs"
    say "building $root (a few minutes)"
    # A release that no key of the keyring has signed is refused: an older Debian
    # may need a newer debian-archive-keyring.
    if "${isolate[@]}" debootstrap --variant=minbase --force-check-gpg --keyring="$keyring" --include="$packages" \
        "$suite" "$building" "$mirror" "${script[@]}" >&2 9>&-; then
        built=1
        break
    fi
    say "that mirror did not do; $building/debootstrap/debootstrap.log says why"
done
[ -n "$built" ] || die "no mirror in apt's settings has $suite: set INTEROP_MIRROR"

found=$(chroot "$building" ruby -rsidekiq/web -rrack/session -rpuma -ractive_job -e \
    'puts "Sidekiq #{Sidekiq::VERSION}, Ruby #{RUBY_VERSION}"; exit Sidekiq::VERSION.to_i >= ARGV[0].to_i' "$sidekiq" 9>&-) ||
    die "no Sidekiq $sidekiq loads in $building${found:+: it has $found}"
say "Debian $suite has $found"
rm -rf "$building"/var/cache/apt/archives/*.deb "$building"/var/lib/apt/lists/*
mkdir -p "$building/interop"
mv "$building" "$root"
echo "$stamp" >"$root/.interop-complete"
echo "$root"
