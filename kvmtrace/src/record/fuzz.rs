//! What the fuzzer (fuzz/) and tests need: files whose checksums are right whatever else is wrong with them, for no
//! fuzzer finds a checksum by itself.

use super::format::{BLOCK_HEADER, BlockHeader, COMPRESSED, EVENTS, LARGEST_BLOCK, PRELUDE, prelude};
use super::{Header, Reader, export, schema};
use crate::event::Event;

/// Events that are judged and exported at most: the rest of a file is only read.
const EVENTS_JUDGED: usize = 1000;

/// Reads, judges and exports a file.
pub fn run(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file, "fuzz") else { return };
    let header = reader.header().cloned().unwrap_or_else(Header::default);
    let mut events = Vec::new();
    while let Ok(Some(event)) = reader.next_event() {
        if events.len() < EVENTS_JUDGED {
            events.push(event);
        }
    }
    export::fuzz(&header, &events);
}

/// A file that holds one events block with this payload, whatever it is.
pub fn events_file(payload: &[u8]) -> Vec<u8> {
    let mut bytes = prelude().to_vec();
    bytes.extend(BlockHeader::new(EVENTS, 0, payload, payload.len()).bytes());
    bytes.extend(payload);
    bytes
}

/// A file of so many blocks, each with this event just as it is: what kvmtrace writes has been bounded, what a stranger
/// wrote has not. `None` when the event does not fit into a block.
pub fn unbounded_file(event: &Event, blocks: usize) -> Option<Vec<u8>> {
    let mut batch = Vec::new();
    schema::begin(&mut batch);
    schema::append(&mut batch, event).ok()?;
    if batch.len() > LARGEST_BLOCK {
        return None;
    }
    let one = events_file(&batch);
    let (prelude, block) = one.split_at_checked(PRELUDE)?;
    Some([prelude, &block.repeat(blocks)].concat())
}

/// The file with the checksum of each block made right. The last block may say that it is longer than the file.
pub fn repaired(file: &[u8]) -> Vec<u8> {
    blocks(file, |header, payload| {
        let mut header = BlockHeader { stored: payload.len() as u32, ..header };
        header.crc = header.checksum(payload);
        (header, payload.to_vec())
    })
}

/// The file with each block unpacked.
pub fn unpacked(file: &[u8]) -> Vec<u8> {
    blocks(file, |header, payload| {
        let plain = if header.flags & COMPRESSED == 0 {
            payload.to_vec()
        } else {
            zstd::bulk::decompress(payload, LARGEST_BLOCK).unwrap_or_default()
        };
        (BlockHeader::new(header.tag, header.flags & !COMPRESSED, &plain, plain.len()), plain)
    })
}

/// The file with each block changed, up to where there is none.
fn blocks(file: &[u8], change: impl Fn(BlockHeader, &[u8]) -> (BlockHeader, Vec<u8>)) -> Vec<u8> {
    let (begin, mut rest) = file.split_at(PRELUDE.min(file.len()));
    let mut changed = begin.to_vec();
    while let Some((header, after)) =
        rest.split_first_chunk::<BLOCK_HEADER>().and_then(|(bytes, after)| Some((BlockHeader::parse(*bytes)?, after)))
    {
        let (payload, after) = after.split_at((header.stored as usize).min(after.len()));
        let (header, payload) = change(header, payload);
        changed.extend(header.bytes());
        changed.extend(payload);
        rest = after;
    }
    changed.extend(rest);
    changed
}
