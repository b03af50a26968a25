//! Kernel functions in which packets die, by what their death there means.

/// Where a bridge finds no port for a group's packet.
pub const NO_MEMBER: &[&str] = &["br_handle_frame_finish", "br_dev_xmit", "br_multicast_flood", "br_flood"];

/// Where a port takes a frame in, or does not. What it took ends elsewhere: a flood takes copies.
pub const BRIDGE_INGRESS: &[&str] =
    &["br_handle_frame", "br_handle_frame_finish", "br_allowed_ingress", "__allowed_ingress"];

/// Where it happens, on all kernels known.
pub const BRIDGE_EGRESS_LENGTH: &[&str] = &["br_dev_queue_push_xmit", "br_nf_dev_queue_xmit", "br_forward_finish"];

/// Where a veth hands a packet to its other end.
pub const FAR_END: &[&str] = &["__dev_forward_skb2", "__dev_forward_skb", "dev_forward_skb", "veth_xmit"];
