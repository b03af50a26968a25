//! Who owns which address, MAC and device on this host, and how devices hang together.
#![forbid(unsafe_code)]
