#!/bin/sh
# ufw as its package leaves it, enabled: what is routed is dropped, what comes in is dropped but for a few.
# Argument: legacy, for iptables-legacy below it.
set -eu
for program in iptables ip6tables; do
    for part in "" -save -restore; do
        ln -sfn "/usr/sbin/$program-${1:-nft}$part" "/etc/alternatives/$program$part"
    done
done
cp /usr/share/ufw/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/
ufw --force enable
