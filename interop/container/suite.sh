# Sourced by rootfs.sh and run.sh: which Debian suite has the wanted Sidekiq.
#
#   INTEROP_SIDEKIQ   major version: 7 (default) or 8
#
# trixie stands still (Sidekiq 7.3.2). forky moves until it is released
# (8.1.7 in October 2026).
sidekiq=${INTEROP_SIDEKIQ:-7}
case $sidekiq in
7) suite=trixie ;;
8) suite=forky ;;
*)
    echo "$(basename "$0"): INTEROP_SIDEKIQ must be 7 or 8, not $sidekiq" >&2
    exit 125
    ;;
esac
