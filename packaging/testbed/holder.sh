#!/bin/sh
# Run a command on an overlay of its own, and leave nothing behind, whatever happens.
#
# usage: holder.sh WORK LOWER UPPER MACHINE GROUPS COMMAND...
#   WORK     empty directory; the overlay is mounted on WORK/root
#   LOWER    overlayfs's lowerdir=
#   UPPER    directory that keeps the changes; empty to keep them in memory
#   MACHINE  systemd-nspawn's --machine=
#   GROUPS   control groups to make for the command, one for each hierarchy
#
# Runs in a mount namespace of its own, so the mounts end with it, also after SIGKILL. Standard input
# is a pipe that only our caller holds open: when that is closed, for whatever reason, all is killed.
set -eu
umask 022                             # else the container's / is closed to its users
work=$1 lower=$2 upper=$3 machine=$4 groups=$5
shift 5
exec 3<&0 </dev/null

mount -t tmpfs -o mode=0755 testbed "$work"
scratch=$upper.work                   # overlayfs wants it on upper's file system
if [ -z "$upper" ]; then upper=$work/upper scratch=$work/work; fi
mkdir -p "$work/root" "$upper" "$scratch"
options=lowerdir=$lower,upperdir=$upper,workdir=$scratch,index=off,volatile
mount -t overlay -o "$options" testbed "$work/root"

for group in $groups; do mkdir "$group"; done
kill_all() {
    for group in $groups; do
        if [ -e "$group/cgroup.kill" ]; then echo 1 >"$group/cgroup.kill"; fi
    done
}
# Again and again: a process may be in the middle of a fork.
( read -r _ <&3 || :; while :; do kill_all; sleep 0.1; done ) &
watcher=$!

# Without a group of its own, every nspawn --keep-unit of the host shares one "payload" group.
# shellcheck disable=SC2016 # for the inner shell
inside='for group in $0; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'
rc=0
sh -c "$inside" "$groups" "$@" 3<&- || rc=$?

kill_all
kill "$watcher"
for _ in 1 2 3 4 5 6 7 8 9 10; do     # a group is empty a moment after its last process ended
    left=
    for group in $groups; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || :
        if [ -d "$group" ]; then left=1; fi
    done
    if [ -z "$left" ]; then break; fi
    sleep 0.1
done
umount "$work/root" "$work"
rm -rf "$scratch"
rmdir "$work" "/run/systemd/nspawn/propagate/$machine" 2>/dev/null || :
exit "$rc"
