//! The parts of a query.

use datafusion::sql::sqlparser::ast as sql;

/// The SELECTs of a query: one, or the parts of a UNION, INTERSECT or EXCEPT.
pub(super) fn selects(body: &mut sql::SetExpr) -> Vec<&mut sql::Select> {
    let (mut found, mut left) = (Vec::new(), vec![body]);
    while let Some(body) = left.pop() {
        match body {
            sql::SetExpr::Select(select) => found.push(&mut **select),
            sql::SetExpr::SetOperation {
                left: first,
                right: second,
                ..
            } => left.extend([&mut **second, &mut **first]),
            _ => {}
        }
    }
    found
}
