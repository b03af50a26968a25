#!/bin/sh
# libvirt's own network in place of the lab's bridge, with the rules and filters that libvirt makes for it.
# Arguments: the bridge, its MAC address, its MTU, its address, the bits of that, then the guests' taps.
set -eu
bridge=$1 mac=$2 mtu=$3 address=$4 bits=$5
shift 5
case $address in *:*) family=ipv6 ;; *) family=ipv4 ;; esac
# Only the drivers that are needed: the others want users, devices and hardware that a lab does not have.
for driver in qemu nodedev interface storage secret lxc vbox ch; do
    rm -f /usr/lib/*/libvirt/connection-driver/libvirt_driver_$driver.so
done
rm -rf /etc/libvirt/qemu/networks
# Its package installs the filters there.
mkdir -p /var/log/libvirt /var/lib/libvirt /etc/libvirt/nwfilter
cp -r /usr/share/libvirt/nwfilter/. /etc/libvirt/nwfilter/
libvirtd --pid-file /run/libvirtd.pid > /run/libvirtd.log 2>&1 &
tries=0
until virsh --quiet --connect network:///system net-list > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat /run/libvirtd.log; exit 1; }
    sleep 0.1
done
ip link del "$bridge"
cat > /run/network.xml <<END
<network>
  <name>lab</name>
  <forward mode='nat'><nat ipv6='yes'/></forward>
  <bridge name='$bridge' stp='off' delay='0'/>
  <mtu size='$mtu'/>
  <mac address='$mac'/>
  <ip family='$family' address='$address' prefix='$bits'/>
</network>
END
virsh --quiet --connect network:///system net-create /run/network.xml
for tap in "$@"; do
    ip link set dev "$tap" master "$bridge"
done
