//! From the bytes of the maps and the ring to [`super::Event`]s. Total: any bytes give an event or nothing, never a panic.
