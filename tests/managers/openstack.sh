#!/bin/sh
# A compute node as OpenStack builds it with Open vSwitch and the hybrid firewall: each guest's tap on a bridge of its own (qbr),
# joined by a veth pair (qvb, qvo) to br-int, whose local VLAN 1 a patch pair leads to br-ex, where the NIC is. Arguments: the
# lab's bridge, which makes way, the NIC, the taps. What Neutron leaves down (br-int, br-ex) is down.
set -eu
lab=$1
uplink=$2
shift 2
modprobe openvswitch 2>/dev/null || true
mkdir -p /run/openvswitch /etc/openvswitch /var/log/openvswitch
rm -f /etc/openvswitch/conf.db /etc/openvswitch/.conf.db.~lock~
ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir > /run/ovsdb.log 2>&1
ovs-vsctl --no-wait init
vswitchd=/usr/lib/openvswitch-switch/ovs-vswitchd
[ -x "$vswitchd" ] || vswitchd=$(command -v ovs-vswitchd)
"$vswitchd" --pidfile --detach --no-chdir > /run/vswitchd.log 2>&1
ip link del "$lab"
ovs-vsctl --timeout=30 add-br br-int -- set bridge br-int fail-mode=secure \
    -- add-br br-ex -- set bridge br-ex fail-mode=secure \
    -- add-port br-int int-br-ex -- set interface int-br-ex type=patch options:peer=phy-br-ex \
    -- add-port br-ex phy-br-ex -- set interface phy-br-ex type=patch options:peer=int-br-ex \
    -- add-port br-ex "$uplink"
number() { ovs-vsctl get interface "$1" ofport; }
int=$(number int-br-ex)
phy=$(number phy-br-ex)
# As neutron-openvswitch-agent: the local VLAN is put on and taken off between the two bridges.
ovs-ofctl add-flow br-ex "table=0,priority=4,in_port=$phy,dl_vlan=1,actions=strip_vlan,NORMAL"
ovs-ofctl add-flow br-ex "table=0,priority=2,in_port=$phy,actions=drop"
ovs-ofctl add-flow br-ex "table=0,priority=0,actions=NORMAL"
ovs-ofctl add-flow br-int "table=0,priority=3,in_port=$int,vlan_tci=0x0000/0x1fff,actions=mod_vlan_vid:1,resubmit(,60)"
ovs-ofctl add-flow br-int "table=0,priority=2,in_port=$int,actions=drop"
ovs-ofctl add-flow br-int "table=0,priority=0,actions=resubmit(,60)"
ovs-ofctl add-flow br-int "table=24,priority=0,actions=drop"
ovs-ofctl add-flow br-int "table=60,priority=3,actions=NORMAL"
index=0
for tap; do
    index=$((index + 1))
    id=4f1c20e$index-7
    mtu=$(cat "/sys/class/net/$tap/mtu")
    ip link add "qvb$id" mtu "$mtu" type veth peer name "qvo$id" mtu "$mtu"
    ip link add "qbr$id" type bridge forward_delay 0 stp_state 0 mcast_snooping 0
    ip link set "$tap" master "qbr$id"
    ip link set "qvb$id" master "qbr$id"
    ip link set "qvb$id" up
    ip link set "qvo$id" up
    ip link set "qbr$id" up
    ovs-vsctl --timeout=30 add-port br-int "qvo$id" tag=1
done
