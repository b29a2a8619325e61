//! How the files of a table are compressed.

use super::TableSchema;
use crate::error::{Error, ErrorKind};

/// A codec of Parquet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Lz4,
    Snappy,
    Zlib,
    /// With a level from 1 to 22.
    Zstd(i32),
}

/// The level where none is given.
const ZSTD_LEVEL: i32 = 1;

impl Default for Codec {
    fn default() -> Self {
        Self::Zstd(ZSTD_LEVEL)
    }
}

impl TableSchema {
    /// `compression` of the properties, where given: `LZ4`, `SNAPPY`, `ZLIB`, `ZSTD` or
    /// `ZSTD(level)`. 22023 for another.
    pub fn compression(&self) -> Result<Option<Codec>, Error> {
        let Some(text) = self.properties.get("compression") else {
            return Ok(None);
        };
        let name = text.trim().to_ascii_uppercase();
        let level = |name: &str| {
            let level = name.strip_prefix("ZSTD(")?.strip_suffix(')')?;
            level
                .trim()
                .parse()
                .ok()
                .filter(|level| (1..=22).contains(level))
        };
        let codec = match name.as_str() {
            "LZ4" => Some(Codec::Lz4),
            "SNAPPY" => Some(Codec::Snappy),
            "ZLIB" => Some(Codec::Zlib),
            "ZSTD" => Some(Codec::Zstd(ZSTD_LEVEL)),
            other => level(other).map(Codec::Zstd),
        };
        codec.map(Some).ok_or_else(|| {
            let message = format!("unknown compression type: {text}");
            Error::new(ErrorKind::InvalidParameter, message)
                .hint("\"compression\" is LZ4, SNAPPY, ZLIB, ZSTD or ZSTD(1) to ZSTD(22).")
        })
    }
}
