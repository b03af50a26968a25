#!/bin/sh
# Open vSwitch in the place of the lab's bridge, with its addresses. Arguments: the bridge, its ports.
set -eu
bridge=$1
shift
modprobe openvswitch 2>/dev/null || true
mkdir -p /run/openvswitch /etc/openvswitch /var/log/openvswitch
rm -f /etc/openvswitch/conf.db /etc/openvswitch/.conf.db.~lock~
ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir > /run/ovsdb.log 2>&1
ovs-vsctl --no-wait init
vswitchd=/usr/lib/openvswitch-switch/ovs-vswitchd
[ -x "$vswitchd" ] || vswitchd=$(command -v ovs-vswitchd)
"$vswitchd" --pidfile --detach --no-chdir > /run/vswitchd.log 2>&1
addresses=$(ip -o addr show dev "$bridge" scope global | awk '{ print $4 }')
mac=$(cat "/sys/class/net/$bridge/address")
ip link del "$bridge"
ports=
for port; do ports="$ports -- add-port $bridge $port"; done
# shellcheck disable=SC2086
ovs-vsctl --timeout=30 add-br "$bridge" -- set bridge "$bridge" other-config:hwaddr="\"$mac\"" $ports
ip link set "$bridge" up
for address in $addresses; do
    case $address in
    *:*) ip addr add "$address" dev "$bridge" nodad ;;
    *) ip addr add "$address" dev "$bridge" ;;
    esac
done
