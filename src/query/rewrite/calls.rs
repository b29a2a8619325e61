//! Calls whose arguments are said in ways of their own.

use datafusion::sql::sqlparser::ast as sql;

use super::{Copies, binary, call, casts};
use crate::error::{Error, ErrorKind};

/// The parts of an interval, in the order of its arguments.
const PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

fn number(digits: &str) -> sql::Expr {
    sql::Expr::value(sql::Value::Number(digits.into(), false))
}

/// `make_interval(days => 10)`: parts by name, or by place, and those that are not named are 0.
pub(super) fn make_interval(function: &sql::Function) -> Result<Option<sql::Expr>, Error> {
    let sql::FunctionArguments::List(list) = &function.args else {
        return Ok(None);
    };
    let unknown = || {
        let message = format!("function {function} does not exist");
        Error::new(ErrorKind::UndefinedFunction, message)
            .hint(format!("The parts are {}.", PARTS.join(", ")))
    };
    let mut parts = vec![None; PARTS.len()];
    for (place, arg) in list.args.iter().enumerate() {
        let (at, value) = match arg {
            sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(value)) => (Some(place), value),
            sql::FunctionArg::Named {
                name,
                arg: sql::FunctionArgExpr::Expr(value),
                ..
            } => {
                let name = super::folded(name);
                (PARTS.iter().position(|part| *part == name), value)
            }
            _ => return Err(unknown()),
        };
        let part = at.and_then(|at| parts.get_mut(at)).ok_or_else(unknown)?;
        if part.replace(value.clone()).is_some() {
            return Err(unknown());
        }
    }
    if list.args.len() == PARTS.len() && list.args.iter().all(is_unnamed) {
        return Ok(None);
    }
    let parts = parts
        .into_iter()
        .map(|part| part.unwrap_or_else(|| number("0")));
    Ok(Some(call("make_interval", parts.collect())))
}

fn is_unnamed(arg: &sql::FunctionArg) -> bool {
    matches!(arg, sql::FunctionArg::Unnamed(_))
}

/// `percentile_disc(0.9) WITHIN GROUP (ORDER BY x)`: the first of the sorted values at which so
/// large a share of them has come.
pub(super) fn percentile_disc(
    function: &sql::Function,
    copies: &Copies,
) -> Result<Option<sql::Expr>, Error> {
    let sql::FunctionArguments::List(list) = &function.args else {
        return Ok(None);
    };
    let ([sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(share))], [key]) =
        (&list.args[..], &function.within_group[..])
    else {
        let message = "WITHIN GROUP is required for ordered-set aggregate percentile_disc";
        return Err(Error::new(ErrorKind::DatatypeMismatch, message));
    };
    let written = match share {
        sql::Expr::Value(value) => match &value.value {
            sql::Value::Number(digits, _) => digits.parse::<f64>().ok(),
            _ => None,
        },
        _ => None,
    };
    match written {
        Some(share) if (0.0..=1.0).contains(&share) => {}
        Some(share) => {
            let message = format!("percentile value {share} is not between 0 and 1");
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        None => {
            return Err(Error::unsupported("percentile_disc of what is no literal")
                .hint("Write the share out, as in percentile_disc(0.9)."));
        }
    }
    if function.over.is_some() {
        return Err(Error::unsupported(
            "OVER for the ordered-set aggregate percentile_disc",
        ));
    }
    copies.take(function, 4)?;
    let nested = |expr: sql::Expr| Box::new(sql::Expr::Nested(Box::new(expr)));
    let known = sql::Expr::IsNotNull(nested(key.expr.clone()));
    let filter = match &function.filter {
        None => known,
        Some(filter) => sql::Expr::BinaryOp {
            left: nested((**filter).clone()),
            op: sql::BinaryOperator::And,
            right: nested(known),
        },
    };
    let aggregate = |name: &str, order: Vec<sql::OrderByExpr>| {
        let mut of = call(name, vec![key.expr.clone()]);
        if let sql::Expr::Function(of) = &mut of {
            of.filter = Some(Box::new(filter.clone()));
            if let (false, sql::FunctionArguments::List(list)) = (order.is_empty(), &mut of.args) {
                list.clauses
                    .push(sql::FunctionArgumentClause::OrderBy(order));
            }
        }
        of
    };
    let sorted = aggregate("array_agg", vec![key.clone()]);
    let place = sql::Expr::BinaryOp {
        left: nested(casts::cast_to(
            share.clone(),
            sql::DataType::DoublePrecision,
        )),
        op: sql::BinaryOperator::Multiply,
        right: nested(casts::cast_to(
            aggregate("count", Vec::new()),
            sql::DataType::DoublePrecision,
        )),
    };
    let place = casts::cast_to(call("ceil", vec![place]), sql::DataType::BigInt(None));
    let place = call("greatest", vec![place, number("1")]);
    // A subscript of array_agg would be made an aggregate of its own.
    Ok(Some(call("array_element", vec![sorted, place])))
}

/// `x BETWEEN SYMMETRIC a AND b`: between the two, whichever is the lower.
pub(super) fn between_either(
    value: &sql::Expr,
    first: &sql::Expr,
    second: &sql::Expr,
    negated: bool,
) -> sql::Expr {
    let nested = |expr: &sql::Expr| Box::new(sql::Expr::Nested(Box::new(expr.clone())));
    let between = |low, high| sql::Expr::Between {
        expr: nested(value),
        negated: false,
        low: nested(low),
        high: nested(high),
    };
    let either = binary(
        &between(first, second),
        sql::BinaryOperator::Or,
        &between(second, first),
    );
    if negated {
        return sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Not,
            expr: Box::new(either),
        };
    }
    either
}

/// Texts are compared by their bytes, as in these collations.
const BYTEWISE: [&str; 6] = ["C", "POSIX", "default", "ucs_basic", "C.UTF-8", "C.utf8"];

pub(super) fn collated(expr: &sql::Expr, collation: &sql::ObjectName) -> Result<sql::Expr, Error> {
    let name = collation.0.last().and_then(|name| name.as_ident());
    if name.is_some_and(|name| BYTEWISE.contains(&super::folded(name).as_str())) {
        return Ok(sql::Expr::Nested(Box::new(expr.clone())));
    }
    Err(
        Error::unsupported(format_args!("the collation {collation}"))
            .hint("Texts are compared by their bytes, as COLLATE \"C\" does."),
    )
}

/// `ARRAY(SELECT …)`: the values of a subquery, in its order.
pub(super) fn array_of(function: &sql::Function) -> Result<Option<sql::Expr>, Error> {
    let sql::FunctionArguments::Subquery(query) = &function.args else {
        return Ok(None);
    };
    let refused = || {
        Error::unsupported("ARRAY of such a subquery").hint(
            "Its one column may be a column or an expression without aggregates, and its ORDER BY that column.",
        )
    };
    let (item, keys) = (
        sql::Ident::with_quote('"', "\u{1}item"),
        query.order_by.clone(),
    );
    let mut rows = (**query).clone();
    let mut keys = match keys.map(|by| by.kind) {
        None => Vec::new(),
        Some(sql::OrderByKind::Expressions(keys)) => keys,
        Some(sql::OrderByKind::All(_)) => return Err(refused()),
    };
    let sql::SetExpr::Select(select) = &mut *rows.body else {
        return Err(refused());
    };
    let (value, alias) = match &select.projection[..] {
        [sql::SelectItem::UnnamedExpr(value)] => (value.clone(), None),
        [sql::SelectItem::ExprWithAlias { expr, alias }] => (expr.clone(), Some(alias.clone())),
        _ => return Err(refused()),
    };
    let aggregate = |value: sql::Expr, keys: Vec<sql::OrderByExpr>| {
        let mut all = call("array_agg", vec![value]);
        if let (false, sql::Expr::Function(of)) = (keys.is_empty(), &mut all)
            && let sql::FunctionArguments::List(list) = &mut of.args
        {
            list.clauses
                .push(sql::FunctionArgumentClause::OrderBy(keys));
        }
        sql::SelectItem::UnnamedExpr(all)
    };
    let is_itself = |key: &sql::Expr| {
        *key == value
            || matches!(key, sql::Expr::Value(place) if place.to_string() == "1")
            || matches!((key, &alias), (sql::Expr::Identifier(name), Some(alias))
                if super::folded(name) == super::folded(alias))
    };
    if super::subqueries::is_plain(&rows) {
        for key in &mut keys {
            if is_itself(&key.expr) {
                key.expr = value.clone();
            }
        }
        let sql::SetExpr::Select(select) = &mut *rows.body else {
            return Err(refused());
        };
        select.projection = vec![aggregate(value, keys)];
        rows.order_by = None;
        return Ok(Some(call(
            super::ARRAY_OR_EMPTY,
            vec![sql::Expr::Subquery(Box::new(rows))],
        )));
    }
    for key in &mut keys {
        if !is_itself(&key.expr) {
            return Err(refused());
        }
        key.expr = sql::Expr::Identifier(item.clone());
    }
    if rows.limit_clause.is_none() {
        rows.order_by = None;
    }
    let all = aggregate(sql::Expr::Identifier(item.clone()), keys);
    let text = "SELECT 1 FROM (SELECT 1) AS \"\u{1}array\"(\"\u{1}item\")";
    let mut outer = super::parsed(text)?;
    if let sql::SetExpr::Select(select) = &mut *outer.body {
        select.projection = vec![all];
        if let [
            sql::TableWithJoins {
                relation: sql::TableFactor::Derived { subquery, .. },
                ..
            },
        ] = &mut select.from[..]
        {
            **subquery = rows;
        }
    }
    Ok(Some(call(
        super::ARRAY_OR_EMPTY,
        vec![sql::Expr::Subquery(outer)],
    )))
}
