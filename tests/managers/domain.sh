# domain.sh NAME STATE [MAC TAP]: libvirt's status file of a running guest, and a virsh that resumes and suspends its process.
# A stand-in for libvirt: the process is the lab's, which libvirt did not start.
set -e
name=$1 state=$2 mac=$3 tap=$4
pid=$(pgrep -f -- "-name guest=$name,debug-threads=on" | head -1)
file="/run/libvirt/qemu/$name.xml"
mkdir -p /run/libvirt/qemu
interface=
[ -z "$mac" ] || interface="<interface type='bridge'><mac address='$mac'/><target dev='$tap'/></interface>"
echo "<domstatus state='$state' reason='user' pid='$pid'><domain type='kvm' id='1'><name>$name</name>\
<uuid>0c5a4a2e-9e1b-4c7e-9d1e-0d7e5a5b6c7d</uuid><devices>$interface</devices></domain></domstatus>" > "$file"
cat > /usr/bin/virsh.new <<END
#!/bin/sh
[ "\$2" = "$name" ] || { echo "no domain \$2" >&2; exit 1; }
case \$1 in
resume) kill -CONT $pid && sed -i "s/state='paused'/state='running'/" "$file" ;;
suspend) kill -STOP $pid && sed -i "s/state='running'/state='paused'/" "$file" ;;
*) exit 1 ;;
esac
END
chmod +x /usr/bin/virsh.new
mv /usr/bin/virsh.new /usr/bin/virsh
[ "$state" != paused ] || kill -STOP "$pid"
