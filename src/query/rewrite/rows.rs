//! Row values: `(a, b) < (1, 2)`. DataFusion has structs for them, which know no NULL.

use datafusion::sql::sqlparser::ast as sql;

use super::Copies;
use crate::error::{Error, ErrorKind};

/// The fields of a row value.
fn row(expr: &sql::Expr) -> Option<Vec<sql::Expr>> {
    match expr {
        sql::Expr::Nested(inner) => row(inner),
        sql::Expr::Tuple(fields) => Some(fields.clone()),
        sql::Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            let sql::FunctionArguments::List(list) = &function.args else {
                return None;
            };
            let fields = list.args.iter().map(|arg| match arg {
                sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            });
            fields.collect()
        }
        _ => None,
    }
}

fn nested(expr: sql::Expr) -> sql::Expr {
    sql::Expr::Nested(Box::new(expr))
}

fn binary(left: sql::Expr, op: sql::BinaryOperator, right: sql::Expr) -> sql::Expr {
    sql::Expr::BinaryOp {
        left: Box::new(nested(left)),
        op,
        right: Box::new(nested(right)),
    }
}

fn joined(parts: Vec<sql::Expr>, op: &sql::BinaryOperator) -> Option<sql::Expr> {
    parts
        .into_iter()
        .reduce(|left, right| binary(left, op.clone(), right))
}

fn unequal() -> Error {
    Error::new(
        ErrorKind::Syntax,
        "unequal number of entries in row expressions",
    )
}

/// `(a, b) op (c, d)`, field by field.
fn compared(
    left: Vec<sql::Expr>,
    op: &sql::BinaryOperator,
    right: Vec<sql::Expr>,
) -> Result<Option<sql::Expr>, Error> {
    use sql::BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    if left.len() != right.len() {
        return Err(unequal());
    }
    let mut pairs: Vec<(sql::Expr, sql::Expr)> = left.into_iter().zip(right).collect();
    let each = |pairs: Vec<(sql::Expr, sql::Expr)>, op: &sql::BinaryOperator| {
        pairs
            .into_iter()
            .map(|(l, r)| binary(l, op.clone(), r))
            .collect()
    };
    Ok(match op {
        Eq => joined(each(pairs, &Eq), &And),
        NotEq => joined(each(pairs, &NotEq), &Or),
        Lt | LtEq | Gt | GtEq => {
            // The last pair decides as the operator says, those before it strictly.
            let strict = if matches!(op, Lt | LtEq) { Lt } else { Gt };
            let Some((l, r)) = pairs.pop() else {
                return Ok(None);
            };
            let mut said = binary(l, op.clone(), r);
            while let Some((l, r)) = pairs.pop() {
                let equal = binary(binary(l.clone(), Eq, r.clone()), And, said);
                said = binary(binary(l, strict.clone(), r), Or, equal);
            }
            Some(said)
        }
        _ => None,
    })
}

/// What an expression about row values says of their fields.
pub(super) fn rewritten(expr: &sql::Expr, copies: &Copies) -> Result<Option<sql::Expr>, Error> {
    use sql::BinaryOperator::{And, Eq, Or};
    Ok(match expr {
        sql::Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (Some(left), Some(right)) => {
                copies.take(expr, 1)?;
                compared(left, op, right)?.map(nested)
            }
            _ => None,
        },
        sql::Expr::IsNull(inner) => row(inner).and_then(|fields| {
            let each = fields
                .into_iter()
                .map(|f| sql::Expr::IsNull(Box::new(nested(f))));
            joined(each.collect(), &And).map(nested)
        }),
        sql::Expr::IsNotNull(inner) => row(inner).and_then(|fields| {
            let each = fields
                .into_iter()
                .map(|f| sql::Expr::IsNotNull(Box::new(nested(f))));
            joined(each.collect(), &And).map(nested)
        }),
        sql::Expr::InList {
            expr: value,
            list,
            negated,
        } => {
            let Some(left) = row(value) else {
                return Ok(None);
            };
            copies.take(value, list.len())?;
            let each = list.iter().map(|item| {
                let right = row(item).ok_or_else(unequal)?;
                compared(left.clone(), &Eq, right)?.ok_or_else(unequal)
            });
            let said = joined(each.collect::<Result<_, Error>>()?, &Or).map(nested);
            said.map(|said| match negated {
                false => said,
                true => sql::Expr::UnaryOp {
                    op: sql::UnaryOperator::Not,
                    expr: Box::new(said),
                },
            })
        }
        _ => None,
    })
}

/// Refuses a row value that is left over.
pub(super) fn refuse(expr: &sql::Expr) -> Result<(), Error> {
    let is_row = matches!(expr, sql::Expr::Tuple(_))
        || matches!(expr, sql::Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("row"));
    if is_row {
        return Err(Error::unsupported("a row value here")
            .hint("Row values can be compared with each other, and stand in IN lists."));
    }
    Ok(())
}
