//! Where in its text a statement names what an error is about.

use datafusion::sql::sqlparser::ast as sql;

use crate::error::{Error, ErrorKind};
use crate::statement::offset_of;

/// Where in its text a statement names what an error does not find.
pub fn with_position(error: Error, ast: &sql::Statement, text: &str) -> Error {
    if error.position.is_some() {
        return error;
    }
    let Some(name) = error
        .message
        .split('"')
        .nth(1)
        .and_then(|n| n.rsplit('.').next())
        .map(str::to_owned)
    else {
        return error;
    };
    let same = |ident: &sql::Ident| ident.value.eq_ignore_ascii_case(&name);
    let found = match error.kind {
        ErrorKind::UndefinedTable => {
            let mut place = None;
            let _ = sql::visit_relations(ast, |relation| {
                let idents: Vec<_> = relation.0.iter().filter_map(|p| p.as_ident()).collect();
                if let (Some(first), true) =
                    (idents.first(), idents.last().is_some_and(|i| same(i)))
                {
                    place = Some(first.span.start);
                    return std::ops::ControlFlow::Break(());
                }
                std::ops::ControlFlow::Continue(())
            });
            place
        }
        ErrorKind::UndefinedColumn | ErrorKind::AmbiguousColumn => {
            let mut place = None;
            let _ = sql::visit_expressions(ast, |expr| {
                let start = match expr {
                    sql::Expr::Identifier(ident) if same(ident) => Some(ident.span.start),
                    sql::Expr::CompoundIdentifier(idents) if idents.last().is_some_and(same) => {
                        idents.first().map(|i| i.span.start)
                    }
                    _ => None,
                };
                place = start;
                if place.is_some() {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            });
            place
        }
        _ => None,
    };
    match found.and_then(|at| offset_of(text, at.line, at.column)) {
        Some(offset) => error.at(offset),
        None => error,
    }
}
