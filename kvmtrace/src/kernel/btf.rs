//! The kernel's type information: where members of structures lie, what enumerations are called, how many arguments
//! a tracepoint has. Only what kvmtrace asks; the format is `Documentation/bpf/btf.rst`.

/// Where the kernel shows it.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Nesting of anonymous structures and of typedefs looked through at most.
const DEPTH: u32 = 16;

/// The type information can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// There is none.
    #[error("this kernel has no BTF ({VMLINUX}: {0}); kvmtrace needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    Missing(std::io::Error),
    /// It is not what it should be.
    #[error("{VMLINUX} is not BTF: {0}")]
    Malformed(&'static str),
    /// A member is not there.
    #[error("this kernel's BTF has no {0}")]
    NoMember(String),
}

/// Kinds of types (`BTF_KIND_*` in `linux/btf.h`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
}

/// The parsed index; the bytes stay as they are.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Offset of each type in `bytes`; the first is type 1.
    types: Vec<usize>,
    strings: usize,
    /// Bytes of the strings that these go on from.
    before: u32,
}

/// The head of a type: name, kind, number of members, kind flag, and the size or the type referred to.
struct Type {
    name: u32,
    kind: u32,
    members: u32,
    kind_flag: bool,
    /// Size, or the type referred to.
    refers_to: u32,
    /// Where what follows the head begins.
    body: usize,
}

impl Btf {
    /// Reads a module's, which goes on where the kernel's ends: for names and values of its enumerations alone. None where the module
    /// is not loaded, or has none.
    pub fn of_module(&self, name: &str) -> Option<Self> {
        let bytes = std::fs::read(std::path::Path::new("/sys/kernel/btf").join(name)).ok()?;
        let length = word(&self.bytes, 20)?;
        Some(Self { before: length, ..Self::parse(bytes).ok()? })
    }

    /// Reads the running kernel's.
    pub fn read() -> Result<Self, BtfError> {
        Self::parse(std::fs::read(VMLINUX).map_err(BtfError::Missing)?)
    }

    /// Indexes the types.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let header = |offset| word(&bytes, offset).ok_or(BtfError::Malformed("the header is cut short"));
        if header(0)? & 0xffff != 0xeb9f {
            return Err(BtfError::Malformed("the magic number is wrong"));
        }
        let start = header(4)? as usize;
        let (types_at, types_length) = (start + header(8)? as usize, header(12)? as usize);
        let strings = start + header(16)? as usize;
        let mut btf = Self { types: Vec::new(), strings, before: 0, bytes };
        let mut at = types_at;
        while at < types_at + types_length {
            let head = btf.head(at).ok_or(BtfError::Malformed("a type is cut short"))?;
            let members = head.members as usize;
            let body = match head.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * members,
                kind::ENUM | kind::FUNC_PROTO => 8 * members,
                _ => 0,
            };
            btf.types.push(at);
            at = head.body + body;
        }
        Ok(btf)
    }

    /// The offset in bytes of a member, as `sk_buff.dev` or `sock.__sk_common.skc_net.net`; members of anonymous
    /// structures and unions are found as in C. For a bit-field: of the byte that it begins in.
    pub fn offset(&self, path: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember(path.to_owned());
        let mut names = path.split('.');
        let name = names.next().ok_or_else(missing)?;
        let mut id = self.find(name, &[kind::STRUCT]).ok_or_else(missing)?;
        let mut bits = 0;
        for name in names {
            let (offset, member) = self.member(id, name, 0).ok_or_else(missing)?;
            bits += offset;
            id = member;
        }
        Ok(bits / 8)
    }

    /// The names and values of an enumeration; empty when there is none.
    pub fn enum_values(&self, name: &str) -> Vec<(&str, u32)> {
        let Some(head) = self.find(name, &[kind::ENUM, kind::ENUM64]).and_then(|id| self.by_id(id)) else {
            return Vec::new();
        };
        let step = if head.kind == kind::ENUM { 8 } else { 12 };
        (0..head.members as usize)
            .filter_map(|index| {
                let at = head.body + index * step;
                Some((self.string(word(&self.bytes, at)?)?, word(&self.bytes, at + 4)?))
            })
            .collect()
    }

    /// The number of arguments of a tracepoint: of `btf_trace_NAME` without the data pointer. None when there is no such
    /// tracepoint.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<u32> {
        let mut id = self.find(&format!("btf_trace_{tracepoint}"), &[kind::TYPEDEF])?;
        for _ in 0..DEPTH {
            let head = self.by_id(id)?;
            match head.kind {
                kind::FUNC_PROTO => return head.members.checked_sub(1),
                kind::TYPEDEF | kind::POINTER | kind::CONST | kind::VOLATILE => id = head.refers_to,
                _ => return None,
            }
        }
        None
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Option<u32> {
        let index = self.types.iter().position(|at| {
            self.head(*at).is_some_and(|head| kinds.contains(&head.kind) && self.string(head.name) == Some(name))
        })?;
        u32::try_from(index + 1).ok()
    }

    /// Offset in bits and type of a member, through anonymous members.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > DEPTH {
            return None;
        }
        let head = self.by_id(self.resolve(id)?)?;
        if head.kind != kind::STRUCT && head.kind != kind::UNION {
            return None;
        }
        for index in 0..head.members as usize {
            let at = head.body + index * 12;
            let (name_offset, member, offset) =
                (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            let bits = if head.kind_flag { offset & 0x00ff_ffff } else { offset };
            match self.string(name_offset)? {
                "" => {
                    if let Some((inner, found)) = self.member(member, name, depth + 1) {
                        return Some((bits + inner, found));
                    }
                }
                this if this == name => return Some((bits, member)),
                _ => {}
            }
        }
        None
    }

    /// Looks through typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let head = self.by_id(id)?;
            match head.kind {
                kind::TYPEDEF | kind::CONST | kind::VOLATILE => id = head.refers_to,
                _ => return Some(id),
            }
        }
        None
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        self.head(*self.types.get((id as usize).checked_sub(1)?)?)
    }

    fn head(&self, at: usize) -> Option<Type> {
        let info = word(&self.bytes, at + 4)?;
        Some(Type {
            name: word(&self.bytes, at)?,
            kind: info >> 24 & 0x1f,
            members: info & 0xffff,
            kind_flag: info >> 31 == 1,
            refers_to: word(&self.bytes, at + 8)?,
            body: at + 12,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let own = offset.checked_sub(self.before)? as usize;
        let from = self.bytes.get(self.strings.checked_add(own)?..)?;
        let length = from.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&from[..length]).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_what_the_probes_need() {
        let Ok(btf) = Btf::read() else {
            println!("SKIP: this kernel has no BTF");
            return;
        };
        // From the C of every kernel so far: the first member is the list pointer, the device follows two pointers.
        assert_eq!(btf.offset("sk_buff.next").unwrap(), 0);
        assert_eq!(btf.offset("sk_buff.dev").unwrap(), 16);
        assert_eq!(btf.offset("sock.__sk_common.skc_family").unwrap(), 16);
        assert!(btf.offset("sk_buff.no_such_member").is_err());
        assert!(btf.tracepoint_arguments("kfree_skb").unwrap() >= 2);
        assert_eq!(btf.tracepoint_arguments("no_such_tracepoint"), None);
    }

    #[test]
    fn cut_and_foreign_bytes_are_refused_and_never_panic() {
        assert!(Btf::parse(Vec::new()).is_err());
        assert!(Btf::parse(b"\x7fELF not BTF at all, but long enough for a header".to_vec()).is_err());
        let Ok(whole) = std::fs::read(VMLINUX) else { return };
        for cut in [3, 10, 23, 24, 40, 1_000, whole.len() / 2] {
            if let Ok(btf) = Btf::parse(whole[..cut.min(whole.len())].to_vec()) {
                assert!(btf.offset("sk_buff.dev").is_ok() || btf.offset("sk_buff.dev").is_err());
            }
        }
    }
}
