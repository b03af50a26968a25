#!/bin/sh
# libvirt's filter for a guest's tap, as a guest's definition asks for it (libvirt.sh has started libvirt).
# Arguments: the tap, the guest's MAC address, the filter, the address that it is to have.
set -eu
cat > /run/binding.xml <<END
<filterbinding>
  <owner><name>guest</name><uuid>d1a1e5e0-2b1c-4bb3-9b0c-1c5a4d2b7a10</uuid></owner>
  <portdev name='$1'/>
  <mac address='$2'/>
  <filterref filter='$3'><parameter name='IP' value='$4'/></filterref>
</filterbinding>
END
virsh --quiet --connect nwfilter:///system nwfilter-binding-create /run/binding.xml
