//! SQL functions that know the session, and StarRocks' hash.

use std::str::FromStr;
use std::sync::Arc;

use chrono::TimeZone;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use twox_hash::XxHash3_64;

/// What functions may say about a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionFacts {
    pub user: String,
    pub database: String,
    /// The current database, if one is chosen.
    pub current_schema: Option<String>,
    /// An IANA name or an offset.
    pub time_zone: String,
    pub backend_pid: i32,
}

/// The version that clients choose their catalog queries by (docs/compat.md says why 14).
pub const SERVER_VERSION: &str = concat!("14.13 (Starkeep ", env!("CARGO_PKG_VERSION"), ")");

/// `version()`: clients read the version of PostgreSQL from its beginning.
pub fn server_version_text() -> String {
    format!(
        "PostgreSQL {SERVER_VERSION}, DataFusion {}",
        datafusion::DATAFUSION_VERSION
    )
}

pub(super) fn functions(facts: &SessionFacts) -> Vec<ScalarUDF> {
    let version = server_version_text();
    let text = |s: &str| ScalarValue::Utf8(Some(s.to_owned()));
    let mut all = vec![
        constant("version", text(&version)),
        constant("current_database", text(&facts.database)),
        constant("current_catalog", text(&facts.database)),
        constant(
            "current_schema",
            ScalarValue::Utf8(facts.current_schema.clone()),
        ),
        constant("current_user", text(&facts.user)),
        constant("session_user", text(&facts.user)),
        constant("user", text(&facts.user)),
        // Pools say this when a connection comes back; there are no such locks.
        constant(
            "pg_advisory_unlock_all",
            ScalarValue::Utf8(Some(String::new())),
        ),
        constant(
            "pg_backend_pid",
            ScalarValue::Int32(Some(facts.backend_pid)),
        ),
        ScalarUDF::from(XxHash::new()),
        ScalarUDF::from(StarrocksTime::new(&facts.time_zone)),
        starrocks_size(),
        ScalarUDF::from(super::any_array::AnyArray::new()),
        ScalarUDF::from(super::any_array::AnyUnknown::new()),
        pg_size_pretty(),
    ];
    all.extend(super::meaning::in_zone(&facts.time_zone));
    all
}

fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let data_type = value.data_type();
    create_udf(
        name,
        vec![],
        data_type,
        Volatility::Stable,
        Arc::new(move |_| Ok(ColumnarValue::Scalar(value.clone()))),
    )
}

/// `starrocks_size(bytes)`: `999B`, `1.5KB`, `2GB`, as SHOW prints sizes.
fn starrocks_size() -> ScalarUDF {
    let show = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let sizes = arrays[0].as_primitive::<Int64Type>();
        let shown: StringArray = sizes.iter().map(|bytes| bytes.map(size_text)).collect();
        Ok(ColumnarValue::Array(Arc::new(shown)))
    };
    create_udf(
        "starrocks_size",
        vec![DataType::Int64],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(show),
    )
}

/// PostgreSQL's `pg_size_pretty(bytes)`.
fn pg_size_pretty() -> ScalarUDF {
    let show = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let sizes = arrays[0].as_primitive::<Int64Type>();
        let shown: StringArray = sizes
            .iter()
            .map(|bytes| bytes.map(crate::catalog::size_pretty))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(shown)))
    };
    create_udf(
        "pg_size_pretty",
        vec![DataType::Int64],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(show),
    )
}

/// The largest unit of which there is at least one, with one digit after the point unless it is 0.
fn size_text(bytes: i64) -> String {
    let units = [("PB", 50), ("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];
    match units.iter().find(|(_, shift)| bytes >= 1 << shift) {
        None => format!("{bytes}B"),
        Some((unit, shift)) => {
            let number = format!("{:.1}", bytes as f64 / (1i64 << shift) as f64);
            format!("{}{unit}", number.trim_end_matches(".0"))
        }
    }
}

/// `xx_hash3_64(varchar, …)`: StarRocks' hash, for checksums that do not depend on the order of
/// rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct XxHash {
    signature: Signature,
}

impl XxHash {
    fn new() -> Self {
        Self {
            signature: Signature::variadic(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for XxHash {
    fn name(&self) -> &str {
        "xx_hash3_64"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let columns = columns
            .iter()
            .map(|c| Ok(cast(c, &DataType::Utf8)?))
            .collect::<DfResult<Vec<ArrayRef>>>()?;
        let columns: Vec<&StringArray> = columns.iter().map(|c| c.as_string::<i32>()).collect();
        let hash_row = |row: usize| -> Option<i64> {
            let mut seed = 0;
            for column in &columns {
                if column.is_null(row) {
                    return None;
                }
                seed = XxHash3_64::oneshot_with_seed(seed, column.value(row).as_bytes());
            }
            Some(seed as i64)
        };
        let rows = columns.first().map_or(args.number_rows, |c| c.len());
        let hashes: Int64Array = (0..rows).map(hash_row).collect();
        Ok(ColumnarValue::Array(Arc::new(hashes)))
    }
}

/// `starrocks_time(timestamptz)`: `yyyy-MM-dd HH:mm:ss` in the session's time zone, as SHOW prints
/// times.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StarrocksTime {
    signature: Signature,
    zone: String,
}

impl StarrocksTime {
    fn new(zone: &str) -> Self {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Self {
            signature: Signature::exact(vec![timestamp], Volatility::Stable),
            zone: zone.to_owned(),
        }
    }
}

/// The normal spelling of a time zone, if there is such a one.
pub fn time_zone_name(name: &str) -> Option<String> {
    match Zone::parse(name)? {
        Zone::Named(tz) => Some(tz.name().to_owned()),
        Zone::Fixed(offset) => Some(offset.to_string()),
    }
}

/// A time zone by its IANA name, or by an offset such as `+02:00`.
#[derive(Clone, Copy, Debug)]
pub enum Zone {
    /// By its IANA name.
    Named(chrono_tz::Tz),
    Fixed(chrono::FixedOffset),
}

impl Zone {
    /// Reads `Europe/Paris` or `+02:00`.
    pub fn parse(name: &str) -> Option<Self> {
        if let Ok(tz) = chrono_tz::Tz::from_str_insensitive(name) {
            return Some(Self::Named(tz));
        }
        chrono::FixedOffset::from_str(name).ok().map(Self::Fixed)
    }

    /// The local date and time of a moment in microseconds since the epoch.
    pub fn local(&self, micros: i64) -> Option<chrono::NaiveDateTime> {
        match self {
            Self::Named(tz) => tz
                .timestamp_micros(micros)
                .single()
                .map(|t| t.naive_local()),
            Self::Fixed(offset) => offset
                .timestamp_micros(micros)
                .single()
                .map(|t| t.naive_local()),
        }
    }

    /// Seconds east of UTC at this moment.
    pub fn offset_seconds(&self, micros: i64) -> i32 {
        use chrono::Offset;
        match self {
            Self::Named(tz) => tz
                .timestamp_micros(micros)
                .single()
                .map_or(0, |t| t.offset().fix().local_minus_utc()),
            Self::Fixed(offset) => offset.local_minus_utc(),
        }
    }
}

impl ScalarUDFImpl for StarrocksTime {
    fn name(&self) -> &str {
        "starrocks_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let zone = Zone::parse(&self.zone).ok_or_else(|| {
            DataFusionError::Execution(format!("time zone \"{}\" not recognized", self.zone))
        })?;
        let [times] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("starrocks_time takes one argument".into()))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let shown: StringArray = times
            .iter()
            .map(|t| {
                t.and_then(|t| zone.local(t))
                    .map(|t| t.format("%Y-%m-%d %H:%M:%S").to_string())
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(shown)))
    }
}
