//! What PostgreSQL means where DataFusion means something else: numbers that do not wrap or lose
//! digits, times that know their zone, texts as PostgreSQL writes them.
//!
//! What has another type in PostgreSQL is said when a statement is planned, so that everybody sees
//! that type; what only has another value is said by a rule after DataFusion's own coercion, which
//! makes casts, too.

mod aggregates;
mod arithmetic;
mod arrays;
mod by_length;
mod casts;
mod coerce;
mod correlation;
mod formats;
mod interval_sums;
mod intervals;
mod json;
mod numbers;
mod parts;
mod reading;
mod row_by_row;
mod rule;
mod sets;
mod single;
pub mod text;
mod ties;
mod times;
mod type_name;
mod type_of;
mod written;

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub(super) use self::arithmetic::Operators;
pub(super) use self::arrays::{ARRAY_OR_EMPTY, BESIDE_NULL};
pub(super) use self::json::{AS_JSON, AS_JSONB};
pub(super) use self::numbers::AS_NUMERIC;
pub(super) use self::parts::{extract_name, part_named};
pub(super) use self::single::SINGLE_VALUE;
pub(super) use self::ties::WITH_TIES;
pub(super) use self::times::TIMEZONE;
use self::times::Timezone;
pub(super) use self::written::{as_postgresql, with_parameters};
use crate::error::{Error, ErrorKind};

pub(super) fn failure(kind: ErrorKind, message: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Error::new(kind, message)))
}

/// Functions that know the session's zone.
pub(super) fn in_zone(zone: &str) -> [ScalarUDF; 2] {
    [
        ScalarUDF::from(Timezone::new(zone)),
        ScalarUDF::from(formats::FromPattern::to_timestamp(zone)),
    ]
}

/// Adds to a state what PostgreSQL means.
pub(super) fn add_to(state: &mut SessionState) -> DfResult<()> {
    state.register_udaf(Arc::new(aggregates::average()))?;
    state.register_udaf(Arc::new(AggregateUDF::from(single::SingleValue::new())))?;
    for extract in parts::Extract::all() {
        state.register_udf(Arc::new(ScalarUDF::from(extract)))?;
    }
    // Other names of DataFusion's functions, which would bring them back under ours.
    for alias in ["date_format", "datetrunc", "datepart"] {
        state.deregister_udf(alias)?;
    }
    for function in [
        ScalarUDF::from(parts::Truncate::new()),
        ScalarUDF::from(formats::ToChar::new()),
        ScalarUDF::from(formats::FromPattern::to_date()),
        ScalarUDF::from(numbers::AsNumeric::new()),
        ties::RowCount::WithTies.function(),
        ScalarUDF::from(type_of::TypeOf::new()),
    ] {
        state.register_udf(Arc::new(function))?;
    }
    for function in row_by_row::all()
        .into_iter()
        .chain(arrays::all())
        .chain(json::all())
    {
        state.register_udf(Arc::new(function))?;
    }
    state.register_expr_planner(Arc::new(Operators))?;
    state.add_analyzer_rule(Arc::new(rule::Meaning));
    Ok(())
}
