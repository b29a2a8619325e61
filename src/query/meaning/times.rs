//! AT TIME ZONE.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use starkeep_pg_semantics::datetime::Zone;

use super::failure;
use super::reading::zone;
use crate::error::ErrorKind;

/// What AT TIME ZONE is a call of.
pub(crate) const TIMEZONE: &str = "timezone";

/// `timezone(zone, time)`: the moment of a local time in a zone, or the local time of a moment.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timezone {
    signature: Signature,
    /// The session's, in which moments are shown.
    session: Arc<str>,
    /// Whether a cast wants it, not AT TIME ZONE.
    is_session: bool,
}

impl Timezone {
    pub fn new(session: &str) -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
            session: session.into(),
            is_session: false,
        }
    }
}

impl Timezone {
    /// Whether a cast wants it, not AT TIME ZONE.
    pub fn is_session(&self) -> bool {
        self.is_session
    }
}

/// A zone by its name. PostgreSQL reads offsets with signs the other way round, so they are
/// refused.
fn named_zone(name: &str) -> DfResult<Zone> {
    match super::super::Zone::parse(name) {
        Some(super::super::Zone::Named(zone)) => Ok(Zone::Named(zone)),
        Some(super::super::Zone::Fixed(_)) => Err(failure(
            ErrorKind::Unsupported,
            format!("AT TIME ZONE with the offset \"{name}\" is not supported"),
        )),
        None => Err(failure(
            ErrorKind::InvalidParameter,
            format!("time zone \"{name}\" not recognized"),
        )),
    }
}

/// The session's zone as an argument, which may be an offset.
pub(super) fn in_session(zone: &str, time: Expr) -> Expr {
    let session = Timezone {
        is_session: true,
        ..Timezone::new(zone)
    };
    ScalarUDF::from(session).call(vec![lit(zone), time])
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        TIMEZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[1] {
            // What has no type yet is a moment, as in PostgreSQL, and a date is one.
            DataType::Timestamp(_, Some(_)) | DataType::Null | DataType::Utf8 => {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            DataType::Timestamp(_, None) | DataType::Date32 => Ok(DataType::Timestamp(
                TimeUnit::Microsecond,
                Some(self.session.clone()),
            )),
            other => Err(failure(
                ErrorKind::Unsupported,
                format!(
                    "AT TIME ZONE of {other} is not supported; cast it to timestamp or timestamptz"
                ),
            )),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let names = cast(&arrays[0], &DataType::Utf8)?;
        let names: &StringArray = names.as_string();
        let is_moment = !matches!(
            arrays[1].data_type(),
            DataType::Timestamp(_, None) | DataType::Date32
        );
        let mut times = arrays[1].clone();
        if !matches!(times.data_type(), DataType::Timestamp(..)) {
            let shown = is_moment.then(|| self.session.clone());
            times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, shown))?;
        }
        // The same number without a zone.
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = match times.data_type() {
            DataType::Timestamp(_, None) => times,
            _ => cast(&times, &utc)?,
        };
        let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut known: Option<(&str, Zone)> = None;
        let mut values = Vec::with_capacity(times.len());
        for (name, time) in names.iter().zip(times.iter()) {
            let (Some(name), Some(time)) = (name, time) else {
                values.push(None);
                continue;
            };
            let zone = match known {
                Some((same, zone)) if same == name => zone,
                _ if self.is_session => zone(name)?,
                _ => named_zone(name)?,
            };
            known = Some((name, zone));
            let out = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
            values.push(Some(if is_moment {
                let (local, _) = zone.local(time).ok_or_else(out)?;
                local.and_utc().timestamp_micros()
            } else {
                let local = chrono::DateTime::from_timestamp_micros(time).ok_or_else(out)?;
                zone.moment(local.naive_utc()).ok_or_else(out)?
            }));
        }
        let values = TimestampMicrosecondArray::from(values);
        let DataType::Timestamp(_, shown) = args.return_field.data_type() else {
            return Err(DataFusionError::Internal("a time zone makes a time".into()));
        };
        let values: ArrayRef = Arc::new(values.with_timezone_opt(shown.clone()));
        Ok(ColumnarValue::Array(values))
    }
}
