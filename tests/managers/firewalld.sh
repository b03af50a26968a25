#!/bin/sh
# firewalld on a D-Bus of its own. Argument: its back end, nftables or iptables.
set -eu
mkdir -p /run/dbus
cat > /run/dbus.conf <<'END'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_type="method_call"/> <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
END
dbus-daemon --config-file=/run/dbus.conf --fork
sed -i "s/^FirewallBackend=.*/FirewallBackend=${1:-nftables}/" /etc/firewalld/firewalld.conf
firewalld --nofork --nopid > /run/firewalld.log 2>&1 &
tries=0
until firewall-cmd --state > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat /run/firewalld.log; exit 1; }
    sleep 0.1
done
