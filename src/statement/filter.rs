//! `WHERE … ORDER BY … LIMIT …` after a SHOW: read by sqlparser under MySQL's rules, which are
//! StarRocks' own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self as sql, BinaryOperator, Expr, Value, VisitorMut};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser as SqlParser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token as SqlToken;

use super::ast::{Filter, OrderBy};
use super::dialect::mysql;
use super::lexer::{Spanned, Token};
use super::parser::Parser;
use crate::error::{Error, ErrorKind};

const SNAPSHOT_WHERE: &str = "Where clause should looks like: SNAPSHOT = 'your_snapshot_name' [AND TIMESTAMP = '2018-04-18-19-19-10']";

impl Parser<'_> {
    /// Everything that is left, as a filter; `Filter::default()` if nothing is.
    pub(super) fn filter(&mut self) -> Result<Filter, Error> {
        if !["WHERE", "ORDER", "LIMIT"]
            .iter()
            .any(|word| self.is_word(word))
        {
            return Ok(Filter::default());
        }
        let at = self.offset();
        let reading = self.reading();
        let (text, tokens) = self.rest();
        let text = &without_comments(text, at, tokens);
        // What StarRocks' lexer does not know may mean something to MySQL's: # is a comment there.
        if let Some(stray) = tokens.iter().find(|t| {
            matches!(
                t.token,
                Token::Symbol('#' | '\\' | '@' | '?' | '$' | '{' | '}')
            )
        }) {
            let message = format!(
                "syntax error at or near \"{}\"",
                &text[stray.start - at..stray.end - at]
            );
            return Err(Error::new(ErrorKind::Syntax, message).at(stray.start));
        }
        let (filter, _) = mysql(reading).read(text, read_filter).map_err(|error| {
            if error.position.is_some() {
                error.shifted(at)
            } else {
                error.at(at)
            }
        })?;
        let exprs = filter
            .predicate
            .iter()
            .chain(filter.order_by.iter().map(|o| &o.expr));
        if exprs.into_iter().any(has_subquery) {
            return Err(Error::unsupported("a subquery in SHOW").at(at));
        }
        Ok(filter)
    }

    /// `LIKE 'pattern'` of StarRocks 2.x, about this column; else any filter.
    pub(super) fn like_or_filter(&mut self, column: &str) -> Result<Filter, Error> {
        if !self.eat("LIKE") {
            return self.filter();
        }
        let pattern = self.string("a pattern in quotes")?;
        let predicate = Expr::Like {
            negated: false,
            any: false,
            expr: Box::new(Expr::Identifier(sql::Ident::new(column))),
            pattern: Box::new(Expr::value(Value::SingleQuotedString(pattern))),
            escape_char: None,
        };
        Ok(Filter {
            predicate: Some(predicate),
            ..Filter::default()
        })
    }
}

/// The text with blanks in the place of everything between tokens, byte for byte: what is a comment
/// is StarRocks' matter, and MySQL reads `--c` as two signs.
fn without_comments(text: &str, at: usize, tokens: &[Spanned]) -> String {
    let mut plain = String::with_capacity(text.len());
    for token in tokens {
        plain.extend(std::iter::repeat_n(' ', token.start - at - plain.len()));
        plain.push_str(&text[token.start - at..token.end - at]);
    }
    plain
}

fn read_filter(parser: &mut SqlParser<'_>) -> Result<Filter, ParserError> {
    let mut filter = Filter::default();
    if parser.parse_keyword(Keyword::WHERE) {
        filter.predicate = Some(with_plain_strings(parser.parse_expr()?));
    }
    if parser.parse_keywords(&[Keyword::ORDER, Keyword::BY]) {
        for item in parser.parse_comma_separated(SqlParser::parse_order_by_expr)? {
            let sql::OrderByExpr { expr, options, .. } = item;
            filter.order_by.push(OrderBy {
                expr: with_plain_strings(expr),
                descending: options.asc == Some(false),
                nulls_first: options.nulls_first,
            });
        }
    }
    if parser.parse_keyword(Keyword::LIMIT) {
        let first = parser.parse_literal_uint()?;
        if parser.consume_token(&SqlToken::Comma) {
            filter.offset = first;
            filter.limit = Some(parser.parse_literal_uint()?);
        } else {
            filter.limit = Some(first);
            if parser.parse_keyword(Keyword::OFFSET) {
                filter.offset = parser.parse_literal_uint()?;
            }
        }
    }
    match parser.peek_token().token {
        SqlToken::EOF => Ok(filter),
        _ => parser.expected("end of statement", parser.peek_token()),
    }
}

/// The same expression with MySQL's double-quoted strings as strings.
pub(super) fn with_plain_strings(mut expr: Expr) -> Expr {
    struct Plain;
    impl VisitorMut for Plain {
        type Break = ();
        fn pre_visit_value(&mut self, value: &mut sql::ValueWithSpan) -> ControlFlow<()> {
            if let Value::DoubleQuotedString(text) = &mut value.value {
                value.value = Value::SingleQuotedString(std::mem::take(text));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql::VisitMut::visit(&mut expr, &mut Plain);
    expr
}

fn has_subquery(expr: &Expr) -> bool {
    let found = sql::visit_expressions(expr, |e| match e {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// What a name in a filter stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// This column of the answer, spelled exactly.
    Column(String),
    Text(String),
}

/// Puts what they stand for in the place of names; 42703 for a name that `meaning` does not know.
pub fn resolve_names(
    expr: &Expr,
    meaning: impl Fn(&str) -> Option<Operand>,
) -> Result<Expr, Error> {
    let mut expr = expr.clone();
    let unknown = |name: &str| {
        Error::new(
            ErrorKind::UndefinedColumn,
            format!("Unknown column '{name}'"),
        )
    };
    let result = sql::visit_expressions_mut(&mut expr, |e| {
        let name = match e {
            Expr::Identifier(name) => name.value.clone(),
            Expr::CompoundIdentifier(parts) => {
                let parts: Vec<_> = parts.iter().map(|p| p.value.as_str()).collect();
                return ControlFlow::Break(unknown(&parts.join(".")));
            }
            _ => return ControlFlow::Continue(()),
        };
        match meaning(&name) {
            Some(Operand::Column(column)) => {
                *e = Expr::Identifier(sql::Ident::with_quote('"', column))
            }
            Some(Operand::Text(text)) => *e = Expr::value(Value::SingleQuotedString(text)),
            None => return ControlFlow::Break(unknown(&name)),
        }
        ControlFlow::Continue(())
    });
    match result {
        ControlFlow::Continue(()) => Ok(expr),
        ControlFlow::Break(error) => Err(error),
    }
}

/// What the WHERE of SHOW SNAPSHOT speaks of.
#[derive(Debug, Default)]
struct Named {
    snapshot: bool,
    timestamp: bool,
    exact_snapshot: Option<String>,
    exact_timestamp: Option<String>,
}

/// Checks the WHERE of SHOW SNAPSHOT by StarRocks' rules. Answers whether it speaks of timestamps,
/// so that details are wanted, and the label and timestamp if it names just one of each.
pub(super) fn snapshot_predicate(
    predicate: &Expr,
) -> Result<Option<Option<(String, String)>>, Error> {
    let mut named = Named::default();
    conjunct(predicate, &mut named)?;
    match (named.snapshot, named.timestamp) {
        (true, false) => Ok(None),
        (true, true) => Ok(Some(named.exact_snapshot.zip(named.exact_timestamp))),
        _ => Err(wrong_where()),
    }
}

fn wrong_where() -> Error {
    Error::new(ErrorKind::Unsupported, SNAPSHOT_WHERE)
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) if !text.is_empty() => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn conjunct(expr: &Expr, named: &mut Named) -> Result<(), Error> {
    let column = |expr: &Expr| match expr {
        Expr::Identifier(name) if name.value.eq_ignore_ascii_case("SNAPSHOT") => Ok(true),
        Expr::Identifier(name) if name.value.eq_ignore_ascii_case("TIMESTAMP") => Ok(false),
        _ => Err(wrong_where()),
    };
    let is_snapshot = match expr {
        Expr::Nested(inner) => return conjunct(inner, named),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conjunct(left, named)?;
            return conjunct(right, named);
        }
        Expr::BinaryOp { left, op, right } => {
            use BinaryOperator as Op;
            if !matches!(
                op,
                Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq
            ) {
                return Err(wrong_where());
            }
            let is_snapshot = column(left)?;
            let value = text(right).ok_or_else(wrong_where)?;
            if *op == Op::Eq {
                let slot = if is_snapshot {
                    &mut named.exact_snapshot
                } else {
                    &mut named.exact_timestamp
                };
                *slot = Some(value.to_owned());
            }
            is_snapshot
        }
        Expr::InList { expr, list, .. } => {
            if !column(expr).unwrap_or(false) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "Left expr of should be snapshot",
                ));
            }
            if list.iter().any(|item| text(item).is_none()) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "Child of in predicate should be string value",
                ));
            }
            true
        }
        Expr::Like { expr, pattern, .. } => {
            text(pattern).ok_or_else(wrong_where)?;
            column(expr)?
        }
        Expr::Between {
            expr, low, high, ..
        } => {
            text(low).and(text(high)).ok_or_else(wrong_where)?;
            column(expr)?
        }
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => column(expr)?,
        _ => return Err(wrong_where()),
    };
    named.snapshot |= is_snapshot;
    named.timestamp |= !is_snapshot;
    Ok(())
}
