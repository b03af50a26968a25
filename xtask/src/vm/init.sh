#!/bin/busybox sh
# The first process: this machine's files by 9p, read-only below a throw-away overlay; then the command; then the end.
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys
for module in $($B cat /modules/order); do $B insmod /modules/$module 2>/dev/null; done
MODULES= NOW=
for word in $($B cat /proc/cmdline); do
    case $word in
    vm.modules=*) MODULES=${word#vm.modules=} ;;
    vm.now=*) NOW=${word#vm.now=} ;;
    esac
done
$B mkdir -p /host /over /new
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose host /host || { echo "no 9p" >/dev/console; $B poweroff -f; }
$B mount -t tmpfs -o mode=755 over /over; $B mkdir -p /over/upper /over/work
$B mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work over /new || { echo "no overlay" >/dev/console; $B poweroff -f; }
$B mount --move /dev /new/dev; $B mount --move /proc /new/proc; $B mount --move /sys /new/sys
$B mkdir -p /new/dev/pts /new/dev/shm /new/usr/lib/modules
$B mount -t devpts pts /new/dev/pts; $B mount -t tmpfs shm /new/dev/shm; $B mount -t tmpfs run /new/run
$B mount -t tracefs trace /new/sys/kernel/tracing; $B mount -t bpf bpf /new/sys/fs/bpf; $B mount -t cgroup2 cgroup /new/sys/fs/cgroup 2>/dev/null
$B mount --bind "/new$MODULES" /new/usr/lib/modules
$B date -u -s "@$NOW" >/dev/null
$B ln -sf /proc/self/fd /new/dev/fd; $B ln -sf /proc/self/fd/0 /new/dev/stdin; $B ln -sf /proc/self/fd/1 /new/dev/stdout; $B ln -sf /proc/self/fd/2 /new/dev/stderr
$B ip link set lo up; echo kvmtrace-vm >/new/proc/sys/kernel/hostname
$B stty -F /new/dev/ttyS1 raw -echo; $B stty -F /new/dev/ttyS2 raw -echo
# To touch a file is to copy it up into the overlay's memory.
$B xargs -r $B chroot /new /bin/touch -c -h -a </near
$B cp /command.sh /new/tmp/command.sh; $B cp $B /new/tmp/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C
$B cat >/new/tmp/first.sh <<'EOT'
# What a Debian host with guests has loaded: the device nodes of taps, and bridged packets on their way through netfilter.
modprobe -aq tun macvtap br_netfilter vhost_net
( . /tmp/command.sh ) </dev/null >/dev/ttyS1 2>&1
echo $? >/dev/ttyS2
sync; exec /tmp/busybox poweroff -f
EOT
# The first process itself changes its root: the kernel's own calls of modprobe look where it looks.
exec $B switch_root /new /bin/bash /tmp/first.sh
