//! What a parsed statement will cost to plan, before it is planned.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use super::{ARGUMENTS_MAX, Bounds, COLUMNS_MAX, COPIES_MAX, CUBE_MAX, DUPLICATING_MAX};
use crate::catalog::folded;
use crate::error::{Error, ErrorKind};

/// Refuses statements that are larger than their text: WITH queries that read each other multiply,
/// and columns and joins are copied for each step of a plan.
pub fn check_parsed(statement: &sql::Statement, bounds: &Bounds) -> Result<(), Error> {
    let mut weigher = Weigher {
        bounds,
        frames: vec![Frame::default()],
        duplicating: 0,
        error: None,
    };
    let _ = sql::Visit::visit(statement, &mut weigher);
    weigher.error.map_or(Ok(()), Err)
}

/// What is known of a query.
#[derive(Clone, Copy, Default)]
struct Weight {
    /// Relations that it reads.
    relations: usize,
    /// How often its expressions may stand in one of the plan: the optimizer puts what a column
    /// stands for in its place.
    copies: usize,
}

/// A query whose parts are being weighed.
#[derive(Default)]
struct Frame {
    relations: usize,
    /// How often one expression of its SELECT lists names one column.
    repeats: usize,
    /// The most copies of what it reads.
    inner: usize,
    /// Levels of expressions around the place that is being weighed.
    level: usize,
    /// Its WITH queries: where each stands, its name, and its weight once that is known.
    with: Vec<(*const sql::Query, String, Weight)>,
}

struct Weigher<'b> {
    bounds: &'b Bounds,
    frames: Vec<Frame>,
    /// Expressions around this one that the optimizer writes as several with the same parts.
    duplicating: u32,
    error: Option<Error>,
}

/// Whether the optimizer writes an expression as several: `coalesce(a, b)` is CASE WHEN a IS NOT
/// NULL THEN a ELSE b END.
fn duplicates(expr: &sql::Expr) -> bool {
    match expr {
        sql::Expr::Between { .. } => true,
        sql::Expr::InList { list, .. } => list.len() <= 3,
        sql::Expr::Function(function) => {
            let name = function
                .name
                .0
                .last()
                .and_then(|p| p.as_ident())
                .map(folded)
                .unwrap_or_default();
            matches!(
                name.as_str(),
                "coalesce" | "nvl" | "nvl2" | "ifnull" | "nullif" | "greatest" | "least"
            )
        }
        _ => false,
    }
}

/// How often an expression names the column that it names most often. What its subqueries name is
/// theirs.
fn repeats(expr: &sql::Expr) -> usize {
    #[derive(Default)]
    struct Names {
        counts: HashMap<String, usize>,
        queries: usize,
    }
    impl sql::Visitor for Names {
        type Break = ();
        fn pre_visit_query(&mut self, _: &sql::Query) -> ControlFlow<()> {
            self.queries += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &sql::Query) -> ControlFlow<()> {
            self.queries -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &sql::Expr) -> ControlFlow<()> {
            let name = match expr {
                sql::Expr::Identifier(ident) => Some(ident),
                sql::Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            if let Some(name) = name.filter(|_| self.queries == 0) {
                *self.counts.entry(folded(name)).or_default() += 1;
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names::default();
    let _ = sql::Visit::visit(expr, &mut names);
    names.counts.into_values().max().unwrap_or(0)
}

impl Weigher<'_> {
    fn refuse(&mut self, error: Error) -> ControlFlow<()> {
        self.error = Some(error);
        ControlFlow::Break(())
    }

    fn add(&mut self, relations: usize) -> ControlFlow<()> {
        let frame = self
            .frames
            .last_mut()
            .expect("the statement itself is a frame");
        frame.relations = frame.relations.saturating_add(relations);
        if frame.relations <= self.bounds.relations_max {
            return ControlFlow::Continue(());
        }
        let most = self.bounds.relations_max;
        self.refuse(Error::new(ErrorKind::LimitExceeded, format!("the statement reads more than {most} tables")).hint(
            "A WITH query counts each time it is read, with all that it reads. The limit is the setting statement_relations_max.",
        ))
    }

    fn columns(&mut self, count: usize, what: &str) -> ControlFlow<()> {
        if count <= COLUMNS_MAX {
            return ControlFlow::Continue(());
        }
        self.refuse(Error::new(
            ErrorKind::TooManyColumns,
            format!("{what} can have at most {COLUMNS_MAX} entries"),
        ))
    }
}

impl sql::Visitor for Weigher<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
        let with = query.with.iter().flat_map(|w| &w.cte_tables);
        let one = Weight {
            relations: 1,
            copies: 1,
        };
        let with = with
            .map(|cte| (&raw const *cte.query, folded(&cte.alias.name), one))
            .collect::<Vec<_>>();
        if with.len() > self.bounds.relations_max {
            self.frames.push(Frame::default());
            return self.add(with.len());
        }
        self.frames.push(Frame {
            with,
            ..Frame::default()
        });
        if let Some(sql::OrderBy {
            kind: sql::OrderByKind::Expressions(items),
            ..
        }) = &query.order_by
        {
            self.columns(items.len(), "ORDER BY lists")?;
        }
        if let sql::SetExpr::Values(values) = &*query.body
            && let Some(row) = values.rows.first()
        {
            self.columns(row.content.len(), "VALUES lists")?;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
        let done = self.frames.pop().unwrap_or_default();
        let copies = done.repeats.max(1).saturating_mul(done.inner.max(1));
        if copies > COPIES_MAX {
            return self.refuse(
                Error::new(ErrorKind::LimitExceeded, "the expressions of the statement multiply from one subquery to the next")
                    .hint("Name a column once in each expression over a subquery, or store what is computed in a table."),
            );
        }
        let frame = self
            .frames
            .last_mut()
            .expect("the statement itself is a frame");
        let place: *const sql::Query = query;
        match frame.with.iter_mut().find(|(at, ..)| *at == place) {
            Some((_, _, weight)) => {
                *weight = Weight {
                    relations: done.relations.saturating_add(1),
                    copies,
                };
                ControlFlow::Continue(())
            }
            None => {
                // Only what stands after FROM is put in the place of its columns.
                if frame.level == 0 {
                    frame.inner = frame.inner.max(copies);
                }
                self.add(done.relations)
            }
        }
    }

    fn pre_visit_select(&mut self, select: &sql::Select) -> ControlFlow<()> {
        self.columns(select.projection.len(), "target lists")?;
        let most = select.projection.iter().map(|item| match item {
            sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => {
                repeats(expr)
            }
            _ => 1,
        });
        let most = most.max().unwrap_or(1);
        let frame = self
            .frames
            .last_mut()
            .expect("the statement itself is a frame");
        frame.repeats = frame.repeats.max(most);
        match &select.group_by {
            sql::GroupByExpr::Expressions(items, _) => self.columns(items.len(), "GROUP BY lists"),
            sql::GroupByExpr::All(_) => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &sql::TableFactor) -> ControlFlow<()> {
        let bare = match factor {
            sql::TableFactor::Table { name, .. } if name.0.len() == 1 => {
                name.0[0].as_ident().map(folded)
            }
            _ => None,
        };
        let frames = self.frames.iter().rev().flat_map(|frame| &frame.with);
        let known = bare.and_then(|name| {
            frames
                .into_iter()
                .find(|(_, n, _)| *n == name)
                .map(|(_, _, weight)| *weight)
        });
        let Weight { relations, copies } = known.unwrap_or(Weight {
            relations: 1,
            copies: 1,
        });
        let frame = self
            .frames
            .last_mut()
            .expect("the statement itself is a frame");
        frame.inner = frame.inner.max(copies);
        self.add(relations)
    }

    fn pre_visit_expr(&mut self, expr: &sql::Expr) -> ControlFlow<()> {
        if let sql::Expr::Function(function) = expr
            && let sql::FunctionArguments::List(list) = &function.args
            && list.args.len() > ARGUMENTS_MAX
        {
            let message = format!("cannot pass more than {ARGUMENTS_MAX} arguments to a function");
            return self.refuse(Error::new(ErrorKind::TooManyArguments, message));
        }
        if let sql::Expr::Cube(sets) = expr
            && sets.iter().map(Vec::len).sum::<usize>() > CUBE_MAX
        {
            return self.refuse(Error::new(
                ErrorKind::LimitExceeded,
                format!("CUBE is limited to {CUBE_MAX} elements"),
            ));
        }
        self.frames
            .last_mut()
            .expect("the statement itself is a frame")
            .level += 1;
        self.duplicating += u32::from(duplicates(expr));
        if self.duplicating > DUPLICATING_MAX {
            let message = format!(
                "more than {DUPLICATING_MAX} of BETWEEN, short IN and coalesce stand inside one another"
            );
            return self.refuse(
                Error::new(ErrorKind::LimitExceeded, message)
                    .hint("Compute the inner ones in a subquery."),
            );
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &sql::Expr) -> ControlFlow<()> {
        self.frames
            .last_mut()
            .expect("the statement itself is a frame")
            .level -= 1;
        self.duplicating -= u32::from(duplicates(expr));
        ControlFlow::Continue(())
    }
}
