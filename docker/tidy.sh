#!/bin/sh
# tidy.sh EPOCH: remove what differs from one build of an image to the next, and set the
# times of all that is newer than EPOCH (seconds since 1970) back to it.
set -eu
rm -rf /var/lib/apt/lists/*_* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
    /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /tmp/*
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /etc/hosts \
    -o -path /etc/hostname -o -path /etc/resolv.conf \) -prune \
    -o -newermt "@$1" -exec touch -h -d "@$1" {} +
