//! Long values beside many rows: each row that an operator makes copies them, so queries that have
//! them work in smaller batches, and what would not fit even then is refused.

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlan};

use super::growth::{BATCH_BYTES, Growth, LONG_LITERAL, SMALL, count_of, growth_of, length};

/// Functions that add lengths, in one plan, before their results may have doubled too often for
/// large batches.
const ADDITIONS_MAX: usize = 10;

/// Refuses rows so wide that a join, which puts each of them beside many others, would take more
/// than is there.
pub(super) fn check_width(batch: &RecordBatch, rows_of_join: usize) -> DfResult<()> {
    let columns: Vec<ColumnarValue> = batch
        .columns()
        .iter()
        .cloned()
        .map(ColumnarValue::Array)
        .collect();
    if batch.get_array_memory_size() < SMALL {
        return Ok(());
    }
    for row in 0..batch.num_rows() {
        let bytes = columns.iter().fold(0usize, |sum, column| {
            sum.saturating_add(length(column, row))
        });
        if bytes.saturating_mul(rows_of_join) > 4 * BATCH_BYTES {
            let message = format!(
                "a row of {bytes} bytes is too wide for a join; select shorter columns before it"
            );
            return Err(DataFusionError::ResourcesExhausted(message));
        }
    }
    Ok(())
}

/// Refuses rows whose lists have so many items that the other columns would take too much beside
/// each of them.
pub(super) fn check_unnest(batch: &RecordBatch, lists: &[usize]) -> DfResult<()> {
    let columns: Vec<ColumnarValue> = batch
        .columns()
        .iter()
        .cloned()
        .map(ColumnarValue::Array)
        .collect();
    for row in 0..batch.num_rows() {
        let items = lists
            .iter()
            .map(|i| count_of(&columns[*i], row).0)
            .max()
            .unwrap_or(0);
        let others = columns
            .iter()
            .enumerate()
            .filter(|(i, _)| !lists.contains(i));
        let bytes = others.fold(0usize, |sum, (_, column)| {
            sum.saturating_add(length(column, row))
        });
        if items.saturating_mul(bytes) > 2 * BATCH_BYTES {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{items} items of a list, each beside {bytes} bytes of other columns"
            )));
        }
    }
    Ok(())
}

/// How many rows a batch of this plan should have; nothing if as many as always.
pub(super) fn rows_of_batch(plan: &LogicalPlan, value_bytes_max: usize) -> DfResult<Option<usize>> {
    let (mut longest, mut additions, mut multiplies) = (0, 0, false);
    let short = |expr: Option<&Expr>| match expr {
        None => true,
        Some(Expr::Literal(value, _)) => match value {
            ScalarValue::Utf8(Some(text)) => text.len() <= 16,
            ScalarValue::Int64(Some(n)) => *n <= 1024,
            ScalarValue::Int32(Some(n)) => *n <= 1024,
            _ => false,
        },
        Some(_) => false,
    };
    plan.apply_with_subqueries(|node| {
        // Every constant of a node becomes a column of its own.
        let mut together = 0usize;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Literal(value, _) => together = together.saturating_add(value.size()),
                    Expr::ScalarFunction(call) => match growth_of(call.func.name()) {
                        Some(Growth::Sum | Growth::Some) => additions += 1,
                        Some(Growth::Work) | None => {}
                        Some(Growth::Replace | Growth::RegexReplace) => {
                            multiplies |= !short(call.args.get(2))
                        }
                        Some(Growth::Join) => multiplies |= !short(call.args.first()),
                        Some(_) => multiplies |= !short(call.args.get(1)),
                    },
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        longest = longest.max(together);
        Ok(TreeNodeRecursion::Continue)
    })?;
    if multiplies || additions > ADDITIONS_MAX {
        longest = value_bytes_max;
    }
    Ok((longest >= LONG_LITERAL).then(|| (BATCH_BYTES / longest.max(1)).max(16)))
}
