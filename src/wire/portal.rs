//! What stands between Bind and the last row.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ScalarValue;

use super::encode::{Format, RowEncoder};
use crate::error::{Error, ErrorKind};
use crate::session::{Prepared, Rows, Session};

/// A prepared statement with its parameters, perhaps half-way through its rows.
pub(super) struct Portal {
    pub prepared: Arc<Prepared>,
    pub values: Vec<ScalarValue>,
    pub formats: Vec<i16>,
    pub open: Option<OpenRows>,
    /// It has run; what came of it.
    pub finished: Option<String>,
}

/// Rows that are being taken.
pub(super) struct OpenRows {
    pub rows: Rows,
    pub encoder: RowEncoder,
    pub batch: Option<RecordBatch>,
    pub next: usize,
}

impl OpenRows {
    pub fn new(rows: Rows, formats: &[i16], session: &Session) -> Result<Self, Error> {
        let formats = result_formats(formats, rows.schema.fields().len())?;
        let encoder = RowEncoder::new(
            &rows.schema,
            &formats,
            session.time_zone(),
            session.row_bytes_max(),
        );
        Ok(Self {
            rows,
            encoder,
            batch: None,
            next: 0,
        })
    }
}

/// None given: text. One given: for all. Else one a column.
pub(super) fn result_formats(codes: &[i16], columns: usize) -> Result<Vec<Format>, Error> {
    let all: Vec<i16> = match codes {
        [] => vec![0; columns],
        [one] => vec![*one; columns],
        many if many.len() == columns => many.to_vec(),
        many => {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    many.len()
                ),
            ));
        }
    };
    Ok(all
        .into_iter()
        .map(|code| {
            if code == 1 {
                Format::Binary
            } else {
                Format::Text
            }
        })
        .collect())
}
