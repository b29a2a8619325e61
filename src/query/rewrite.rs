//! PostgreSQL's ways of saying things that DataFusion reads in another way or not at all, said in
//! its own. Each change means exactly what it replaces, and what it replaces would be an error.

use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

mod calls;
mod casts;
mod clauses;
mod like;
mod names;
mod rows;
mod selects;
mod sets;
mod subqueries;
mod unnesting;

use super::any_array::ANY_ARRAY;
use super::fence::mend_statement;
use super::meaning::{ARRAY_OR_EMPTY, BESIDE_NULL, TIMEZONE, extract_name, part_named};
use crate::error::{Error, ErrorKind};
use crate::statement::{SYMMETRIC, array_items};

/// Characters of a statement that are written out more than once: what is said by parts of itself
/// inside of one another doubles at each level.
const COPIES_MAX: usize = 256 << 10;

/// How much of a statement has been written out more than once.
#[derive(Default)]
struct Copies(Cell<usize>);

impl Copies {
    /// So many more copies of a part.
    fn take(&self, part: &impl fmt::Display, copies: usize) -> Result<(), Error> {
        let length = part.to_string().len().saturating_mul(copies);
        let all = self.0.get().saturating_add(length);
        self.0.set(all);
        if all > COPIES_MAX {
            let message = format!(
                "a statement whose rows, IN and ANY are more than {COPIES_MAX} characters when they are written out"
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message)
                .hint("Put the subqueries into WITH or into joins."));
        }
        Ok(())
    }
}

/// Items of an array that is written as a text: each becomes an expression.
const LITERAL_ITEMS_MAX: usize = 10_000;

/// A statement in words that DataFusion reads.
pub fn to_datafusion_dialect(statement: &sql::Statement) -> Result<sql::Statement, Error> {
    super::stack::keep_stack_left();
    let mut statement = statement.clone();
    mend_statement(&mut statement)?;
    let copies = Copies::default();
    let mut queries = Queries {
        is_top: matches!(statement, sql::Statement::Query(_)),
        copies: &copies,
    };
    if let ControlFlow::Break(error) = sql::VisitMut::visit(&mut statement, &mut queries) {
        return Err(error);
    }
    let left_over = sql::visit_expressions(&statement, |expr| {
        rows::refuse(expr)
            .and_then(|()| refuse_bits(expr))
            .map_or_else(ControlFlow::Break, ControlFlow::Continue)
    });
    if let ControlFlow::Break(error) = left_over {
        return Err(error);
    }
    let changed =
        sql::visit_expressions_mut(&mut statement, |expr| match rewritten(expr, &copies) {
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
    if let ControlFlow::Break(error) = changed {
        return Err(error);
    }
    if let sql::Statement::Query(query) = &mut statement {
        names::tell_apart(query);
    }
    Ok(statement)
}

/// Mends the clauses of every query, and its row values.
struct Queries<'c> {
    /// Whether the next query is the statement itself.
    is_top: bool,
    copies: &'c Copies,
}

impl sql::VisitorMut for Queries<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> ControlFlow<Error> {
        let is_top = std::mem::take(&mut self.is_top);
        if !is_top {
            for select in selects::selects(&mut query.body) {
                names::name_columns(select);
            }
        }
        if !is_top {
            keep_order(query);
        }
        clauses::mend(query, is_top, self.copies)
            .map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }

    fn pre_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<Error> {
        match rows::rewritten(expr, self.copies) {
            Ok(Some(said)) => {
                *expr = said;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// DataFusion (55.2) takes a sort away below an OFFSET without LIMIT where nobody asks for the
/// order of what is left; a LIMIT that nothing reaches keeps it.
fn keep_order(query: &mut sql::Query) {
    if let (
        Some(_),
        Some(sql::LimitClause::LimitOffset {
            limit: limit @ None,
            offset: Some(_),
            ..
        }),
    ) = (&query.order_by, &mut query.limit_clause)
    {
        let most = sql::Value::Number((1_u64 << 62).to_string(), false);
        *limit = Some(sql::Expr::value(most));
    }
}

/// A query that is written here.
fn parsed(text: &str) -> Result<Box<sql::Query>, Error> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_query())
        .map_err(|e| Error::internal(format!("a query does not parse: {e}")))
}

/// X'1F' is a string of bits in PostgreSQL, and of bytes in DataFusion.
fn refuse_bits(expr: &sql::Expr) -> Result<(), Error> {
    use sql::Value::{HexStringLiteral, SingleQuotedByteStringLiteral};
    match expr {
        sql::Expr::Value(value)
            if matches!(
                value.value,
                HexStringLiteral(_) | SingleQuotedByteStringLiteral(_)
            ) =>
        {
            Err(Error::unsupported("a string of bits (X'…', B'…')")
                .hint("Bytes are written '\\x1f'::bytea."))
        }
        _ => Ok(()),
    }
}

fn literal(expr: &sql::Expr) -> Option<&str> {
    match expr {
        sql::Expr::Value(value) => match &value.value {
            sql::Value::SingleQuotedString(text) | sql::Value::EscapedStringLiteral(text) => {
                Some(text)
            }
            _ => None,
        },
        sql::Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn rewritten(expr: &sql::Expr, copies: &Copies) -> Result<Option<sql::Expr>, Error> {
    match expr {
        // '{1,2}'::int[] is ARRAY['1'::int, '2'::int].
        sql::Expr::Cast {
            kind,
            expr: inner,
            data_type,
            array,
            format,
        } => {
            if let (Some(text), sql::DataType::Bytea) = (literal(inner), data_type) {
                return Ok(Some(casts::bytea(text)?));
            }
            if let Some(said) = casts::as_type(inner, data_type)? {
                return Ok(Some(said));
            }
            let (Some(text), sql::DataType::Array(sql::ArrayElemTypeDef::SquareBracket(item, _))) =
                (literal(inner), data_type)
            else {
                return Ok(None);
            };
            let items = array_items(text).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidText,
                    format!("malformed array literal: \"{text}\""),
                )
            })?;
            if items.len() > LITERAL_ITEMS_MAX {
                let message = format!("an array literal has more than {LITERAL_ITEMS_MAX} items");
                return Err(Error::new(ErrorKind::LimitExceeded, message)
                    .hint("Join a table or a subquery instead."));
            }
            let value = |text: Option<String>| match text {
                Some(text) => sql::Value::SingleQuotedString(text),
                None => sql::Value::Null,
            };
            let cast = |text: Option<String>| sql::Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(sql::Expr::value(value(text))),
                data_type: (**item).clone(),
                array: *array,
                format: format.clone(),
            };
            // An empty one keeps its type by an item that is taken away again.
            if items.is_empty() {
                let one = sql::Expr::Array(sql::Array {
                    elem: vec![cast(None)],
                    named: true,
                });
                return Ok(Some(call(
                    "array_resize",
                    vec![one, sql::Expr::value(sql::Value::Number("0".into(), false))],
                )));
            }
            let elem = items.into_iter().map(cast).collect();
            Ok(Some(sql::Expr::Array(sql::Array { elem, named: true })))
        }
        sql::Expr::AnyOp {
            left,
            compare_op: sql::BinaryOperator::Eq,
            right,
            ..
        } if takes_its_type(right) => {
            copies.take(left, 1)?;
            let array = call(ANY_ARRAY, vec![(**right).clone(), (**left).clone()]);
            Ok(Some(call("array_has", vec![array, (**left).clone()])))
        }
        sql::Expr::Interval(interval) => {
            Ok(casts::interval_literal(interval)?.map(sql::Expr::Interval))
        }
        sql::Expr::AtTimeZone {
            timestamp,
            time_zone,
        } => Ok(Some(call(
            TIMEZONE,
            vec![(**time_zone).clone(), (**timestamp).clone()],
        ))),
        sql::Expr::Extract { field, expr, .. } => {
            let name = field.to_string();
            let part = part_named(name.trim_matches('\'')).ok_or_else(|| {
                let message = format!("unit \"{name}\" not recognized");
                Error::new(ErrorKind::InvalidParameter, message)
            })?;
            Ok(Some(call(&extract_name(part), vec![(**expr).clone()])))
        }
        sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Minus,
            expr: inner,
        } => match &**inner {
            sql::Expr::Interval(interval) => Ok(casts::negated_interval(interval)?),
            inner => Ok(negated_base(inner).or_else(|| least_bigint(inner))),
        },
        sql::Expr::SimilarTo {
            negated,
            expr,
            pattern,
            escape_char,
        } => like::similar(*negated, expr, pattern, escape_char.as_ref()).map(Some),
        sql::Expr::Like { any: true, .. } | sql::Expr::ILike { any: true, .. } => {
            like::like_any(expr, copies).map(Some)
        }
        sql::Expr::Like {
            pattern,
            escape_char: Some(escape),
            ..
        }
        | sql::Expr::ILike {
            pattern,
            escape_char: Some(escape),
            ..
        } => like::escaped(expr, pattern, escape).map(Some),
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::StringConcat,
            right,
        } if is_null(left) || is_null(right) => {
            let other = if is_null(right) { left } else { right };
            Ok(Some(call(BESIDE_NULL, vec![(**other).clone()])))
        }
        sql::Expr::Between {
            expr: value,
            negated,
            low,
            high,
        } => match &**low {
            sql::Expr::Prefixed { prefix, value: low } if prefix.value == SYMMETRIC => {
                copies.take(expr, 1)?;
                Ok(Some(calls::between_either(value, low, high, *negated)))
            }
            _ => Ok(None),
        },
        sql::Expr::Collate { expr, collation } => calls::collated(expr, collation).map(Some),
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::PGOverlap,
            right,
        } => Ok(Some(call(
            "array_has_any",
            vec![(**left).clone(), (**right).clone()],
        ))),
        sql::Expr::UnaryOp {
            op: sql::UnaryOperator::BitwiseNot,
            expr: inner,
        } => {
            let minus_one = sql::Expr::value(sql::Value::Number("-1".into(), false));
            Ok(Some(binary(&minus_one, sql::BinaryOperator::Minus, inner)))
        }
        // The optimizer makes 0 of it, also of NULL.
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::PGBitwiseXor,
            right,
        } if left == right => Ok(Some(binary(left, sql::BinaryOperator::Minus, right))),
        sql::Expr::CompoundFieldAccess { root, access_chain } => {
            subscripted(root, access_chain, copies)
        }
        sql::Expr::Function(function) => match function.name.to_string().to_lowercase().as_str() {
            "make_interval" => calls::make_interval(function),
            "percentile_disc" => calls::percentile_disc(function, copies),
            "array" => calls::array_of(function),
            name if sets::array_of(name).is_some() => sets::in_list(function),
            _ => called(function, copies),
        },
        _ => Ok(None),
    }
}

fn is_null(expr: &sql::Expr) -> bool {
    matches!(expr, sql::Expr::Value(value) if value.value == sql::Value::Null)
}

/// A parameter or a literal: an array whose type only the other side says.
fn takes_its_type(expr: &sql::Expr) -> bool {
    match expr {
        sql::Expr::Nested(inner) => takes_its_type(inner),
        sql::Expr::Value(value) => {
            matches!(
                value.value,
                sql::Value::Placeholder(_) | sql::Value::SingleQuotedString(_)
            )
        }
        _ => false,
    }
}

fn call(name: &str, args: Vec<sql::Expr>) -> sql::Expr {
    let args = args
        .into_iter()
        .map(|a| sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(a)))
        .collect();
    sql::Expr::Function(sql::Function {
        name: sql::ObjectName::from(vec![sql::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: sql::FunctionArguments::None,
        args: sql::FunctionArguments::List(sql::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn binary(left: &sql::Expr, op: sql::BinaryOperator, right: &sql::Expr) -> sql::Expr {
    let nested = |expr: &sql::Expr| Box::new(sql::Expr::Nested(Box::new(expr.clone())));
    sql::Expr::Nested(Box::new(sql::Expr::BinaryOp {
        left: nested(left),
        op,
        right: nested(right),
    }))
}

/// Functions that mean something else here.
fn called(function: &sql::Function, copies: &Copies) -> Result<Option<sql::Expr>, Error> {
    let is_distinct = matches!(&function.args, sql::FunctionArguments::List(list)
        if list.duplicate_treatment == Some(sql::DuplicateTreatment::Distinct));
    let meant = meant(function);
    // Its values are the keys that they are sorted by.
    if is_distinct && meant.is_some() {
        copies.take(function, 1)?;
    }
    Ok(meant)
}

fn meant(function: &sql::Function) -> Option<sql::Expr> {
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    let sql::FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let args: Vec<sql::Expr> = list
        .args
        .iter()
        .map(|arg| match arg {
            sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    match (name.as_str(), &args[..]) {
        // EXTRACT, in double precision.
        ("date_part", [part, time]) => {
            let part = part_named(literal(part)?)?;
            Some(sql::Expr::Cast {
                kind: sql::CastKind::Cast,
                expr: Box::new(call(&extract_name(part), vec![time.clone()])),
                data_type: sql::DataType::DoublePrecision,
                array: false,
                format: None,
            })
        }
        // Other names.
        ("mod", [left, right]) => Some(binary(left, sql::BinaryOperator::Modulo, right)),
        ("ceiling", [_]) => Some(call("ceil", args)),
        ("sign", [_]) => Some(call("signum", args)),
        ("every", [_]) if function.over.is_none() && function.filter.is_none() => {
            Some(call("bool_and", args))
        }
        ("clock_timestamp" | "statement_timestamp" | "transaction_timestamp", []) => {
            Some(call("now", args))
        }
        // There are no infinite times.
        ("isfinite", [time]) => {
            let known = sql::Expr::IsNotNull(Box::new(sql::Expr::Nested(Box::new(time.clone()))));
            let no = sql::Expr::value(sql::Value::Boolean(false));
            Some(call("nullif", vec![known, no]))
        }
        ("age", [time]) => Some(call(
            "age",
            vec![call("current_date", Vec::new()), time.clone()],
        )),
        ("date", [time]) => Some(casts::cast_to(time.clone(), sql::DataType::Date)),
        // Of an empty array it is NULL.
        ("array_upper" | "array_length", [_, _]) => {
            let zero = sql::Expr::value(sql::Value::Number("0".into(), false));
            let length = casts::cast_to(call("array_length", args), sql::DataType::Integer(None));
            Some(call("nullif", vec![length, zero]))
        }
        // What is distinct comes sorted.
        ("array_agg" | "string_agg", [value, ..])
            if list.duplicate_treatment == Some(sql::DuplicateTreatment::Distinct)
                && list.clauses.is_empty() =>
        {
            let mut sorted = function.clone();
            if let sql::FunctionArguments::List(list) = &mut sorted.args {
                let key = sql::OrderByExpr {
                    expr: value.clone(),
                    options: sql::OrderByOptions::default(),
                    with_fill: None,
                };
                list.clauses
                    .push(sql::FunctionArgumentClause::OrderBy(vec![key]));
            }
            Some(sql::Expr::Function(sorted))
        }
        // A dollar is a dollar; groups are \1, \2, …
        ("regexp_replace", [text, pattern, with, flags @ ..]) if !matches!(with, sql::Expr::Function(f) if f.name.to_string() == "replace") =>
        {
            let text_of = |t: &str| sql::Expr::value(sql::Value::SingleQuotedString(t.into()));
            let with = match literal(with) {
                Some(with) if !with.contains('$') => return None,
                Some(with) => text_of(&with.replace('$', "$$")),
                None => call("replace", vec![with.clone(), text_of("$"), text_of("$$")]),
            };
            let mut args = vec![text.clone(), pattern.clone(), with];
            args.extend_from_slice(flags);
            Some(call("regexp_replace", args))
        }
        _ => None,
    }
}

/// `-2 ^ 2` is (-2) ^ 2.
fn negated_base(inner: &sql::Expr) -> Option<sql::Expr> {
    let sql::Expr::BinaryOp {
        left,
        op: op @ (sql::BinaryOperator::PGExp | sql::BinaryOperator::BitwiseXor),
        right,
    } = inner
    else {
        return None;
    };
    Some(sql::Expr::BinaryOp {
        left: Box::new(sql::Expr::Nested(Box::new(sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Minus,
            expr: left.clone(),
        }))),
        op: op.clone(),
        right: right.clone(),
    })
}

/// The least bigint is one, although its digits alone are none.
fn least_bigint(inner: &sql::Expr) -> Option<sql::Expr> {
    let sql::Expr::Cast { expr, .. } = inner else {
        return None;
    };
    let digits = i64::MIN.unsigned_abs().to_string();
    let is_least = matches!(&**expr, sql::Expr::Value(value)
        if matches!(&value.value, sql::Value::Number(said, _) if *said == digits));
    is_least.then(|| sql::Expr::value(sql::Value::Number(format!("-{digits}"), false)))
}

/// `a[-1]` and `a[0]` are NULL: counting from the end is DataFusion's.
fn subscripted(
    root: &sql::Expr,
    chain: &[sql::AccessExpr],
    copies: &Copies,
) -> Result<Option<sql::Expr>, Error> {
    let mut chain = chain.to_vec();
    let mut is_changed = false;
    let number = |digits: &str| sql::Expr::value(sql::Value::Number(digits.into(), false));
    for access in &mut chain {
        let sql::AccessExpr::Subscript(sql::Subscript::Index { index }) = access else {
            if let sql::AccessExpr::Subscript(sql::Subscript::Slice {
                lower_bound,
                upper_bound,
                stride: None,
            }) = access
            {
                // What is left out is the end; nothing is counted from there.
                let within = |bound: &Option<sql::Expr>, least: &str, otherwise: &str| {
                    let Some(bound) = bound else {
                        return Ok(number(otherwise));
                    };
                    copies.take(bound, 1)?;
                    // Of a NULL, which greatest() passes over, it is NULL.
                    Ok(sql::Expr::Case {
                        case_token: sql::helpers::attached_token::AttachedToken::empty(),
                        end_token: sql::helpers::attached_token::AttachedToken::empty(),
                        operand: None,
                        conditions: vec![sql::CaseWhen {
                            condition: sql::Expr::IsNotNull(Box::new(sql::Expr::Nested(Box::new(
                                bound.clone(),
                            )))),
                            result: call("greatest", vec![bound.clone(), number(least)]),
                        }],
                        else_result: None,
                    })
                };
                *lower_bound = Some(within(lower_bound, "1", "1")?);
                *upper_bound = Some(within(upper_bound, "0", "2147483647")?);
                is_changed = true;
            }
            continue;
        };
        let is_plain =
            matches!(index, sql::Expr::Value(v) if matches!(v.value, sql::Value::Number(..)));
        let is_done = matches!(index, sql::Expr::Function(f) if f.name.to_string() == "nullif");
        if is_plain || is_done {
            continue;
        }
        let zero = || sql::Expr::value(sql::Value::Number("0".into(), false));
        let positive = call("greatest", vec![index.clone(), zero()]);
        *index = call("nullif", vec![positive, zero()]);
        is_changed = true;
    }
    Ok(is_changed.then(|| sql::Expr::CompoundFieldAccess {
        root: Box::new(root.clone()),
        access_chain: chain,
    }))
}

fn folded(name: &sql::Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, parse_one};

    fn reads(text: &str) -> String {
        let Ok(Statement::Sql(ast)) = parse_one(text) else {
            panic!("{text}")
        };
        to_datafusion_dialect(&ast).map_or_else(|e| e.kind.sqlstate().to_owned(), |s| s.to_string())
    }

    #[test]
    fn rewriting_has_a_size_limit() {
        let nested = |open: &str, inner: &str, close: &str, depth: usize| {
            format!(
                "SELECT {}{inner}{} FROM x",
                open.repeat(depth),
                close.repeat(depth)
            )
        };
        for text in [
            nested("a IN (SELECT (", "1", ")::int)", 10),
            nested("((", "true", ")::int, 1) < (2, 3)", 18),
            nested("(", "1 = ANY (ARRAY[1])", ") = ANY (ARRAY[true])", 18),
            nested("(", "1", " = ANY ('{1}'))", 18),
            nested("a[", "1", ":1]", 18),
            nested("array_agg(DISTINCT ", "a", ")", 18),
            nested("percentile_disc(0.5) WITHIN GROUP (ORDER BY ", "a", ")", 10),
            nested(
                "(",
                "'x'",
                "::text LIKE ANY (ARRAY['a', 'b', 'c']))::text",
                10,
            ),
        ] {
            let Ok(Statement::Sql(ast)) = parse_one(&text) else {
                panic!("{text}")
            };
            let Err(error) = to_datafusion_dialect(&ast) else {
                panic!("{text} is rewritten")
            };
            assert_eq!(error.kind, ErrorKind::LimitExceeded, "{text}");
            assert!(error.message.contains("written out"), "{error}: {text}");
        }
        // Subqueries in one another are not.
        let text = nested("(SELECT ", "a", " FROM x ORDER BY 1 LIMIT 1)", 20);
        assert!(reads(&text).len() < 20 * text.len(), "{text}");
    }

    #[test]
    fn what_datafusion_does_not_read_is_said_in_its_words() {
        for (said, read) in [
            (
                "SELECT '{1,NULL}'::INT[]",
                "SELECT ARRAY['1'::INT, NULL::INT]",
            ),
            ("SELECT '{1'::INT[]", "22P02"),
            (
                "SELECT to_char(t, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') FROM x",
                "SELECT to_char(t, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') FROM x",
            ),
            (
                "SELECT to_char(t, '%Y') FROM x",
                "SELECT to_char(t, '%Y') FROM x",
            ),
            (
                "SELECT to_char(t, 'J') FROM x",
                "SELECT to_char(t, 'J') FROM x",
            ),
            (
                "SELECT a FROM x WHERE a = ANY($1)",
                "SELECT a FROM x WHERE array_has(any_array($1, a), a)",
            ),
            (
                "SELECT a FROM x WHERE a = ANY(ARRAY[1])",
                "SELECT a FROM x WHERE a = ANY(ARRAY[1])",
            ),
            ("SELECT '\\x00ff'::bytea", "SELECT X'00ff'"),
            ("SELECT '\\x0'::bytea", "22P02"),
            (
                "SELECT '1 day 02:03:04.5'::interval",
                "SELECT INTERVAL '0 months 1 days 7384.500000 seconds'",
            ),
            (
                "SELECT -INTERVAL '1-2' YEAR TO MONTH",
                "SELECT INTERVAL '-14 months 0 days 0.000000 seconds'",
            ),
            ("SELECT '1.50'::numeric", "SELECT 1.50"),
            ("SELECT a::numeric FROM x", "SELECT as_numeric(a) FROM x"),
            (
                "SELECT a::varchar(3) FROM x",
                "SELECT left(CAST(a AS TEXT), 3) FROM x",
            ),
            (
                "SELECT a FROM x WHERE (a, b) < (1, 2)",
                "SELECT a FROM x WHERE (((a) < (1)) OR (((a) = (1)) AND ((b) < (2))))",
            ),
            (
                "SELECT sum(a) OVER (w ORDER BY b) FROM x WINDOW w AS (PARTITION BY c)",
                "SELECT sum(a) OVER (PARTITION BY c ORDER BY b) FROM x",
            ),
            (
                "SELECT a LIKE 'x!%' ESCAPE '!' FROM x",
                "SELECT a LIKE 'x\\%' FROM x",
            ),
            ("SELECT -2 ^ 2", "SELECT (-2) ^ 2"),
            (
                "SELECT NULL, NULL",
                "SELECT NULL, NULL AS \"?column?\u{1}2\"",
            ),
            (
                "SELECT a, b, A FROM x",
                "SELECT a, b, A AS \"a\u{1}3\" FROM x",
            ),
        ] {
            assert_eq!(reads(said), read, "{said}");
        }
    }
}
