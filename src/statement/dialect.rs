//! sqlparser's dialects with a budget: each question that a parser asks its dialect is counted, and
//! a parser that goes back too often, or that nobody waits for any more, is ended.
//!
//! sqlparser tries one reading of a text, goes back and tries another. Where such places stand
//! inside one another, the work doubles with each level (`CAST(CAST(…` without an end, parentheses
//! after FROM). The budget is linear in the number of tokens, and no well-formed statement comes
//! near it.

use std::any::TypeId;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, resume_unwind};

use datafusion::sql::sqlparser::ast::{Expr, Ident, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use starkeep_pg_catalog::SYMMETRIC;

use super::bounds::{Kind, Measure, Reading, check_tokens};
use super::sql_error::sql_error;
use crate::error::{Error, ErrorKind};

/// Questions that a parser may ask its dialect for each token; well-formed statements ask some
/// dozens.
const QUESTIONS_PER_TOKEN: usize = 2000;
/// Questions for even the shortest text.
const QUESTIONS_LEAST: usize = 100_000;
/// Questions between two looks at whether anybody still waits.
const QUESTIONS_PER_LOOK: usize = 1024;

/// Why a parser was ended. It unwinds from inside the question: sqlparser hands most of its errors
/// to whoever tries the next reading, and many questions have no error for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Stopped,
    TooMuchWork,
}

/// A dialect of sqlparser within a budget.
#[derive(Debug)]
pub(super) struct Budgeted<D> {
    inner: D,
    reading: Reading,
    questions_left: Cell<usize>,
}

/// PostgreSQL's, for everything that is not StarRocks' own.
pub(super) fn postgres(reading: &Reading) -> Budgeted<PostgreSqlDialect> {
    Budgeted {
        inner: PostgreSqlDialect {},
        reading: reading.clone(),
        questions_left: Cell::new(usize::MAX),
    }
}

/// MySQL's, for the conditions inside StarRocks' statements.
pub(super) fn mysql(reading: &Reading) -> Budgeted<MySqlDialect> {
    Budgeted {
        inner: MySqlDialect {},
        reading: reading.clone(),
        questions_left: Cell::new(usize::MAX),
    }
}

/// What a token of sqlparser's is to the measure; nothing for blanks and comments.
pub(super) fn kind_of(token: &TokenWithSpan) -> Option<Kind<'_>> {
    Some(match &token.token {
        Token::Whitespace(_) | Token::EOF => return None,
        Token::Word(word) if word.quote_style.is_none() => Kind::Word(&word.value),
        Token::LParen | Token::LBrace => Kind::Open,
        Token::LBracket => Kind::OpenSubscript,
        Token::RParen | Token::RBrace | Token::RBracket => Kind::Close,
        Token::Comma | Token::SemiColon => Kind::Comma,
        Token::Lt => Kind::Less,
        Token::Gt => Kind::Greater,
        Token::ShiftRight => Kind::GreaterTwice,
        Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::Placeholder(_)
        | Token::Period => Kind::Other,
        Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_) => Kind::Other,
        Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_) => Kind::Other,
        _ => Kind::Operator,
    })
}

#[cfg(test)]
pub(super) fn sql_tokens(text: &str) -> Vec<TokenWithSpan> {
    Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .expect(text)
}

impl<D: Dialect> Budgeted<D> {
    /// Reads a text by a rule of sqlparser's: measures its tokens, then parses them within the
    /// budget. Positions count from the start of the text.
    pub fn read<T>(
        &self,
        text: &str,
        rule: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<(T, Measure), Error> {
        let bounds = &self.reading.bounds;
        let work = || {
            let tokens = match Tokenizer::new(self, text).tokenize_with_location() {
                Ok(tokens) => tokens,
                Err(error) => return Err(sql_error(error.into(), text, bounds)),
            };
            let measure = check_tokens(tokens.iter().filter_map(kind_of), bounds)?;
            let most = measure
                .tokens
                .saturating_mul(QUESTIONS_PER_TOKEN)
                .saturating_add(QUESTIONS_LEAST);
            self.questions_left.set(most);
            let mut parser = Parser::new(self)
                .with_recursion_limit(bounds.nesting_max)
                .with_tokens_with_locations(tokens);
            match rule(&mut parser) {
                Ok(read) => Ok((read, measure)),
                Err(error) => Err(sql_error(error, text, bounds)),
            }
        };
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(match panic.downcast_ref::<Ended>() {
                Some(Ended::Stopped) => Error::new(
                    ErrorKind::Cancelled,
                    "canceling statement due to user request",
                ),
                Some(Ended::TooMuchWork) => Error::new(
                    ErrorKind::LimitExceeded,
                    "the statement can be read in too many ways to find out which is meant",
                )
                .hint("Close every bracket, and use fewer of them."),
                None => Error::unsupported("a statement that the parser fails on"),
            })
        })
    }

    /// Counts a question, and ends the parser that has asked too many.
    fn count(&self) {
        let left = self.questions_left.get().saturating_sub(1);
        self.questions_left.set(left);
        if left == 0 {
            resume_unwind(Box::new(Ended::TooMuchWork));
        }
        if left.is_multiple_of(QUESTIONS_PER_LOOK) && self.reading.is_stopped() {
            resume_unwind(Box::new(Ended::Stopped));
        }
    }
}

/// Reads `[NOT] BETWEEN SYMMETRIC`, which sqlparser does not know; whether there was a NOT. The
/// word stands before the lower bound then.
fn symmetric_between(parser: &mut Parser<'_>) -> Option<bool> {
    let negated = parser.parse_keywords(&[Keyword::NOT, Keyword::BETWEEN, Keyword::SYMMETRIC]);
    if negated || parser.parse_keywords(&[Keyword::BETWEEN, Keyword::SYMMETRIC]) {
        return Some(negated);
    }
    None
}

/// Hands questions of a dialect on as they are.
macro_rules! hand_on {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self $(, $arg: $ty)*) -> $out {
            self.count();
            self.inner.$name($($arg),*)
        })*
    };
}

// Every question that one of the two dialects answers in its own way.
impl<D: Dialect> Dialect for Budgeted<D> {
    /// PostgreSQL's names of arguments are words. sqlparser would read each argument twice to find
    /// out that it is no name.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    /// Names in back-quotes, as StarRocks' users write them; no operator of PostgreSQL begins so.
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.count();
        ch == '`' || self.inner.is_delimited_identifier_start(ch)
    }

    /// What MySQL reads inside `/*! … */` is a comment to StarRocks.
    fn supports_multiline_comment_hints(&self) -> bool {
        false
    }

    /// What follows DISTINCT FROM ends before AND, OR and comparisons. sqlparser would take `b AND
    /// c` of `a IS DISTINCT FROM b AND c`.
    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        self.count();
        let negated =
            parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if negated || parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            let left = Box::new(expr.clone());
            let right = parser
                .parse_subexpr(self.inner.prec_value(Precedence::Is))
                .map(Box::new);
            return Some(right.map(|right| match negated {
                true => Expr::IsNotDistinctFrom(left, right),
                false => Expr::IsDistinctFrom(left, right),
            }));
        }
        let negated = parser.parse_keywords(&[Keyword::NOT, Keyword::BETWEEN, Keyword::ASYMMETRIC]);
        if negated || parser.parse_keywords(&[Keyword::BETWEEN, Keyword::ASYMMETRIC]) {
            return Some(parser.parse_between(expr.clone(), negated));
        }
        if let Some(negated) = symmetric_between(parser) {
            return Some(parser.parse_between(expr.clone(), negated).map(|between| {
                let Expr::Between {
                    expr,
                    negated,
                    low,
                    high,
                } = between
                else {
                    return between;
                };
                let low = Box::new(Expr::Prefixed {
                    prefix: Ident::new(SYMMETRIC),
                    value: low,
                });
                Expr::Between {
                    expr,
                    negated,
                    low,
                    high,
                }
            }));
        }
        self.inner.parse_infix(parser, expr, precedence)
    }

    hand_on! {
        dialect() -> TypeId;
        parse_prefix(parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>>;
        get_next_precedence(parser: &Parser<'_>) -> Option<Result<u8, ParserError>>;
        parse_statement(parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>>;
        is_table_factor_alias(explicit: bool, word: &Keyword, parser: &mut Parser<'_>) -> bool;
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_identifier_start(ch: char) -> bool;
        is_identifier_part(ch: char) -> bool;
        is_reserved_for_identifier(word: Keyword) -> bool;
        is_custom_operator_part(ch: char) -> bool;
        prec_value(precedence: Precedence) -> u8;
        prec_unknown() -> u8;
        supports_unicode_string_literal() -> bool;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_named_fn_args_with_colon_operator() -> bool;
        supports_empty_projections() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
        supports_string_literal_backslash_escape() -> bool;
        supports_string_literal_concatenation() -> bool;
        ignores_wildcard_escapes() -> bool;
        supports_numeric_prefix() -> bool;
        require_interval_qualifier() -> bool;
        supports_limit_comma() -> bool;
        supports_create_table_select() -> bool;
        supports_insert_set() -> bool;
        supports_user_host_grantee() -> bool;
        supports_table_hints() -> bool;
        requires_single_line_comment_whitespace() -> bool;
        supports_match_against() -> bool;
        supports_select_modifiers() -> bool;
        supports_comma_separated_set_assignments() -> bool;
        supports_update_order_by() -> bool;
        supports_data_type_signed_suffix() -> bool;
        supports_cross_join_constraint() -> bool;
        supports_double_ampersand_operator() -> bool;
        supports_binary_kw_as_cast() -> bool;
        supports_constraint_keyword_without_name() -> bool;
        supports_key_column_option() -> bool;
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast as sql;

    use crate::statement::{Statement, parse_one};

    #[test]
    fn distinct_from_ends_before_and_or_and_comparisons_of_truth() {
        let expr = |text: &str| {
            let Ok(Statement::Sql(statement)) = parse_one(&format!("SELECT {text}")) else {
                panic!("{text}")
            };
            let sql::Statement::Query(query) = *statement else {
                panic!("{text}")
            };
            let sql::SetExpr::Select(select) = *query.body else {
                panic!("{text}")
            };
            match select.projection.into_iter().next() {
                Some(sql::SelectItem::UnnamedExpr(expr)) => expr,
                other => panic!("{text} is {other:?}"),
            }
        };
        for (text, operator) in [
            ("a IS DISTINCT FROM b AND c", sql::BinaryOperator::And),
            ("a IS NOT DISTINCT FROM b OR c", sql::BinaryOperator::Or),
        ] {
            assert!(
                matches!(expr(text), sql::Expr::BinaryOp { op, .. } if op == operator),
                "{text}"
            );
        }
        assert!(matches!(
            expr("a IS DISTINCT FROM b + 1"),
            sql::Expr::IsDistinctFrom(..)
        ));
        assert!(matches!(
            expr("a IS DISTINCT FROM b IS NULL"),
            sql::Expr::IsNull(_)
        ));
    }
}
