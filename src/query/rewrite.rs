//! PostgreSQL's ways of saying things that DataFusion reads in another way or not at all, said in
//! its own. Each change means exactly what it replaces, and what it replaces would be an error.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::Visit;

use super::any_array::ANY_ARRAY;
use super::fence::mend_statement;
use super::meaning::{EXTRACTED, TIMEZONE};
use crate::catalog::chrono_pattern;
use crate::error::{Error, ErrorKind};
use crate::statement::{array_items, date_before_time, interval_text};

/// Items of an array that is written as a text: each becomes an expression.
const LITERAL_ITEMS_MAX: usize = 10_000;

/// A statement in words that DataFusion reads.
pub fn to_datafusion_dialect(statement: &sql::Statement) -> Result<sql::Statement, Error> {
    let mut statement = statement.clone();
    mend_statement(&mut statement)?;
    if let ControlFlow::Break(error) = statement.visit(&mut CountedSets) {
        return Err(error);
    }
    let changed = sql::visit_expressions_mut(&mut statement, |expr| match rewritten(expr) {
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
        tell_apart(query);
    }
    Ok(statement)
}

/// Finds INTERSECT ALL and EXCEPT ALL, for which DataFusion does not count how often a row comes.
struct CountedSets;

impl sql::Visitor for CountedSets {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<Error> {
        fn look(body: &sql::SetExpr) -> ControlFlow<Error> {
            let sql::SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } = body
            else {
                return ControlFlow::Continue(());
            };
            let counts = *set_quantifier == sql::SetQuantifier::All;
            if counts && *op != sql::SetOperator::Union {
                return ControlFlow::Break(Error::unsupported(format_args!("{op} ALL")).hint(
                    "Number the rows with row_number() OVER (PARTITION BY …) and leave ALL out.",
                ));
            }
            look(left)?;
            look(right)
        }
        look(&query.body)
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

fn rewritten(expr: &sql::Expr) -> Result<Option<sql::Expr>, Error> {
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
                return Ok(Some(bytea(text)?));
            }
            let said_so = match (literal(inner), data_type) {
                (Some(text), sql::DataType::Date) => date_before_time(text).map(str::to_owned),
                (Some(text), sql::DataType::Interval { .. }) => interval_text(text),
                _ => None,
            };
            if let Some(text) = said_so {
                return Ok(Some(sql::Expr::Cast {
                    kind: kind.clone(),
                    expr: Box::new(sql::Expr::value(sql::Value::SingleQuotedString(text))),
                    data_type: data_type.clone(),
                    array: *array,
                    format: format.clone(),
                }));
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
            let array = call(ANY_ARRAY, vec![(**right).clone(), (**left).clone()]);
            Ok(Some(call("array_has", vec![array, (**left).clone()])))
        }
        sql::Expr::Interval(interval) => {
            let Some(text) = literal(&interval.value).and_then(interval_text) else {
                return Ok(None);
            };
            let value = Box::new(sql::Expr::value(sql::Value::SingleQuotedString(text)));
            Ok(Some(sql::Expr::Interval(sql::Interval {
                value,
                ..interval.clone()
            })))
        }
        sql::Expr::AtTimeZone {
            timestamp,
            time_zone,
        } => Ok(Some(call(
            TIMEZONE,
            vec![(**time_zone).clone(), (**timestamp).clone()],
        ))),
        sql::Expr::Extract { field, expr, .. } => {
            use sql::DateTimeField as F;
            let [second, milliseconds, epoch] = EXTRACTED;
            let name = match field {
                F::Second | F::Seconds => second,
                F::Millisecond | F::Milliseconds => milliseconds,
                F::Epoch => epoch,
                _ => return Ok(None),
            };
            Ok(Some(call(name, vec![(**expr).clone()])))
        }
        sql::Expr::Function(function) if function.name.to_string() == "generate_series" => {
            Err(Error::unsupported("generate_series outside FROM")
                .hint("Say SELECT n FROM generate_series(1, 3) AS g(n)."))
        }
        sql::Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("sum") => {
            Ok(sum_of_integers(function))
        }
        sql::Expr::Function(function) => Ok(with_pattern(function)),
        _ => Ok(None),
    }
}

/// `sum(1)` and `sum(CASE WHEN … THEN 1 ELSE 0 END)`: a whole number is an integer, whose sum is a
/// bigint, where DataFusion has a bigint, whose sum is a numeric.
fn sum_of_integers(function: &sql::Function) -> Option<sql::Expr> {
    let mut function = function.clone();
    let sql::FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    let [sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(summed))] = &mut list.args[..] else {
        return None;
    };
    as_integers(summed).then_some(sql::Expr::Function(function))
}

/// Makes integers of the whole numbers that an expression can come to; whether there were any.
fn as_integers(expr: &mut sql::Expr) -> bool {
    match expr {
        sql::Expr::Value(value) => {
            let sql::Value::Number(digits, false) = &value.value else {
                return false;
            };
            if digits.parse::<i32>().is_err() {
                return false;
            }
            *expr = sql::Expr::Cast {
                kind: sql::CastKind::Cast,
                expr: Box::new(expr.clone()),
                data_type: sql::DataType::Integer(None),
                array: false,
                format: None,
            };
            true
        }
        sql::Expr::Nested(inner) | sql::Expr::UnaryOp { expr: inner, .. } => as_integers(inner),
        sql::Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let mut is_changed = false;
            for when in conditions {
                is_changed |= as_integers(&mut when.result);
            }
            if let Some(otherwise) = else_result {
                is_changed |= as_integers(otherwise);
            }
            is_changed
        }
        _ => false,
    }
}

/// `'\x00ff'::bytea` is X'00ff'; other texts are their own bytes.
fn bytea(text: &str) -> Result<sql::Expr, Error> {
    let digits = match text.strip_prefix("\\x") {
        Some(digits) if hex::decode(digits).is_ok() => digits.to_owned(),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidText,
                "invalid hexadecimal data for type bytea",
            ));
        }
        None => hex::encode(text),
    };
    Ok(sql::Expr::value(sql::Value::HexStringLiteral(digits)))
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

/// `to_char(t, 'YYYY-MM-DD')` and `to_timestamp('…', 'YYYY…')` with chrono's pattern.
fn with_pattern(function: &sql::Function) -> Option<sql::Expr> {
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    if name != "to_char" && name != "to_timestamp" {
        return None;
    }
    let sql::FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let [
        value,
        sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(pattern)),
    ] = list.args.as_slice()
    else {
        return None;
    };
    let translated = chrono_pattern(literal(pattern)?, None)?;
    let pattern = sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(sql::Expr::value(
        sql::Value::SingleQuotedString(translated),
    )));
    let list = sql::FunctionArgumentList {
        args: vec![value.clone(), pattern],
        ..list.clone()
    };
    Some(sql::Expr::Function(sql::Function {
        args: sql::FunctionArguments::List(list),
        ..function.clone()
    }))
}

/// Gives items of the SELECT list that say the same a name of their own: DataFusion refuses two
/// columns of one name. Clients are told PostgreSQL's names.
fn tell_apart(query: &mut sql::Query) {
    let sql::SetExpr::Select(select) = &mut *query.body else {
        return;
    };
    let has_star = select.projection.iter().any(|i| {
        matches!(
            i,
            sql::SelectItem::Wildcard(_) | sql::SelectItem::QualifiedWildcard(..)
        )
    });
    let mut seen = HashSet::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let sql::SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let is_column = matches!(
            expr,
            sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_)
        );
        let said_before = !seen.insert(without_casts(expr).to_string().to_lowercase());
        if said_before || has_star && is_column {
            let alias = sql::Ident::with_quote(
                '"',
                format!("{}\u{1}{}", crate::statement::column_name(expr), i + 1),
            );
            *item = sql::SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias,
            };
        }
    }
}

/// DataFusion names a cast by what is cast.
fn without_casts(expr: &sql::Expr) -> &sql::Expr {
    match expr {
        sql::Expr::Cast { expr, .. } | sql::Expr::Nested(expr) => without_casts(expr),
        other => other,
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
    fn what_datafusion_does_not_read_is_said_in_its_words() {
        for (said, read) in [
            (
                "SELECT '{1,NULL}'::INT[]",
                "SELECT ARRAY['1'::INT, NULL::INT]",
            ),
            ("SELECT '{1'::INT[]", "22P02"),
            (
                "SELECT to_char(t, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') FROM x",
                "SELECT to_char(t, '%Y-%m-%dT%H:%M:%S.%3f') FROM x",
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
                "SELECT '2024-01-02 03:04:05.6 +00'::date",
                "SELECT '2024-01-02'::DATE",
            ),
            (
                "SELECT '2024-01-02 2 apples'::date",
                "SELECT '2024-01-02 2 apples'::DATE",
            ),
            (
                "SELECT '1 day 02:03:04.5'::interval",
                "SELECT '1 day 2 hours 3 minutes 4.5 seconds'::INTERVAL",
            ),
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
