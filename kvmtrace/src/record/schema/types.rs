//! A description of the types within `Event` as a recording's writer had them: names of fields and variants, and how
//! each value is encoded. A recording carries its writer's, so its events can be read by a version whose types differ.
//!
//! The form is that of the serde-reflection crate, which derives ours from the types; docs/recording-format.md tells it.

use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Our own types.
pub(crate) const OURS: &str = include_str!("events.json");
/// What recordings of schema 1, which carry no description, hold.
const SCHEMA_1: &str = include_str!("schema-1.json");
/// A description in a file is read up to this size.
pub(crate) const LARGEST: usize = 256 << 10;
/// The type that a batch consists of.
pub(super) const ROOT: &str = "Event";

/// How a value is encoded.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Format {
    TypeName(String),
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Option(Box<Format>),
    Seq(Box<Format>),
    #[serde(rename_all = "UPPERCASE")]
    Map {
        key: Box<Format>,
        value: Box<Format>,
    },
    Tuple(Vec<Format>),
    #[serde(rename_all = "UPPERCASE")]
    TupleArray {
        content: Box<Format>,
        size: u32,
    },
}

/// A type with a name.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Container {
    UnitStruct,
    NewTypeStruct(Box<Format>),
    TupleStruct(Vec<Format>),
    Struct(Vec<Named<Format>>),
    Enum(BTreeMap<u32, Named<Variant>>),
}

/// What a variant of an enum holds.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Variant {
    Unit,
    NewType(Box<Format>),
    Tuple(Vec<Format>),
    Struct(Vec<Named<Format>>),
}

/// A field or variant: an object with one key.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, T>", bound = "T: Deserialize<'de>")]
pub(super) struct Named<T> {
    pub(super) name: String,
    pub(super) value: T,
}

impl<T> TryFrom<BTreeMap<String, T>> for Named<T> {
    type Error = &'static str;

    fn try_from(mut object: BTreeMap<String, T>) -> Result<Self, Self::Error> {
        match (object.pop_first(), object.is_empty()) {
            (Some((name, value)), true) => Ok(Self { name, value }),
            _ => Err("a field or variant is an object with one key"),
        }
    }
}

/// All types of a batch by name.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Types(HashMap<String, Container>);

impl Types {
    /// Reads a description; `None` when it is none.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let types: Self = serde_json::from_slice(json).ok()?;
        types.0.contains_key(ROOT).then_some(types)
    }

    /// A description that this version has of itself: of recordings without one, or whose description is damaged.
    pub(crate) fn known(id: u32) -> Option<Self> {
        [SCHEMA_1].iter().find(|json| checksum(json.as_bytes()) == id).and_then(|json| Self::parse(json.as_bytes()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Container> {
        self.0.get(name)
    }
}

/// What a batch names the description of its types by: CRC-32 of the JSON.
pub(crate) fn checksum(json: &[u8]) -> u32 {
    crc32fast::hash(json)
}

/// Checksum of the description of schema 1.
pub(super) fn schema_1() -> u32 {
    checksum(SCHEMA_1.as_bytes())
}
