//! What PostgreSQL means where DataFusion means something else: numbers that do not wrap or lose
//! digits, times that know their zone, texts as PostgreSQL writes them.
//!
//! What has another type in PostgreSQL is said when a statement is planned, so that everybody sees
//! that type; what only has another value is said by a rule behind DataFusion's own coercion, which
//! makes casts, too.

mod aggregates;
mod arithmetic;
mod casts;
mod rule;
pub mod text;
mod times;

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;

pub(super) use self::aggregates::widen_sums;
pub(super) use self::arithmetic::Operators;
pub(super) use self::times::{EXTRACTED, Extract, TIMEZONE, Timezone};
use crate::error::{Error, ErrorKind};

fn failure(kind: ErrorKind, message: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Error::new(kind, message)))
}

/// Adds to a state what PostgreSQL means.
pub(super) fn add_to(state: &mut SessionState) -> DfResult<()> {
    state.register_udaf(Arc::new(aggregates::average()))?;
    for part in EXTRACTED {
        state.register_udf(Arc::new(ScalarUDF::from(Extract::of(part))))?;
    }
    state.register_expr_planner(Arc::new(Operators))?;
    state.add_analyzer_rule(Arc::new(rule::Meaning));
    Ok(())
}
