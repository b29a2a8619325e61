//! COPY … FROM STDIN: text, CSV and binary, decoded as the data arrives, whatever the borders of
//! its messages.

use bytes::{Buf, BytesMut};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use pgwire::messages::copy::CopyInResponse;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::connection::Connection;
use super::failure::{End, Failure};
use super::guard::Guard;
use super::params::{decode_binary, decode_text, scalar_batch};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::CopyIn;
use crate::statement::CopyFormat;

/// Rows and bytes of one batch.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 4 << 20;
/// The longest record: one that never ends would be held in memory as a whole.
const RECORD_BYTES_MAX: usize = 16 << 20;
pub(super) const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

impl Connection {
    /// Takes the rows of a COPY; answers how many. On a failure none of them is written.
    pub async fn copy_in(&mut self, copy: CopyIn, guard: &Guard) -> Result<u64, Failure> {
        let is_binary = copy.format == CopyFormat::Binary;
        let columns = copy.schema.fields().len();
        let format = i8::from(is_binary);
        let response = CopyInResponse::new(format, columns as i16, vec![format.into(); columns]);
        self.put(PgWireBackendMessage::CopyInResponse(response))?;
        self.flush().await?;
        let mut decoder = Decoder::new(&copy);
        match self.take_rows(&copy, &mut decoder, guard).await {
            Ok(true) => Ok(copy.finish().await?),
            // The writer says why it has stopped.
            Ok(false) => Err(copy
                .finish()
                .await
                .err()
                .unwrap_or_else(|| Error::internal("COPY's writer went away"))
                .into()),
            Err(failure) => {
                copy.abandon().await;
                Err(failure)
            }
        }
    }

    /// Hands rows to the writer until the client says that there are no more; answers whether the
    /// writer has taken them all.
    async fn take_rows(
        &mut self,
        copy: &CopyIn,
        decoder: &mut Decoder,
        guard: &Guard,
    ) -> Result<bool, Failure> {
        loop {
            let message = tokio::select! {
                message = self.next() => message?,
                error = guard.stopped() => return Err(error.into()),
            };
            let (batches, is_last) = match message {
                PgWireFrontendMessage::CopyData(data) => (decoder.feed(&data.data)?, false),
                PgWireFrontendMessage::CopyDone(_) => (decoder.finish()?, true),
                PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => continue,
                PgWireFrontendMessage::CopyFail(fail) => {
                    let message = format!("COPY from stdin failed: {}", fail.message);
                    return Err(Error::new(ErrorKind::Cancelled, message).into());
                }
                other => {
                    let message = format!("unexpected message during COPY: {other:?}");
                    return Err(End::Fatal(Error::new(ErrorKind::Protocol, message)).into());
                }
            };
            for batch in batches {
                let is_taken = tokio::select! {
                    is_taken = copy.send(batch) => is_taken,
                    error = guard.stopped() => return Err(error.into()),
                };
                if !is_taken {
                    return Ok(false);
                }
            }
            if is_last {
                return Ok(true);
            }
        }
    }
}

struct Decoder {
    schema: SchemaRef,
    format: CopyFormat,
    pending: BytesMut,
    rows: Vec<Vec<Option<String>>>,
    scalars: Vec<Vec<ScalarValue>>,
    bytes: usize,
    line: u64,
    /// The header line of CSV is still to come, or the signature of the binary format.
    at_start: bool,
    /// `\.` or the binary trailer was seen.
    at_end: bool,
    /// How far the pending bytes have been looked at, for records that come in many messages.
    scanned: usize,
    /// What has been read of a record of CSV so far.
    record: CsvRecord,
}

/// A record of CSV, up to where it has been read.
#[derive(Default)]
struct CsvRecord {
    /// Values, and whether they stood in quotes.
    values: Vec<(Vec<u8>, bool)>,
    value: Vec<u8>,
    was_quoted: bool,
    in_quotes: bool,
}

fn bad(message: impl Into<String>, line: u64) -> Error {
    Error::new(ErrorKind::BadCopy, message).detail(format!("COPY line {line}"))
}

impl Decoder {
    fn new(copy: &CopyIn) -> Self {
        Self::of(copy.schema.clone(), copy.format.clone())
    }

    fn of(schema: SchemaRef, format: CopyFormat) -> Self {
        let width = schema.fields().len();
        Self {
            schema,
            format,
            pending: BytesMut::new(),
            rows: Vec::new(),
            scalars: vec![Vec::new(); width],
            bytes: 0,
            line: 0,
            at_start: true,
            at_end: false,
            scanned: 0,
            record: CsvRecord::default(),
        }
    }

    fn feed(&mut self, data: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        self.pending.extend_from_slice(data);
        self.decode(false)
    }

    fn finish(&mut self) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = self.decode(true)?;
        batches.extend(self.batch()?);
        Ok(batches)
    }

    fn decode(&mut self, is_last: bool) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = Vec::new();
        loop {
            if self.at_end {
                self.pending.clear();
                return Ok(batches);
            }
            let more = match self.format.clone() {
                CopyFormat::Text { delimiter, null } => {
                    self.text_line(delimiter, &null, is_last)?
                }
                CopyFormat::Csv {
                    delimiter,
                    quote,
                    escape,
                    null,
                    header,
                } => self.csv_record(delimiter, quote, escape, &null, header, is_last)?,
                CopyFormat::Binary => self.binary_row(is_last)?,
                CopyFormat::Parquet => {
                    return Err(Error::unsupported("COPY FROM STDIN of Parquet"));
                }
            };
            if self
                .rows
                .len()
                .max(self.scalars.first().map_or(0, Vec::len))
                >= BATCH_ROWS
                || self.bytes >= BATCH_BYTES
            {
                batches.extend(self.batch()?);
            }
            if !more {
                if self.pending.len() > RECORD_BYTES_MAX {
                    let message = format!("a record is longer than {RECORD_BYTES_MAX} bytes");
                    return Err(Error::new(ErrorKind::LimitExceeded, message)
                        .detail(format!("COPY line {}", self.line + 1)));
                }
                return Ok(batches);
            }
        }
    }

    /// What is gathered, as a batch.
    fn batch(&mut self) -> Result<Option<RecordBatch>, Error> {
        self.bytes = 0;
        if self.format == CopyFormat::Binary {
            let width = self.scalars.len();
            let columns = std::mem::replace(&mut self.scalars, vec![Vec::new(); width]);
            return if columns.first().is_none_or(Vec::is_empty) {
                Ok(None)
            } else {
                scalar_batch(&self.schema, columns).map(Some)
            };
        }
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = self.schema.fields().iter().enumerate().map(|(i, field)| {
            if *field.data_type() == DataType::Utf8 {
                let mut builder = StringBuilder::new();
                rows.iter()
                    .for_each(|row| builder.append_option(row[i].as_deref()));
                return Ok(std::sync::Arc::new(builder.finish()) as ArrayRef);
            }
            // Arrays have a literal of their own, which no cast reads.
            let values = rows.iter().map(|row| match &row[i] {
                Some(text) => decode_text(text, field.data_type()),
                None => ScalarValue::try_from(field.data_type()).map_err(from_datafusion),
            });
            ScalarValue::iter_to_array(values.collect::<Result<Vec<_>, _>>()?)
                .map_err(from_datafusion)
        });
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, Error>>()?)
            .map(Some)
            .map_err(|e| from_datafusion(e.into()))
    }

    fn push(&mut self, row: Vec<Option<String>>, length: usize) -> Result<(), Error> {
        let width = self.schema.fields().len();
        if row.len() < width {
            return Err(bad(
                format!(
                    "missing data for column \"{}\"",
                    self.schema.field(row.len()).name()
                ),
                self.line,
            ));
        }
        if row.len() > width {
            return Err(bad("extra data after last expected column", self.line));
        }
        self.rows.push(row);
        self.bytes += length;
        Ok(())
    }

    /// One line of the text format; `false` if no whole line is there.
    fn text_line(&mut self, delimiter: u8, null: &str, is_last: bool) -> Result<bool, Error> {
        let length = match self.pending[self.scanned..]
            .iter()
            .position(|b| *b == b'\n')
        {
            Some(n) => self.scanned + n + 1,
            None if is_last && !self.pending.is_empty() => self.pending.len(),
            None => {
                self.scanned = self.pending.len();
                return Ok(false);
            }
        };
        self.scanned = 0;
        let line = self.pending.split_to(length);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line += 1;
        if line == b"\\." {
            self.at_end = true;
            return Ok(false);
        }
        let mut row = Vec::new();
        let mut start = 0;
        let mut i = 0;
        while i <= line.len() {
            if i == line.len() || line[i] == delimiter {
                let raw = &line[start..i];
                row.push(if raw == null.as_bytes() {
                    None
                } else {
                    Some(self.unescape(raw)?)
                });
                start = i + 1;
            } else if line[i] == b'\\' {
                i += 1;
            }
            i += 1;
        }
        self.push(row, length)?;
        Ok(true)
    }

    fn unescape(&self, raw: &[u8]) -> Result<String, Error> {
        let mut out = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter().copied().peekable();
        while let Some(b) = bytes.next() {
            if b != b'\\' {
                out.push(b);
                continue;
            }
            match bytes.next() {
                Some(b'b') => out.push(8),
                Some(b'f') => out.push(12),
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(b'v') => out.push(11),
                Some(d @ b'0'..=b'7') => {
                    let mut value = u32::from(d - b'0');
                    for _ in 0..2 {
                        match bytes.next_if(|b| (b'0'..=b'7').contains(b)) {
                            Some(d) => value = value * 8 + u32::from(d - b'0'),
                            None => break,
                        }
                    }
                    out.push(value as u8);
                }
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            }
        }
        self.utf8(out)
    }

    fn utf8(&self, bytes: Vec<u8>) -> Result<String, Error> {
        String::from_utf8(bytes)
            .map_err(|_| bad("invalid byte sequence for encoding \"UTF8\"", self.line))
    }

    /// One record of CSV; `false` if no whole record is there. An unquoted value equal to the NULL
    /// text is NULL.
    fn csv_record(
        &mut self,
        delimiter: u8,
        quote: u8,
        escape: u8,
        null: &str,
        header: bool,
        is_last: bool,
    ) -> Result<bool, Error> {
        let data = &self.pending[..];
        if data.is_empty() {
            return Ok(false);
        }
        let (is_header, width) = (self.at_start && header, self.schema.fields().len());
        let CsvRecord {
            values: mut row,
            mut value,
            mut was_quoted,
            mut in_quotes,
        } = std::mem::take(&mut self.record);
        let mut i = std::mem::take(&mut self.scanned);
        let end = loop {
            let Some(&b) = data.get(i) else {
                if !is_last {
                    break None;
                }
                if in_quotes {
                    return Err(bad("unterminated CSV quoted field", self.line + 1));
                }
                break Some(i);
            };
            if in_quotes {
                // The byte after it decides; at the border of a message it is still to come.
                let next = data.get(i + 1).copied();
                if (b == escape || b == quote) && next.is_none() && !is_last {
                    break None;
                }
                if b == escape && (next == Some(quote) || next == Some(escape) && escape != quote) {
                    value.extend(next);
                    i += 1;
                } else if b == quote {
                    in_quotes = false;
                } else {
                    value.push(b);
                }
            } else if b == quote {
                in_quotes = true;
                was_quoted = true;
            } else if b == delimiter {
                let whole = std::mem::take(&mut value);
                if is_header {
                    // It is read past.
                } else if row.len() + 1 >= width {
                    return Err(bad("extra data after last expected column", self.line + 1));
                } else {
                    row.push((whole, was_quoted));
                }
                was_quoted = false;
            } else if b == b'\n' {
                break Some(i + 1);
            } else if b == b'\r' {
                match data.get(i + 1) {
                    Some(b'\n') => {}
                    None if is_last => {}
                    None => break None,
                    Some(_) => {
                        return Err(bad("unquoted carriage return found in data", self.line + 1));
                    }
                }
            } else {
                value.push(b);
            }
            i += 1;
        };
        let Some(end) = end else {
            // The next message goes on from here.
            self.scanned = i;
            self.record = CsvRecord {
                values: row,
                value,
                was_quoted,
                in_quotes,
            };
            return Ok(false);
        };
        row.push((value, was_quoted));
        self.pending.advance(end);
        self.line += 1;
        if std::mem::take(&mut self.at_start) && header {
            return Ok(true);
        }
        if matches!(row.as_slice(), [(one, false)] if one == b"\\.") {
            self.at_end = true;
            return Ok(false);
        }
        let row = row.into_iter().map(|(value, quoted)| {
            if !quoted && value == null.as_bytes() {
                Ok(None)
            } else {
                self.utf8(value).map(Some)
            }
        });
        let row = row.collect::<Result<Vec<_>, Error>>()?;
        self.push(row, end)?;
        Ok(true)
    }

    /// One tuple of the binary format; `false` if no whole one is there.
    fn binary_row(&mut self, is_last: bool) -> Result<bool, Error> {
        let incomplete = |line: u64| {
            if is_last {
                Err(bad("unexpected EOF in COPY data", line))
            } else {
                Ok(false)
            }
        };
        let word = |data: &[u8], at: usize| -> Option<i32> {
            Some(i32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
        };
        if self.at_start {
            if self.pending.len() < SIGNATURE.len() + 8 {
                return incomplete(self.line);
            }
            if &self.pending[..SIGNATURE.len()] != SIGNATURE {
                return Err(bad("COPY file signature not recognized", self.line));
            }
            let extension =
                word(&self.pending, SIGNATURE.len() + 4).and_then(|n| usize::try_from(n).ok());
            let header = SIGNATURE.len()
                + 8
                + extension.ok_or_else(|| bad("invalid COPY file header", self.line))?;
            if self.pending.len() < header {
                return incomplete(self.line);
            }
            self.pending.advance(header);
            self.at_start = false;
        }
        let data = &self.pending[..];
        if data.len() < 2 {
            return if is_last && data.is_empty() {
                Ok(false)
            } else {
                incomplete(self.line)
            };
        }
        let count = i16::from_be_bytes([data[0], data[1]]);
        if count == -1 {
            self.at_end = true;
            return Ok(false);
        }
        if usize::try_from(count).ok() != Some(self.schema.fields().len()) {
            return Err(bad(
                format!(
                    "row field count is {count}, expected {}",
                    self.schema.fields().len()
                ),
                self.line + 1,
            ));
        }
        // Where its values are: nothing is read before all of them are there. A negative length is
        // NULL.
        let mut at = 2;
        let mut places = Vec::with_capacity(self.schema.fields().len());
        for _ in self.schema.fields() {
            let Some(length) = word(data, at) else {
                return incomplete(self.line);
            };
            at += 4;
            let place = usize::try_from(length)
                .ok()
                .map(|length| at..at.saturating_add(length));
            at = place.as_ref().map_or(at, |place| place.end);
            places.push(place);
        }
        if data.len() < at {
            return incomplete(self.line);
        }
        let mut row = Vec::with_capacity(places.len());
        for (field, place) in self.schema.fields().iter().zip(places) {
            row.push(match place {
                None => ScalarValue::try_from(field.data_type()).map_err(from_datafusion)?,
                Some(place) => decode_binary(&data[place], field.data_type())
                    .map_err(|e| e.detail(format!("COPY line {}", self.line + 1)))?,
            });
        }
        self.pending.advance(at);
        self.line += 1;
        self.bytes += at;
        for (column, value) in self.scalars.iter_mut().zip(row) {
            column.push(value);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::arrow::util::pretty::pretty_format_batches;

    use super::*;

    /// The rows of some data that comes in messages of so many bytes.
    fn rows(format: &CopyFormat, data: &[u8], message: usize) -> Result<String, Error> {
        let fields: Vec<_> = ["a", "b"]
            .map(|name| Field::new(name, DataType::Utf8, true))
            .into();
        let mut decoder = Decoder::of(Schema::new(fields).into(), format.clone());
        let mut batches = Vec::new();
        for part in data.chunks(message) {
            batches.extend(decoder.feed(part)?);
        }
        batches.extend(decoder.finish()?);
        Ok(pretty_format_batches(&batches).expect("shown").to_string())
    }

    #[test]
    fn records_read_the_same_wherever_messages_end() {
        let csv = |escape| CopyFormat::Csv {
            delimiter: b',',
            quote: b'"',
            escape,
            null: "NULL".into(),
            header: true,
        };
        let text = CopyFormat::Text {
            delimiter: b'\t',
            null: "\\N".into(),
        };
        for (format, data) in [
            (
                csv(b'"'),
                "a,b\r\nNULL,\"NULL\"\r\n\"two\n\"\"lines\"\"\",x\r\n,\"\"\n",
            ),
            (csv(b'\\'), "a,b\n\"x\\\"y\\\\\",2\nq,\"r\""),
            (text, "one\ttwo\n\\N\ta\\tb\nlast\tline"),
        ] {
            let whole = rows(&format, data.as_bytes(), data.len()).expect("whole");
            for message in 1..data.len() {
                assert_eq!(
                    rows(&format, data.as_bytes(), message).expect("in parts"),
                    whole,
                    "{data:?} by {message}"
                );
            }
        }
        let unterminated = rows(&csv(b'"'), b"a,b\n\"x", 1).expect_err("no quote at the end");
        assert_eq!(unterminated.message, "unterminated CSV quoted field");
    }
}
