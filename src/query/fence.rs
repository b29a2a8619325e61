//! What DataFusion (55.2) answers wrongly, or panics at, is put right or refused before it gets to
//! see it.
//!
//! Each rule names what happens without it; `tests/hostile.rs` has a statement for each.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use crate::error::{Error, ErrorKind};

/// Digits of a decimal.
const DIGITS_MAX: usize = 38;
const BIGINT_MAX: u128 = i64::MAX as u128;
/// Rows that a frame may reach: DataFusion adds them to the number of a row without looking.
const FRAME_ROWS_MAX: u64 = i32::MAX as u64;
/// Centroids of `approx_percentile_cont`: 16 bytes each, taken at once.
const CENTROIDS_MAX: u64 = 10_000;

/// Aggregates whose order makes no difference: DataFusion's grouped forms of them panic at one.
const ORDERLESS: &[&str] = &[
    "avg",
    "mean",
    "sum",
    "min",
    "max",
    "count",
    "median",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "var_pop",
    "var_samp",
    "var_sample",
    "variance",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "every",
    "approx_distinct",
    "corr",
    "covar_pop",
    "covar_samp",
];

/// Puts one expression right, its parts having been before.
pub(super) fn mend(expr: &mut sql::Expr) -> Result<(), Error> {
    match expr {
        sql::Expr::Value(value) => {
            if let sql::Value::Number(digits, _) = &value.value
                && let Some(plain) = plain_number(digits)?
            {
                *expr = plain;
            }
            Ok(())
        }
        sql::Expr::Cast { data_type, .. }
        | sql::Expr::Convert {
            data_type: Some(data_type),
            ..
        } => mend_type(data_type),
        sql::Expr::TypedString(typed) => mend_type(&mut typed.data_type),
        sql::Expr::Function(function) => mend_call(function),
        _ => Ok(()),
    }
}

/// `1e9` is read as a decimal of scale -9, of which 1 is shown and whose arithmetic divides by
/// zero.
fn plain_number(digits: &str) -> Result<Option<sql::Expr>, Error> {
    let too_long = || Error::unsupported(format_args!("a number of more than {DIGITS_MAX} digits"));
    let count = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    let Some((mantissa, exponent)) = digits.split_once(['e', 'E']) else {
        if count(digits) > DIGITS_MAX {
            return Err(too_long());
        }
        // A whole number beyond a bigint is a numeric.
        let is_far = !digits.contains('.') && digits.parse::<u128>().is_ok_and(|n| n > BIGINT_MAX);
        return Ok(is_far.then(|| whole_numeric(digits.to_owned())));
    };
    let exponent: i32 = exponent.parse().map_err(|_| too_long())?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.unsigned_abs() as usize > DIGITS_MAX || count(mantissa) > DIGITS_MAX {
        return Err(too_long());
    }
    let all = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let text = match usize::try_from(point) {
        Ok(point) if point >= all.len() => format!("{all}{}", "0".repeat(point - all.len())),
        Ok(0) | Err(_) => format!("0.{}{all}", "0".repeat(point.unsigned_abs() as usize)),
        Ok(point) => format!("{}.{}", &all[..point], &all[point..]),
    };
    if count(&text) > DIGITS_MAX {
        return Err(too_long());
    }
    let number = sql::Expr::value(sql::Value::Number(text.clone(), false));
    if text.contains('.') {
        return Ok(Some(number));
    }
    // A number with an exponent is a numeric, never an integer.
    Ok(Some(whole_numeric(text)))
}

fn whole_numeric(digits: String) -> sql::Expr {
    let precision = sql::ExactNumberInfo::PrecisionAndScale(digits.len() as u64, 0);
    sql::Expr::Cast {
        kind: sql::CastKind::Cast,
        expr: Box::new(sql::Expr::value(sql::Value::Number(digits, false))),
        data_type: sql::DataType::Numeric(precision),
        array: false,
        format: None,
    }
}

/// The length of an array type means nothing in PostgreSQL, and is memory for each row here. Scales
/// outside a decimal wrap.
fn mend_type(data_type: &mut sql::DataType) -> Result<(), Error> {
    match data_type {
        sql::DataType::Array(sql::ArrayElemTypeDef::SquareBracket(item, length)) => {
            *length = None;
            mend_type(item)
        }
        sql::DataType::Array(
            sql::ArrayElemTypeDef::AngleBracket(item) | sql::ArrayElemTypeDef::Parenthesis(item),
        ) => mend_type(item),
        // Without a precision it is double precision.
        sql::DataType::Float(info) => {
            let precision = match info {
                sql::ExactNumberInfo::None => 53,
                sql::ExactNumberInfo::Precision(p)
                | sql::ExactNumberInfo::PrecisionAndScale(p, _) => *p,
            };
            *data_type = match precision {
                1..=24 => sql::DataType::Real,
                25..=53 => sql::DataType::DoublePrecision,
                _ => {
                    let message = "precision for type float must be between 1 and 53 bits";
                    return Err(Error::new(ErrorKind::InvalidParameter, message));
                }
            };
            Ok(())
        }
        sql::DataType::Timestamp(precision, _) | sql::DataType::Time(precision, _) => {
            match precision {
                Some(0..=5) => Err(Error::unsupported(data_type.to_string()).hint(
                    "Times have microseconds; say date_trunc('second', …) for whole seconds.",
                )),
                _ => {
                    *precision = None;
                    Ok(())
                }
            }
        }
        sql::DataType::Character(_) | sql::DataType::Char(_) => {
            Err(Error::unsupported("the type character").hint("Say varchar(n) or text."))
        }
        sql::DataType::Numeric(info) | sql::DataType::Decimal(info) | sql::DataType::Dec(info) => {
            let (precision, scale) = match info {
                sql::ExactNumberInfo::None => return Ok(()),
                sql::ExactNumberInfo::Precision(p) => (*p, 0),
                sql::ExactNumberInfo::PrecisionAndScale(p, s) => (*p, *s),
            };
            if !(1..=DIGITS_MAX as u64).contains(&precision) {
                let message =
                    format!("NUMERIC precision {precision} must be between 1 and {DIGITS_MAX}");
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            if u64::try_from(scale).is_ok_and(|scale| scale <= precision) {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
            ))
        }
        _ => Ok(()),
    }
}

fn mend_call(function: &mut sql::Function) -> Result<(), Error> {
    let name = function
        .name
        .0
        .last()
        .and_then(|p| p.as_ident())
        .map(|i| i.value.to_lowercase())
        .unwrap_or_default();
    let arguments = match &mut function.args {
        sql::FunctionArguments::List(list) => {
            if ORDERLESS.contains(&name.as_str()) {
                list.clauses
                    .retain(|clause| !matches!(clause, sql::FunctionArgumentClause::OrderBy(_)));
            }
            list.args.as_slice()
        }
        _ => &[],
    };
    match name.as_str() {
        "first_value" | "last_value" | "nth_value" if arguments.is_empty() => {
            return Err(Error::new(
                ErrorKind::UndefinedFunction,
                format!("function {name}() does not exist"),
            ));
        }
        // Types of Arrow's that take memory for NULL, or that Arrow panics at.
        "arrow_cast" | "arrow_try_cast" => {
            return Err(Error::new(
                ErrorKind::UndefinedFunction,
                format!("function {name} does not exist"),
            )
            .hint("Use CAST."));
        }
        "approx_percentile_cont" | "approx_percentile_cont_with_weight" => {
            let numbers = arguments.iter().filter_map(|arg| match arg {
                sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => number(expr),
                _ => None,
            });
            if numbers.max().is_some_and(|n| n > CENTROIDS_MAX) {
                let message = format!("{name} takes {CENTROIDS_MAX} centroids at most");
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
        }
        // Each row of the answer would hold all the rows before it.
        "array_agg" | "string_agg" if function.over.is_some() => {
            return Err(
                Error::unsupported(format_args!("{name} as a window function"))
                    .hint("Group by what the window is cut by."),
            );
        }
        _ => {}
    }
    match &mut function.over {
        Some(sql::WindowType::WindowSpec(spec)) => mend_window(spec),
        _ => Ok(()),
    }
}

fn number(expr: &sql::Expr) -> Option<u64> {
    match expr {
        sql::Expr::Value(value) => match &value.value {
            sql::Value::Number(digits, _) => Some(digits.parse().unwrap_or(u64::MAX)),
            _ => None,
        },
        // One that is no bigint has been made a numeric.
        sql::Expr::Nested(inner)
        | sql::Expr::Cast { expr: inner, .. }
        | sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Plus,
            expr: inner,
        } => number(inner),
        _ => None,
    }
}

/// The windows that a SELECT names.
pub(super) fn mend_select(select: &mut sql::Select) -> Result<(), Error> {
    for sql::NamedWindowDefinition(_, window) in &mut select.named_window {
        if let sql::NamedWindowExpr::WindowSpec(spec) = window {
            mend_window(spec)?;
        }
    }
    Ok(())
}

/// Frames that end before they begin, or reach further than rows can be counted, are beyond the end
/// of a slice.
fn mend_window(spec: &mut sql::WindowSpec) -> Result<(), Error> {
    use sql::WindowFrameBound as B;
    let Some(frame) = &mut spec.window_frame else {
        return Ok(());
    };
    let is_range = frame.units == sql::WindowFrameUnits::Range;
    let bounds = [Some(&mut frame.start_bound), frame.end_bound.as_mut()];
    for (bound, which) in bounds.into_iter().zip(["starting", "ending"]) {
        let Some(B::Preceding(Some(size)) | B::Following(Some(size))) = bound else {
            continue;
        };
        let text = size.to_string().to_lowercase();
        if text.contains('-') {
            let message = format!("frame {which} offset must not be negative");
            return Err(Error::new(ErrorKind::InvalidFrame, message));
        }
        if ["nan", "inf"].iter().any(|odd| text.contains(odd)) {
            return Err(Error::new(
                ErrorKind::InvalidFrame,
                "invalid preceding or following size in window function",
            ));
        }
        match number(size) {
            Some(n) if !is_range && n > FRAME_ROWS_MAX => {
                **size = sql::Expr::value(sql::Value::Number(FRAME_ROWS_MAX.to_string(), false));
            }
            None if !is_range => {
                return Err(Error::unsupported(
                    "a frame of rows whose offset is no plain number",
                ));
            }
            _ => {}
        }
    }
    let one_sided = match (&frame.start_bound, &frame.end_bound) {
        (B::Preceding(Some(start)), Some(B::Preceding(Some(end)))) => Some((end, start)),
        (B::Following(Some(start)), Some(B::Following(Some(end)))) => Some((start, end)),
        (B::Following(Some(_)), None | Some(B::CurrentRow | B::Preceding(_)))
        | (B::CurrentRow, Some(B::Preceding(_))) => {
            return Err(Error::new(
                ErrorKind::Windowing,
                "frame starting from following row cannot have preceding rows",
            ));
        }
        _ => None,
    };
    let Some((nearer, further)) = one_sided else {
        return Ok(());
    };
    match (number(nearer), number(further)) {
        (Some(nearer), Some(further)) if nearer <= further => Ok(()),
        (None, None) if nearer == further => Ok(()),
        (Some(_), Some(_)) => Err(Error::unsupported(
            "a window frame that ends before it begins",
        )),
        _ => Err(Error::unsupported(
            "a window frame between two intervals on one side of the row",
        )),
    }
}

/// Mends every part of a statement.
pub(super) fn mend_statement(statement: &mut sql::Statement) -> Result<(), Error> {
    struct Mender;
    impl sql::VisitorMut for Mender {
        type Break = Error;
        fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<Error> {
            mend(expr).map_or_else(ControlFlow::Break, ControlFlow::Continue)
        }
        fn pre_visit_select(&mut self, select: &mut sql::Select) -> ControlFlow<Error> {
            mend_select(select).map_or_else(ControlFlow::Break, ControlFlow::Continue)
        }
    }
    match sql::VisitMut::visit(statement, &mut Mender) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, parse_one};

    fn mended(text: &str) -> Result<String, ErrorKind> {
        let Ok(Statement::Sql(mut ast)) = parse_one(text) else {
            panic!("{text}")
        };
        mend_statement(&mut ast)
            .map(|()| ast.to_string())
            .map_err(|e| e.kind)
    }

    #[test]
    fn numbers_with_exponents_are_written_out() {
        for (given, expected) in [
            ("1e2", "CAST(100 AS NUMERIC(3,0))"),
            ("1.5e1", "CAST(15 AS NUMERIC(2,0))"),
            ("1.25E1", "12.5"),
            ("12e-1", "1.2"),
            ("1e-3", "0.001"),
            ("125e-3", "0.125"),
            ("1.0", "1.0"),
        ] {
            assert_eq!(
                mended(&format!("SELECT {given}")),
                Ok(format!("SELECT {expected}")),
                "{given}"
            );
        }
        for given in ["1e100", "1e-100", "1e99999999999", &"1".repeat(39)] {
            assert_eq!(
                mended(&format!("SELECT {given}")),
                Err(ErrorKind::Unsupported),
                "{given}"
            );
        }
    }

    #[test]
    fn frames_and_types_that_break_are_refused() {
        for (text, kind) in [
            (
                "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN -1 PRECEDING AND CURRENT ROW) FROM t",
                ErrorKind::InvalidFrame,
            ),
            (
                "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN 'NaN' PRECEDING AND CURRENT ROW) FROM t",
                ErrorKind::InvalidFrame,
            ),
            (
                "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a ROWS BETWEEN -1 PRECEDING AND CURRENT ROW)",
                ErrorKind::InvalidFrame,
            ),
            (
                "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND 2 PRECEDING) FROM t",
                ErrorKind::Unsupported,
            ),
            (
                "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN 2 FOLLOWING AND 1 FOLLOWING) FROM t",
                ErrorKind::Unsupported,
            ),
            (
                "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN INTERVAL '1 month' PRECEDING AND INTERVAL '31 days' PRECEDING) FROM t",
                ErrorKind::Unsupported,
            ),
            (
                "SELECT first_value() OVER () FROM t",
                ErrorKind::UndefinedFunction,
            ),
            (
                "SELECT arrow_cast(NULL, 'FixedSizeList(1000000000, Int64)')",
                ErrorKind::UndefinedFunction,
            ),
            (
                "SELECT a::numeric(5, -3) FROM t",
                ErrorKind::InvalidParameter,
            ),
            (
                "SELECT a::numeric(5, 9) FROM t",
                ErrorKind::InvalidParameter,
            ),
            (
                "SELECT a::decimal(20, 253) FROM t",
                ErrorKind::InvalidParameter,
            ),
            (
                "SELECT approx_percentile_cont(a, 0.5, 1000000000) FROM t",
                ErrorKind::InvalidParameter,
            ),
            ("SELECT array_agg(a) OVER () FROM t", ErrorKind::Unsupported),
        ] {
            assert_eq!(mended(text), Err(kind), "{text}");
        }
        for (given, expected) in [
            ("SELECT NULL::int[100000]", "SELECT NULL::INT[]"),
            ("SELECT avg(a ORDER BY b) FROM t", "SELECT avg(a) FROM t"),
            (
                "SELECT sum(a) OVER (ROWS BETWEEN CURRENT ROW AND 18446744073709551615 FOLLOWING) FROM t",
                "SELECT sum(a) OVER (ROWS BETWEEN CURRENT ROW AND 2147483647 FOLLOWING) FROM t",
            ),
            (
                "SELECT sum(a) OVER (ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM t",
                "SELECT sum(a) OVER (ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM t",
            ),
        ] {
            assert_eq!(mended(given), Ok(expected.to_owned()), "{given}");
        }
    }
}
