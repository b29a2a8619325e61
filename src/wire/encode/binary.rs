//! Values in PostgreSQL's binary formats.

use bytes::{BufMut, BytesMut};

use super::{Column, EPOCH_DAYS, EPOCH_MICROS};
use crate::error::{Error, ErrorKind};
use crate::session::text::numeric_binary;

impl Column {
    pub(super) fn binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Bool(a) => out.put_u8(a.value(row).into()),
            Self::Int2(a) => out.put_i16(a.value(row)),
            Self::Int4(a) => out.put_i32(a.value(row)),
            Self::Int8(a) => out.put_i64(a.value(row)),
            Self::Oid(a) => out.put_u32(a.value(row)),
            Self::Float4(a) => out.put_f32(a.value(row)),
            Self::Float8(a) => out.put_f64(a.value(row)),
            Self::Numeric(a, scale) => numeric_binary(out, a.value(row), *scale),
            Self::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Self::Reg(a, _) => out.put_u32(a.value(row)),
            Self::Inet(a) => inet(out, a.value(row))?,
            Self::Digits(a) => digits(out, a.value(row))?,
            Self::Bytea(a) => out.put_slice(a.value(row)),
            Self::Date(a) => out.put_i32(
                a.value(row)
                    .checked_sub(EPOCH_DAYS)
                    .ok_or_else(out_of_range)?,
            ),
            Self::Timestamp(a, _) => out.put_i64(
                a.value(row)
                    .checked_sub(EPOCH_MICROS)
                    .ok_or_else(out_of_range)?,
            ),
            Self::Time(a) => out.put_i64(a.value(row)),
            Self::Interval(a) => {
                let v = a.value(row);
                out.put_i64(v.nanoseconds / 1000);
                out.put_i32(v.days);
                out.put_i32(v.months);
            }
            Self::Record(fields, _) => {
                out.put_i32(i32::try_from(fields.len()).map_err(|_| out_of_range())?);
                for (field, oid) in fields {
                    out.put_u32(*oid);
                    if field.is_null(row) {
                        out.put_i32(-1);
                    } else {
                        with_length(out, |out| field.binary(row, out))?;
                    }
                }
            }
            Self::List {
                offsets,
                items,
                oid,
                is_vector,
                ..
            } => {
                let range = offsets[row]..offsets[row + 1];
                if range.is_empty() && !is_vector {
                    out.put_i32(0);
                    out.put_i32(0);
                    out.put_u32(*oid);
                    return Ok(());
                }
                if matches!(**items, Self::List { .. }) {
                    return Err(Error::unsupported("an array of arrays in binary format"));
                }
                out.put_i32(1);
                out.put_i32(range.clone().any(|i| items.is_null(i)).into());
                out.put_u32(*oid);
                out.put_i32(i32::try_from(range.len()).map_err(|_| out_of_range())?);
                out.put_i32(i32::from(!is_vector));
                for i in range {
                    if items.is_null(i) {
                        out.put_i32(-1);
                    } else {
                        with_length(out, |out| items.binary(i, out))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// PostgreSQL's binary form of a number in decimal digits.
fn digits(out: &mut BytesMut, text: &str) -> Result<(), Error> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let value: i128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| out_of_range())?;
    numeric_binary(out, value, fraction.len());
    Ok(())
}

/// PostgreSQL's binary form of an address: family, bits, not a network, length, bytes.
fn inet(out: &mut BytesMut, text: &str) -> Result<(), Error> {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(addr)) => {
            out.put_slice(&[2, 32, 0, 4]);
            out.put_slice(&addr.octets());
        }
        Ok(std::net::IpAddr::V6(addr)) => {
            out.put_slice(&[3, 128, 0, 16]);
            out.put_slice(&addr.octets());
        }
        Err(_) => return Err(Error::internal(format!("\"{text}\" is no address"))),
    }
    Ok(())
}

fn out_of_range() -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        "value out of range for its PostgreSQL type",
    )
}

/// Writes a value after its length.
pub(super) fn with_length(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
) -> Result<(), Error> {
    let at = out.len();
    out.put_i32(0);
    write(out)?;
    let length = i32::try_from(out.len() - at - 4)
        .map_err(|_| Error::new(ErrorKind::LimitExceeded, "a value is longer than 2 GiB"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
