#!/bin/sh
# Docker's daemon without a container: it is its rules that matter. Where the host does not forward yet, Docker makes it
# do so and sets the policy of FORWARD to drop.
set -eu
mount -t cgroup2 -o ro groups /sys/fs/cgroup
mkdir -p /var/lib/docker /run/docker-lab
mount -t tmpfs docker /var/lib/docker
dockerd --storage-driver vfs --host unix:///run/docker-lab/socket --pidfile /run/docker-lab/pid \
    --exec-root /run/docker-lab/exec > /run/docker.log 2>&1 &
tries=0
until [ -S /run/docker-lab/socket ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 150 ] || { cat /run/docker.log; exit 1; }
    sleep 0.1
done
