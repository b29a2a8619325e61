//! SIMILAR TO, LIKE with an escape of its own, and LIKE ANY.

use datafusion::sql::sqlparser::ast as sql;
use starkeep_pg_semantics::like::similar_to;

use super::{Copies, literal};
use crate::error::{Error, ErrorKind};

fn escape_of(escape: Option<&sql::ValueWithSpan>) -> Result<Option<char>, Error> {
    let Some(escape) = escape else {
        return Ok(Some('\\'));
    };
    let sql::Value::SingleQuotedString(text) = &escape.value else {
        return Err(Error::unsupported("ESCAPE of anything but a literal"));
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (first, None) => Ok(first),
        _ => Err(
            Error::new(ErrorKind::InvalidEscape, "invalid escape string")
                .hint("Escape string must be empty or one character."),
        ),
    }
}

/// SIMILAR TO as a regular expression.
pub(super) fn similar(
    negated: bool,
    expr: &sql::Expr,
    pattern: &sql::Expr,
    escape: Option<&sql::ValueWithSpan>,
) -> Result<sql::Expr, Error> {
    let Some(pattern) = literal(pattern) else {
        return Err(
            Error::unsupported("SIMILAR TO with a pattern that is no literal")
                .hint("Say it as a regular expression, with ~."),
        );
    };
    let regex = similar_to(pattern, escape_of(escape)?)?;
    Ok(sql::Expr::BinaryOp {
        left: Box::new(sql::Expr::Nested(Box::new(expr.clone()))),
        op: if negated {
            sql::BinaryOperator::PGRegexNotMatch
        } else {
            sql::BinaryOperator::PGRegexMatch
        },
        right: Box::new(sql::Expr::value(sql::Value::SingleQuotedString(regex))),
    })
}

/// `LIKE … ESCAPE '!'` with a backslash for the escape.
pub(super) fn escaped(
    like: &sql::Expr,
    pattern: &sql::Expr,
    escape: &sql::ValueWithSpan,
) -> Result<sql::Expr, Error> {
    let Some(text) = literal(pattern) else {
        return Err(
            Error::unsupported("LIKE … ESCAPE with a pattern that is no literal")
                .hint("Escape with a backslash, and leave ESCAPE out."),
        );
    };
    let escape = escape_of(Some(escape))?;
    let mut said = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let Some(next) = chars.next() else {
                let message = "LIKE pattern must not end with escape character";
                return Err(Error::new(ErrorKind::InvalidEscape, message));
            };
            if matches!(next, '%' | '_' | '\\') {
                said.push('\\');
            }
            said.push(next);
        } else {
            if c == '\\' {
                said.push('\\');
            }
            said.push(c);
        }
    }
    let mut like = like.clone();
    if let sql::Expr::Like {
        pattern,
        escape_char,
        ..
    }
    | sql::Expr::ILike {
        pattern,
        escape_char,
        ..
    } = &mut like
    {
        **pattern = sql::Expr::value(sql::Value::SingleQuotedString(said));
        *escape_char = None;
    }
    Ok(like)
}

/// `a LIKE ANY (ARRAY['x%', 'y%'])`: one after the other.
pub(super) fn like_any(like: &sql::Expr, copies: &Copies) -> Result<sql::Expr, Error> {
    let (sql::Expr::Like { pattern, .. } | sql::Expr::ILike { pattern, .. }) = like else {
        return Err(Error::internal("no LIKE"));
    };
    let mut patterns = &**pattern;
    while let sql::Expr::Nested(inner) = patterns {
        patterns = inner;
    }
    let items = match patterns {
        sql::Expr::Array(array) => array.elem.clone(),
        sql::Expr::Tuple(items) => items.clone(),
        _ => return Err(Error::unsupported("LIKE ANY of anything but ARRAY[…]")),
    };
    copies.take(like, items.len())?;
    let one = |item: &sql::Expr| {
        let mut like = like.clone();
        if let sql::Expr::Like { any, pattern, .. } | sql::Expr::ILike { any, pattern, .. } =
            &mut like
        {
            *any = false;
            **pattern = item.clone();
        }
        sql::Expr::Nested(Box::new(like))
    };
    let all = items
        .iter()
        .map(one)
        .reduce(|left, right| sql::Expr::BinaryOp {
            left: Box::new(left),
            op: sql::BinaryOperator::Or,
            right: Box::new(right),
        });
    all.map(|all| sql::Expr::Nested(Box::new(all)))
        .ok_or_else(|| Error::unsupported("LIKE ANY of no pattern"))
}
