//! Expressions in StarRocks' dialect.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList};
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Expr, ExprSchemable, Like, Operator, SortExpr, Subquery,
};

use super::{Printer, Scope};
use crate::cluster::starrocks::print_statement::literal;
use crate::cluster::starrocks::types::is_opaque;

impl Printer {
    /// What a SELECT list may hold: also columns that are only shown.
    pub(super) fn output(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        match expr {
            Expr::Column(column) => scope
                .columns
                .get(scope.schema.index_of_column(column).ok()?)
                .cloned(),
            Expr::Alias(alias) => self.output(&alias.expr, scope),
            other => self.expr(other, scope),
        }
    }

    pub(super) fn sort(&mut self, sort: &SortExpr, scope: &Scope<'_>) -> Option<String> {
        // A number in ORDER BY is a place.
        if !has_column(&sort.expr) || !is_key(&sort.expr, scope.schema) {
            return None;
        }
        let direction = if sort.asc { "ASC" } else { "DESC" };
        let nulls = if sort.nulls_first { "FIRST" } else { "LAST" };
        Some(format!(
            "{} {direction} NULLS {nulls}",
            self.expr(&sort.expr, scope)?
        ))
    }

    fn list(&mut self, list: &[Expr], scope: &Scope<'_>) -> Option<String> {
        Some(
            list.iter()
                .map(|e| self.expr(e, scope))
                .collect::<Option<Vec<_>>>()?
                .join(", "),
        )
    }

    /// A query that stands alone inside an expression.
    fn subquery(&mut self, subquery: &Subquery) -> Option<String> {
        let is_plain = subquery
            .subquery
            .schema()
            .fields()
            .iter()
            .all(|f| !is_opaque(f));
        (is_plain && subquery.outer_ref_columns.is_empty()).then_some(())?;
        let block = self.plan(&subquery.subquery)?;
        Some(format!("({})", self.select(block).0))
    }

    pub(super) fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        let type_of = |e: &Expr| e.get_type(scope.schema).ok();
        match expr {
            Expr::Column(column) => {
                let field = scope.schema.field_from_column(column).ok()?;
                (!is_opaque(field)).then_some(())?;
                scope
                    .columns
                    .get(scope.schema.index_of_column(column).ok()?)
                    .cloned()
            }
            Expr::Literal(value, _) => print_literal(value),
            Expr::Alias(alias) => self.expr(&alias.expr, scope),
            Expr::Not(e) => Some(format!("(NOT {})", self.expr(e, scope)?)),
            Expr::IsNull(e) => Some(format!("({} IS NULL)", self.expr(e, scope)?)),
            Expr::IsNotNull(e) => Some(format!("({} IS NOT NULL)", self.expr(e, scope)?)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let operands = match op {
                    Operator::And | Operator::Or => {
                        vec![self.expr(left, scope)?, self.expr(right, scope)?]
                    }
                    Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq => self.compared(&[left, right], scope)?,
                    Operator::Plus | Operator::Minus | Operator::Multiply => {
                        let allowed = match (type_of(left)?, type_of(right)?) {
                            (DataType::Float64, DataType::Float64) => true,
                            (l, r) => {
                                is_integer(&l)
                                    && is_integer(&r)
                                    && (l == DataType::Int64 || r == DataType::Int64)
                            }
                        };
                        allowed.then_some(())?;
                        vec![self.expr(left, scope)?, self.expr(right, scope)?]
                    }
                    _ => return None,
                };
                Some(format!("({} {op} {})", operands[0], operands[1]))
            }
            Expr::Between(Between {
                expr,
                negated,
                low,
                high,
            }) => {
                let not = if *negated { "NOT " } else { "" };
                let operands = self.compared(&[expr, low, high], scope)?;
                Some(format!(
                    "({} {not}BETWEEN {} AND {})",
                    operands[0], operands[1], operands[2]
                ))
            }
            Expr::InList(InList {
                expr,
                list,
                negated,
            }) => {
                let not = if *negated { "NOT " } else { "" };
                let all: Vec<&Expr> = std::iter::once(&**expr).chain(list).collect();
                let operands = self.compared(&all, scope)?;
                Some(format!(
                    "({} {not}IN ({}))",
                    operands[0],
                    operands[1..].join(", ")
                ))
            }
            Expr::Like(Like {
                negated,
                expr,
                pattern,
                escape_char: None,
                case_insensitive: false,
            }) => {
                let plain = matches!(&**pattern, Expr::Literal(ScalarValue::Utf8(Some(p)), _) if !p.contains('\\'));
                (plain && type_of(expr)? == DataType::Utf8).then_some(())?;
                let not = if *negated { "NOT " } else { "" };
                Some(format!(
                    "({} {not}LIKE {})",
                    self.expr(expr, scope)?,
                    self.expr(pattern, scope)?
                ))
            }
            Expr::Case(case) => {
                let results = case
                    .when_then_expr
                    .iter()
                    .map(|(_, then)| then)
                    .chain(&case.else_expr);
                let types = results.map(|e| type_of(e)).collect::<Option<Vec<_>>>()?;
                types.windows(2).all(|w| w[0] == w[1]).then_some(())?;
                let mut text = "CASE".to_owned();
                let whens = case.when_then_expr.iter().map(|(when, _)| &**when);
                let mut conditions = match &case.expr {
                    Some(matched) => self.compared(
                        &std::iter::once(&**matched).chain(whens).collect::<Vec<_>>(),
                        scope,
                    )?,
                    None => whens
                        .map(|when| self.expr(when, scope))
                        .collect::<Option<_>>()?,
                };
                if case.expr.is_some() {
                    text += &format!(" {}", conditions.remove(0));
                }
                for (when, (_, then)) in conditions.iter().zip(&case.when_then_expr) {
                    text += &format!(" WHEN {when} THEN {}", self.expr(then, scope)?);
                }
                if let Some(otherwise) = &case.else_expr {
                    text += &format!(" ELSE {}", self.expr(otherwise, scope)?);
                }
                Some(format!("({text} END)"))
            }
            Expr::Cast(cast) => self.cast(cast, scope),
            Expr::ScalarFunction(f) => {
                let types = f.args.iter().map(&type_of).collect::<Option<Vec<_>>>()?;
                let allowed = match f.name() {
                    "coalesce" => types.windows(2).all(|w| w[0] == w[1]),
                    "abs" => matches!(types.as_slice(), [DataType::Float64]),
                    _ => false,
                };
                allowed.then_some(())?;
                Some(format!("{}({})", f.name(), self.list(&f.args, scope)?))
            }
            Expr::InSubquery(inner) => {
                let column = inner
                    .subquery
                    .subquery
                    .schema()
                    .fields()
                    .first()
                    .map(|f| f.data_type().clone());
                (type_of(&inner.expr) == column).then_some(())?;
                let not = if inner.negated { "NOT " } else { "" };
                Some(format!(
                    "({} {not}IN {})",
                    self.expr(&inner.expr, scope)?,
                    self.subquery(&inner.subquery)?
                ))
            }
            Expr::ScalarSubquery(subquery) => self.subquery(subquery),
            _ => None,
        }
    }

    /// Operands that are compared with each other, if that means the same there. A text beside
    /// times is a time: StarRocks compares some of them as texts otherwise.
    fn compared(&mut self, operands: &[&Expr], scope: &Scope<'_>) -> Option<Vec<String>> {
        let types = operands
            .iter()
            .map(|e| Some((*e, e.get_type(scope.schema).ok()?)))
            .collect::<Option<Vec<_>>>()?;
        let time = types.iter().map(|(_, t)| t).find(|t| {
            matches!(
                t,
                DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, None)
            )
        });
        let Some(time) = time.cloned() else {
            agree(&types).then_some(())?;
            return operands.iter().map(|e| self.expr(e, scope)).collect();
        };
        let print = |(e, t): &(&Expr, DataType)| match e {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => time_literal(text, &time),
            e if *t == time || *t == DataType::Null => self.expr(e, scope),
            _ => None,
        };
        types.iter().map(print).collect()
    }

    fn cast(&mut self, cast: &Cast, scope: &Scope<'_>) -> Option<String> {
        match (&*cast.expr, cast.field.data_type()) {
            (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Date32) => {
                time_literal(text, &DataType::Date32)
            }
            (inner, DataType::Int64) => {
                is_integer(&inner.get_type(scope.schema).ok()?).then_some(())?;
                Some(format!("CAST({} AS BIGINT)", self.expr(inner, scope)?))
            }
            _ => None,
        }
    }

    pub(super) fn aggregate(&mut self, expr: &Expr, scope: &Scope<'_>) -> Option<String> {
        let AggregateFunction { func, params } = match expr {
            Expr::AggregateFunction(f) => f,
            Expr::Alias(alias) => return self.aggregate(&alias.expr, scope),
            _ => return None,
        };
        let AggregateFunctionParams {
            args,
            distinct,
            filter,
            order_by,
            null_treatment,
        } = params;
        (filter.is_none() && order_by.is_empty() && null_treatment.is_none()).then_some(())?;
        let types = args
            .iter()
            .map(|e| e.get_type(scope.schema).ok())
            .collect::<Option<Vec<_>>>()?;
        let allowed = match (func.name(), types.as_slice()) {
            ("count", [t]) => !matches!(t, DataType::Binary),
            ("sum", [t]) => {
                !distinct
                    && (is_integer(t) || matches!(t, DataType::Float64 | DataType::Decimal128(..)))
            }
            // An average of whole numbers is NUMERIC here, and DOUBLE there.
            ("avg", [t]) => !distinct && matches!(t, DataType::Float64),
            ("min" | "max", [t]) => {
                !matches!(t, DataType::Boolean | DataType::Binary | DataType::Float32)
            }
            _ => false,
        };
        allowed.then_some(())?;
        // A sum of BIGINT is computed with more digits here, and would wrap there.
        if let ("sum", [Expr::Cast(wider)]) = (func.name(), args.as_slice())
            && matches!(wider.field.data_type(), DataType::Decimal128(20, 0))
            && wider
                .expr
                .get_type(scope.schema)
                .is_ok_and(|of| of == DataType::Int64)
        {
            let summed = self.expr(&wider.expr, scope)?;
            return Some(format!("sum(CAST({summed} AS LARGEINT))"));
        }
        let distinct = if *distinct { "DISTINCT " } else { "" };
        Some(format!(
            "{}({distinct}{})",
            func.name(),
            self.list(args, scope)?
        ))
    }
}

pub(super) fn has_column(expr: &Expr) -> bool {
    !expr.column_refs().is_empty()
}

fn is_integer(t: &DataType) -> bool {
    matches!(
        t,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64
    )
}

pub(super) fn has(expr: &Expr, what: impl Fn(&Expr) -> bool) -> bool {
    expr.exists(|e| Ok(what(e))).unwrap_or(true)
}

pub fn has_subquery(expr: &Expr) -> bool {
    has(expr, |e| {
        matches!(
            e,
            Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::Exists(_)
        )
    })
}

/// Whether StarRocks sorts and groups by this.
pub(super) fn is_key(expr: &Expr, schema: &DFSchema) -> bool {
    !has_subquery(expr) && expr.get_type(schema).is_ok_and(|t| t != DataType::Binary)
}

/// Whether these mean the same when the cluster compares them: values of one type, or numbers that
/// it compares exactly. A sum there has 38 digits, so a scale beyond its own would leave no place
/// for them, and make it a DOUBLE.
pub(super) fn agree(operands: &[(&Expr, DataType)]) -> bool {
    let known: Vec<_> = operands
        .iter()
        .filter(|(_, t)| *t != DataType::Null)
        .collect();
    if known.iter().any(|(_, t)| *t == DataType::Binary) {
        return false;
    }
    if known.windows(2).all(|w| w[0].1 == w[1].1) {
        return true;
    }
    let scale = |t: &DataType| match t {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(*scale),
        t => is_integer(t).then_some(0),
    };
    let is_decimal =
        |t: &DataType| matches!(t, DataType::Decimal128(..) | DataType::Decimal256(..));
    let (literals, others): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|(e, _)| matches!(e, Expr::Literal(..)));
    let own = others
        .iter()
        .filter(|(_, t)| is_decimal(t))
        .map(|(_, t)| scale(t))
        .collect::<Vec<_>>();
    let most = match own.first() {
        Some(first) if own.iter().all(|s| s == first) => *first,
        Some(_) => None,
        // Integers have 19 digits.
        None => Some(19),
    };
    let Some(most) = most else { return false };
    others
        .iter()
        .chain(&literals)
        .all(|(_, t)| scale(t).is_some_and(|s| s <= most))
}

/// A text as the date or time that it says, if it plainly does.
pub(super) fn time_literal(text: &str, data_type: &DataType) -> Option<String> {
    use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let value = match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(
            day?.signed_duration_since(NaiveDate::default())
                .num_days()
                .try_into()
                .ok()?,
        )),
        _ => {
            let at = day.and_then(|d| d.and_hms_opt(0, 0, 0));
            let at =
                at.or_else(|| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok())?;
            (at.nanosecond().is_multiple_of(1000) && (0..=9999).contains(&at.year()))
                .then_some(())?;
            ScalarValue::TimestampMicrosecond(Some(at.and_utc().timestamp_micros()), None)
        }
    };
    print_literal(&value)
}

pub(super) fn print_literal(value: &ScalarValue) -> Option<String> {
    if value.is_null() {
        return matches!(value, ScalarValue::Null | ScalarValue::Utf8(_)).then(|| "NULL".into());
    }
    Some(match value {
        ScalarValue::Utf8(Some(text)) => literal(text),
        ScalarValue::Boolean(Some(b)) => b.to_string(),
        ScalarValue::Int8(Some(n)) => format!("({n})"),
        ScalarValue::Int16(Some(n)) => format!("({n})"),
        ScalarValue::Int32(Some(n)) => format!("({n})"),
        ScalarValue::Int64(Some(n)) => format!("({n})"),
        ScalarValue::Decimal256(Some(n), _, 0) => format!("({n})"),
        ScalarValue::Decimal128(Some(n), _, scale) if *scale >= 0 => {
            let scale = usize::try_from(*scale).ok()?;
            let digits = format!("{:0>width$}", n.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let point = if fraction.is_empty() { "" } else { "." };
            format!(
                "({}{whole}{point}{fraction})",
                if *n < 0 { "-" } else { "" }
            )
        }
        ScalarValue::Date32(Some(days)) => {
            let day = chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?
                .checked_add_signed(chrono::TimeDelta::try_days((*days).into())?)?;
            format!("CAST('{day}' AS DATE)")
        }
        ScalarValue::TimestampMicrosecond(Some(micros), None) => {
            let at = chrono::DateTime::from_timestamp_micros(*micros)?;
            format!("CAST('{}' AS DATETIME)", at.format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_where_they_are_compared_exactly() {
        use DataType::{Decimal128, Int32, Int64, Utf8};
        let column = Expr::Column("c".into());
        let literal = Expr::Literal(ScalarValue::Null, None);
        for (left, right, right_type, expected) in [
            (Int32, &column, Int64, true),
            (Int64, &literal, Decimal128(2, 1), true),
            (Decimal128(20, 2), &literal, Int64, true),
            (Decimal128(20, 2), &literal, Decimal128(3, 1), true),
            (Decimal128(20, 2), &literal, Decimal128(4, 3), false),
            (Decimal128(20, 2), &column, Decimal128(38, 0), false),
            (Decimal128(38, 0), &column, Int64, true),
            (Int64, &literal, Utf8, false),
            (DataType::Binary, &column, DataType::Binary, false),
        ] {
            let found = agree(&[(&column, left.clone()), (right, right_type.clone())]);
            assert_eq!(found, expected, "{left} and {right_type}");
        }
    }

    #[test]
    fn texts_beside_times_are_times() {
        let (day, time) = (
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
        );
        for (text, data_type, printed) in [
            ("2026-1-5", &day, Some("CAST('2026-01-05' AS DATE)")),
            (
                "2026-01-05",
                &time,
                Some("CAST('2026-01-05 00:00:00.000000' AS DATETIME)"),
            ),
            (
                "2026-01-05 10:00:00.5",
                &time,
                Some("CAST('2026-01-05 10:00:00.500000' AS DATETIME)"),
            ),
            ("2026-01-05 10:00:00", &day, None),
            ("yesterday", &time, None),
            ("2026-01-05 10:00:00.1234567", &time, None),
        ] {
            assert_eq!(time_literal(text, data_type).as_deref(), printed, "{text}");
        }
    }

    #[test]
    fn literals_are_printed_as_they_are() {
        for (value, text) in [
            (
                ScalarValue::Utf8(Some("it's \\ x".into())),
                "'it''s \\\\ x'",
            ),
            (ScalarValue::Int64(Some(-5)), "(-5)"),
            (ScalarValue::Decimal128(Some(-5), 10, 2), "(-0.05)"),
            (ScalarValue::Decimal128(Some(1250), 10, 2), "(12.50)"),
            (ScalarValue::Decimal128(Some(7), 10, 0), "(7)"),
            (ScalarValue::Decimal256(Some((-7).into()), 39, 0), "(-7)"),
            (
                ScalarValue::Date32(Some(20_454)),
                "CAST('2026-01-01' AS DATE)",
            ),
            (
                ScalarValue::TimestampMicrosecond(Some(1_500_000), None),
                "CAST('1970-01-01 00:00:01.500000' AS DATETIME)",
            ),
            (ScalarValue::Null, "NULL"),
        ] {
            assert_eq!(print_literal(&value).as_deref(), Some(text));
        }
        assert_eq!(print_literal(&ScalarValue::Float64(Some(0.1))), None);
    }
}
