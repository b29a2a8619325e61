//! COPY … TO STDOUT: rows as text, CSV or binary, one message a row, as PostgreSQL sends them.

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};

use super::aside::{aside, has_long_rows};
use super::connection::Connection;
use super::copy::SIGNATURE;
use super::encode::{Columns, Format, RowEncoder};
use super::failure::{End, Failure};
use super::guard::Guard;
use super::query::ROWS_PER_PAUSE;
use crate::error::{Error, from_datafusion};
use crate::session::{CopyOut, Session};
use crate::statement::CopyFormat;
use futures::StreamExt;

impl Connection {
    /// Sends the rows of a COPY; answers how many.
    pub async fn copy_out(
        &mut self,
        session: &Session,
        mut copy: CopyOut,
        guard: &Guard,
    ) -> Result<u64, Failure> {
        let is_binary = copy.format == CopyFormat::Binary;
        let width = copy.rows.schema.fields().len();
        let format = i16::from(is_binary);
        let response = CopyOutResponse::new(format as i8, width as i16, vec![format; width]);
        self.put(PgWireBackendMessage::CopyOutResponse(response))?;
        let formats = vec![
            if is_binary {
                Format::Binary
            } else {
                Format::Text
            };
            width
        ];
        let encoder = RowEncoder::new(
            &copy.rows.schema,
            &formats,
            session.time_zone(),
            session.row_bytes_max(),
        );
        let mut value = BytesMut::new();
        let mut head = BytesMut::new();
        if is_binary {
            // In one message with the first row, as PostgreSQL has it and some clients want it.
            head.put_slice(SIGNATURE);
            head.put_i32(0);
            head.put_i32(0);
        } else if let CopyFormat::Csv {
            delimiter,
            quote,
            escape,
            null,
            header: true,
        } = &copy.format
        {
            let names: Vec<_> = copy
                .rows
                .schema
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect();
            let csv = Csv {
                delimiter: *delimiter,
                quote: *quote,
                escape: *escape,
                null,
            };
            let written = message(self.framed.write_buffer_mut(), |out| {
                for (i, name) in names.iter().enumerate() {
                    if i > 0 {
                        out.put_u8(csv.delimiter);
                    }
                    csv.value(out, name.as_bytes(), false, names.len() == 1);
                }
                out.put_u8(b'\n');
                Ok(())
            });
            written.map_err(End::Fatal)?;
        }
        let mut count = 0u64;
        loop {
            let batch = guard
                .run(self.framed.get_ref().socket(), copy.rows.stream.next())
                .await?;
            let Some(batch) = batch.transpose().map_err(from_datafusion)? else {
                break;
            };
            let is_long = has_long_rows(&batch);
            let columns = aside(is_long, || encoder.columns(&batch))?;
            for row in 0..batch.num_rows() {
                let out = self.framed.write_buffer_mut();
                aside(is_long, || match &copy.format {
                    CopyFormat::Binary => message(out, |out| {
                        out.extend_from_slice(&head.split());
                        columns.values(row, out)
                    }),
                    CopyFormat::Csv {
                        delimiter,
                        quote,
                        escape,
                        null,
                        ..
                    } => {
                        let csv = Csv {
                            delimiter: *delimiter,
                            quote: *quote,
                            escape: *escape,
                            null,
                        };
                        message(out, |out| {
                            csv.row(out, &columns, row, &copy.quoted, &mut value)
                        })
                    }
                    CopyFormat::Text { delimiter, null } => message(out, |out| {
                        text_row(out, &columns, row, *delimiter, null, &mut value)
                    }),
                    CopyFormat::Parquet => Err(Error::unsupported("COPY of Parquet to the client")),
                })?;
                count += 1;
                if count.is_multiple_of(ROWS_PER_PAUSE) {
                    tokio::task::yield_now().await;
                }
                self.flush_under(guard).await?;
            }
        }
        if is_binary {
            message(self.framed.write_buffer_mut(), |out| {
                out.extend_from_slice(&head);
                out.put_i16(-1);
                Ok(())
            })
            .map_err(End::Fatal)?;
        }
        self.put(PgWireBackendMessage::CopyDone(CopyDone::new()))?;
        Ok(count)
    }
}

/// A CopyData message around what is written; on an error nothing of it stays.
fn message(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = out.len();
    out.put_u8(b'd');
    out.put_i32(0);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let length = i32::try_from(out.len() - start - 1)
        .map_err(|_| Error::internal("a row of COPY is longer than 2 GiB"))?;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn text_row(
    out: &mut BytesMut,
    columns: &Columns,
    row: usize,
    delimiter: u8,
    null: &str,
    value: &mut BytesMut,
) -> Result<(), Error> {
    let start = out.len();
    for column in 0..columns.width() {
        columns.check(out.len() - start)?;
        if column > 0 {
            out.put_u8(delimiter);
        }
        value.clear();
        if !columns.text(column, row, value)? {
            out.put_slice(null.as_bytes());
            continue;
        }
        for byte in value.iter().copied() {
            let escaped = match byte {
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                8 => b'b',
                12 => b'f',
                11 => b'v',
                other if other == delimiter => other,
                other => {
                    out.put_u8(other);
                    continue;
                }
            };
            out.put_slice(&[b'\\', escaped]);
        }
    }
    out.put_u8(b'\n');
    Ok(())
}

struct Csv<'a> {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: &'a str,
}

impl Csv<'_> {
    fn row(
        &self,
        out: &mut BytesMut,
        columns: &Columns,
        row: usize,
        quoted: &[bool],
        value: &mut BytesMut,
    ) -> Result<(), Error> {
        let start = out.len();
        for column in 0..columns.width() {
            columns.check(out.len() - start)?;
            if column > 0 {
                out.put_u8(self.delimiter);
            }
            value.clear();
            if columns.text(column, row, value)? {
                let forced = quoted.get(column).copied().unwrap_or(false);
                self.value(out, value, forced, columns.width() == 1);
            } else {
                out.put_slice(self.null.as_bytes());
            }
        }
        out.put_u8(b'\n');
        Ok(())
    }

    /// A value, in quotes where it must be: also where it would read as NULL, or alone on its line
    /// as the end of the data.
    fn value(&self, out: &mut BytesMut, value: &[u8], forced: bool, alone: bool) {
        let special =
            |b: &u8| *b == self.delimiter || *b == self.quote || matches!(*b, b'\n' | b'\r');
        let must = forced
            || value == self.null.as_bytes()
            || alone && value == b"\\."
            || value.iter().any(special);
        if !must {
            return out.put_slice(value);
        }
        out.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.put_u8(self.escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_would_read_as_something_else() {
        let csv = Csv {
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null: "",
        };
        for (value, forced, written) in [
            ("plain", false, "plain"),
            ("", false, "\"\""),
            ("a,b", false, "\"a,b\""),
            ("say \"x\"", false, "\"say \"\"x\"\"\""),
            ("two\nlines", false, "\"two\nlines\""),
            ("7", true, "\"7\""),
            ("\\.", false, "\"\\.\""),
        ] {
            let mut out = BytesMut::new();
            csv.value(&mut out, value.as_bytes(), forced, true);
            assert_eq!(std::str::from_utf8(&out), Ok(written), "{value}");
        }
    }
}
