//! How a message is put together again: glue text, parts, and other messages, in order (`docs/formats/record.md`).

use super::{base64::Lines, format::pack::ChunkId};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// A chunk by name, with its octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef(pub Hex<32>, pub u32);

/// Octets written as hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl ChunkRef {
    /// The chunk's name.
    #[must_use]
    pub fn id(&self) -> &ChunkId {
        &self.0.0
    }
}

impl<const N: usize> Default for Hex<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [[0; 2]; N];
        HEXLOWER.encode_mut(&self.0, text.as_flattened_mut());
        serializer.serialize_str(std::str::from_utf8(text.as_flattened()).map_err(ser::Error::custom)?)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HexVisitor)
    }
}

struct HexVisitor<const N: usize>;

impl<const N: usize> de::Visitor<'_> for HexVisitor<N> {
    type Value = Hex<N>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hex digits", 2 * N)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Hex<N>, E> {
        let mut octets = [0; N];
        if text.len() != 2 * N {
            return Err(E::custom("wrong number of hex digits"));
        }
        HEXLOWER.decode_mut(text.as_bytes(), &mut octets).map_err(|error| E::custom(error.error))?;
        Ok(Hex(octets))
    }
}

/// A part that is stored on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its content, in order.
    pub chunks: Vec<ChunkRef>,
    /// How its content was encoded in the message; kept as it stood when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<Lines>,
}

/// One step of putting together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// The next octets of the glue.
    #[serde(rename = "g")]
    Glue(u64),
    /// A part, by its place in [`Recipe::parts`].
    #[serde(rename = "p")]
    Part(u32),
    /// A whole other message, by the first 16 octets of its keyed name (its id).
    #[serde(rename = "m")]
    Message(Hex<16>),
}

/// How to put a message together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recipe {
    /// The glue: everything between the parts, one after the other.
    pub glue: Vec<ChunkRef>,
    /// The parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The order.
    pub pieces: Vec<Piece>,
}

impl Recipe {
    /// Appends glue, joining it with glue before it.
    pub fn glue(&mut self, octets: u64) {
        match self.pieces.last_mut() {
            _ if octets == 0 => {}
            Some(Piece::Glue(count)) => *count += octets,
            _ => self.pieces.push(Piece::Glue(octets)),
        }
    }

    /// Every chunk it needs itself, repeated ones too.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.glue.iter().chain(self.parts.iter().flat_map(|part| &part.chunks))
    }
}
