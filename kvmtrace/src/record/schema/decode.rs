//! Decodes postcard by a description of what is in it: fields and variants are given to serde by name, so that our
//! types may have more or fewer of them, or in another order, than the writer's had.
//!
//! Bytes and description are untrusted: nesting is bounded, and so is the work for each byte, so that a description of
//! much that takes no bytes can't keep us busy.

use super::types::{Container, Format, Named, ROOT, Types, Variant};
use serde::Deserialize;
use serde::de::value::{Error, MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer, UnitDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// Values within values; ours are less than 30 deep.
const DEEPEST: u32 = 100;
/// Values that an event may consist of, beside those that its bytes pay for.
const FREE_VALUES: usize = 64;
/// Values that a byte pays for: ours are wrapped in four types at most.
const VALUES_PER_BYTE: usize = 16;

/// Values that an event may consist of: the largest host has some hundred thousand. A value takes up to 400 bytes of
/// memory, all copies of it counted, however few bytes of file.
const MOST_VALUES: usize = 1 << 20;

/// An event of so few bytes has no more values than it may have.
pub(super) const SURELY_FEW: usize = MOST_VALUES / 2;

/// Decodes one value of the root type; also tells how many bytes are left after it.
pub(super) fn take<'de, T: Deserialize<'de>>(types: &Types, bytes: &'de [u8]) -> Result<(T, usize), Error> {
    let root = types.get(ROOT).ok_or_else(|| Error::custom("no root type"))?;
    let mut decoder = Decoder { types, rest: bytes, length: bytes.len(), depth: 0, values: 0 };
    let value = T::deserialize(Value { decoder: &mut decoder, what: What::Container(root) })?;
    Ok((value, decoder.rest.len()))
}

struct Decoder<'t, 'de> {
    types: &'t Types,
    rest: &'de [u8],
    /// Length of `rest` in the beginning.
    length: usize,
    depth: u32,
    /// Decoded so far.
    values: usize,
}

impl<'t, 'de> Decoder<'t, 'de> {
    fn take(&mut self, length: u64) -> Result<&'de [u8], Error> {
        let cut = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = cut.ok_or_else(|| Error::custom("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.take(1)?.first().copied().ok_or_else(|| Error::custom("cut short"))
    }

    /// LEB128.
    fn varint(&mut self) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::custom("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, Error> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::custom("neither true nor false")),
        }
    }

    /// A list's length: each item takes a byte at least.
    fn length(&mut self) -> Result<usize, Error> {
        let length = self.varint()?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.rest.len())
            .ok_or_else(|| Error::custom("a list that is longer than its bytes"))
    }

    fn text(&mut self) -> Result<&'de str, Error> {
        let length = self.varint()?;
        std::str::from_utf8(self.take(length)?).map_err(Error::custom)
    }

    fn value<'a>(&'a mut self, format: &'t Format) -> Value<'a, 't, 'de> {
        Value { decoder: self, what: What::Format(format) }
    }

    /// Values without names, one after the other; those that the visitor leaves are passed over.
    fn sequence<I, V>(&mut self, formats: I, visitor: V) -> Result<V::Value, Error>
    where
        I: Iterator<Item = &'t Format>,
        V: Visitor<'de>,
    {
        let mut items = Items { decoder: self, formats };
        let value = visitor.visit_seq(&mut items)?;
        items.pass_over()?;
        Ok(value)
    }

    fn fields<'a>(&'a mut self, fields: &'t [Named<Format>]) -> Fields<'a, 't, 'de> {
        Fields { decoder: self, left: fields.iter(), value: None }
    }
}

/// What a value is: by its format, or as the root.
#[derive(Clone, Copy)]
enum What<'t> {
    Format(&'t Format),
    Container(&'t Container),
}

/// A value that is to be decoded.
struct Value<'a, 't, 'de> {
    decoder: &'a mut Decoder<'t, 'de>,
    what: What<'t>,
}

impl<'de> Value<'_, '_, 'de> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { decoder, what } = self;
        decoder.depth += 1;
        if decoder.depth > DEEPEST {
            return Err(Error::custom("nested too deeply"));
        }
        decoder.values += 1;
        let used = decoder.length - decoder.rest.len();
        if decoder.values > MOST_VALUES.min(FREE_VALUES + used * VALUES_PER_BYTE) {
            return Err(Error::custom("too many values, or values that take no bytes"));
        }
        let value = match what {
            What::Format(format) => visit_format(decoder, format, visitor),
            What::Container(container) => visit_container(decoder, container, visitor),
        };
        decoder.depth -= 1;
        value
    }
}

fn visit_format<'t, 'de, V: Visitor<'de>>(
    decoder: &mut Decoder<'t, 'de>,
    format: &'t Format,
    visitor: V,
) -> Result<V::Value, Error> {
    match format {
        Format::TypeName(name) => {
            let container = decoder.types.get(name).ok_or_else(|| Error::custom("a type that is not described"))?;
            visit_container(decoder, container, visitor)
        }
        Format::Unit => visitor.visit_unit(),
        Format::Bool => visitor.visit_bool(decoder.flag()?),
        Format::U8 => visitor.visit_u8(decoder.byte()?),
        Format::I8 => visitor.visit_i8(decoder.byte()?.cast_signed()),
        Format::U16 | Format::U32 | Format::U64 => visitor.visit_u64(decoder.varint()?),
        Format::I16 | Format::I32 | Format::I64 => visitor.visit_i64(decoder.zigzag()?),
        Format::F32 => {
            let bytes = decoder.take(4)?.first_chunk().copied().unwrap_or_default();
            visitor.visit_f32(f32::from_le_bytes(bytes))
        }
        Format::F64 => {
            let bytes = decoder.take(8)?.first_chunk().copied().unwrap_or_default();
            visitor.visit_f64(f64::from_le_bytes(bytes))
        }
        Format::Char | Format::Str => visitor.visit_borrowed_str(decoder.text()?),
        Format::Bytes => {
            let length = decoder.varint()?;
            visitor.visit_borrowed_bytes(decoder.take(length)?)
        }
        Format::Option(inner) => {
            if decoder.flag()? {
                visitor.visit_some(decoder.value(inner))
            } else {
                visitor.visit_none()
            }
        }
        Format::Seq(inner) => {
            let length = decoder.length()?;
            decoder.sequence(std::iter::repeat_n(&**inner, length), visitor)
        }
        Format::Map { key, value } => {
            let left = decoder.length()?;
            visitor.visit_map(Pairs { decoder, key, value, left })
        }
        Format::Tuple(formats) => decoder.sequence(formats.iter(), visitor),
        Format::TupleArray { content, size } => {
            let length = *size as usize;
            if length > decoder.rest.len() {
                return Err(Error::custom("cut short"));
            }
            decoder.sequence(std::iter::repeat_n(&**content, length), visitor)
        }
    }
}

fn visit_container<'t, 'de, V: Visitor<'de>>(
    decoder: &mut Decoder<'t, 'de>,
    container: &'t Container,
    visitor: V,
) -> Result<V::Value, Error> {
    match container {
        Container::UnitStruct => visitor.visit_unit(),
        Container::NewTypeStruct(inner) => visitor.visit_newtype_struct(decoder.value(inner)),
        Container::TupleStruct(formats) => decoder.sequence(formats.iter(), visitor),
        Container::Struct(fields) => visitor.visit_map(decoder.fields(fields)),
        Container::Enum(variants) => {
            let number = u32::try_from(decoder.varint()?).map_err(Error::custom)?;
            let variant = variants.get(&number).ok_or_else(|| Error::custom("a variant that is not described"))?;
            visitor.visit_enum(Choice { decoder, variant })
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_, '_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor)
    }

    /// What was always there may have become optional.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.what {
            What::Format(Format::Option(_)) => self.visit(visitor),
            What::Format(_) | What::Container(_) => visitor.visit_some(self),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Values without names, one after the other.
struct Items<'a, 't, 'de, I> {
    decoder: &'a mut Decoder<'t, 'de>,
    formats: I,
}

impl<'t, I: Iterator<Item = &'t Format>> Items<'_, 't, '_, I> {
    /// What a newer writer's tuple has more than ours.
    fn pass_over(&mut self) -> Result<(), Error> {
        while self.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

impl<'t, 'de, I: Iterator<Item = &'t Format>> SeqAccess<'de> for Items<'_, 't, 'de, I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.formats.next().map(|format| seed.deserialize(self.decoder.value(format))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        self.formats.size_hint().1
    }
}

/// The pairs of a map.
struct Pairs<'a, 't, 'de> {
    decoder: &'a mut Decoder<'t, 'de>,
    key: &'t Format,
    value: &'t Format,
    left: usize,
}

impl<'de> MapAccess<'de> for Pairs<'_, '_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.decoder.value(self.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.decoder.value(self.value))
    }
}

/// The fields of a struct, by their names.
struct Fields<'a, 't, 'de> {
    decoder: &'a mut Decoder<'t, 'de>,
    left: std::slice::Iter<'t, Named<Format>>,
    value: Option<&'t Format>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.left.next() else { return Ok(None) };
        self.value = Some(&field.value);
        seed.deserialize(named(&field.name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let format = self.value.take().ok_or_else(|| Error::custom("a value without a name"))?;
        seed.deserialize(self.decoder.value(format))
    }
}

fn named(name: &str) -> StrDeserializer<'_, Error> {
    name.into_deserializer()
}

/// One variant of an enum, by its name.
struct Choice<'a, 't, 'de> {
    decoder: &'a mut Decoder<'t, 'de>,
    variant: &'t Named<Variant>,
}

impl<'de> EnumAccess<'de> for Choice<'_, '_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(named(&self.variant.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_, '_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.newtype_variant_seed(std::marker::PhantomData::<IgnoredAny>).map(|_| ())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        match &self.variant.value {
            Variant::Unit => seed.deserialize(UnitDeserializer::new()),
            Variant::NewType(inner) => seed.deserialize(self.decoder.value(inner)),
            Variant::Tuple(formats) => {
                let mut items = Items { decoder: self.decoder, formats: formats.iter() };
                let value = seed.deserialize(SeqAccessDeserializer::new(&mut items))?;
                items.pass_over()?;
                Ok(value)
            }
            Variant::Struct(fields) => seed.deserialize(MapAccessDeserializer::new(self.decoder.fields(fields))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        match &self.variant.value {
            Variant::Tuple(formats) => self.decoder.sequence(formats.iter(), visitor),
            Variant::Unit | Variant::NewType(_) | Variant::Struct(_) => Err(Error::custom("another kind of variant")),
        }
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        match &self.variant.value {
            Variant::Struct(fields) => visitor.visit_map(self.decoder.fields(fields)),
            Variant::Unit | Variant::NewType(_) | Variant::Tuple(_) => Err(Error::custom("another kind of variant")),
        }
    }
}
