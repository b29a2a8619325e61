//! What two expressions of a query have in common, and what a grouped query may name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use super::compile::Compiler;
use super::expr::Expr;
use super::names::{folded, parts};
use super::relations::Definition;
use super::scope::Scope;
use starkeep_error::{Error, ErrorKind};

/// An expression with its columns as places in the scope and without brackets: two that say the
/// same are equal.
pub(super) fn normalized(expr: &sql::Expr, scope: &Scope<'_>) -> sql::Expr {
    struct Normalizer<'a>(&'a Scope<'a>);
    impl sql::VisitorMut for Normalizer<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<()> {
            // Names in there may be others'.
            ControlFlow::Break(())
        }
        fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<()> {
            let place = match expr {
                sql::Expr::Nested(inner) => {
                    *expr = std::mem::replace(&mut **inner, placed(0));
                    return ControlFlow::Continue(());
                }
                sql::Expr::Function(function) => {
                    let mut name = parts(&function.name);
                    if name.len() == 2 && name[0] == "pg_catalog" {
                        name.remove(0);
                    }
                    function.name = sql::ObjectName::from(
                        name.into_iter().map(sql::Ident::new).collect::<Vec<_>>(),
                    );
                    None
                }
                sql::Expr::Identifier(ident) => self.0.place(&[folded(ident)]),
                sql::Expr::CompoundIdentifier(idents) => {
                    self.0.place(&idents.iter().map(folded).collect::<Vec<_>>())
                }
                _ => None,
            };
            if let Some(place) = place {
                *expr = placed(place);
            }
            ControlFlow::Continue(())
        }
    }
    let mut normal = expr.clone();
    match sql::VisitMut::visit(&mut normal, &mut Normalizer(scope)) {
        ControlFlow::Continue(()) => normal,
        // An expression with a subquery is equal to what is written in the same way.
        ControlFlow::Break(()) => expr.clone(),
    }
}

/// A column of the scope as [`normalized`] writes it: no statement has such a name.
pub(super) fn placed(place: usize) -> sql::Expr {
    sql::Expr::Identifier(sql::Ident::new(format!("\0{place}")))
}

/// How many expressions an expression has within, itself included and brackets not; `most` and one
/// where it has more.
fn size(expr: &sql::Expr, most: usize) -> usize {
    let mut count = 0;
    let _ = sql::visit_expressions(expr, |expr| {
        count += usize::from(!matches!(expr, sql::Expr::Nested(_)));
        if count > most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    count
}

/// The columns of PostgreSQL's primary keys, where that is not `oid`.
fn primary_key(definition: &Definition) -> &'static [&'static str] {
    match definition.name {
        _ if definition.kind != 'r' || definition.schema != "pg_catalog" => &[],
        "pg_aggregate" => &["aggfnoid"],
        "pg_attribute" => &["attrelid", "attnum"],
        "pg_auth_members" => &["roleid", "member"],
        "pg_db_role_setting" => &["setdatabase", "setrole"],
        "pg_description" => &["objoid", "classoid", "objsubid"],
        "pg_foreign_table" => &["ftrelid"],
        "pg_index" => &["indexrelid"],
        "pg_inherits" => &["inhrelid", "inhseqno"],
        "pg_init_privs" => &["objoid", "classoid", "objsubid"],
        "pg_partitioned_table" => &["partrelid"],
        "pg_range" => &["rngtypid"],
        "pg_sequence" => &["seqrelid"],
        "pg_shdescription" => &["objoid", "classoid"],
        _ if definition.column("oid").is_some() => &["oid"],
        _ => &[],
    }
}

impl Scope<'_> {
    /// The one column of this query that a name means.
    pub(super) fn place(&self, name: &[String]) -> Option<usize> {
        let (table, name) = match name {
            [name] => (None, name),
            [table, name] | [_, table, name] => (Some(table), name),
            _ => return None,
        };
        let fits = |c: &super::scope::ScopeColumn| {
            c.name == *name && table.map_or(!c.hidden, |t| c.table == *t)
        };
        let mut found = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| fits(c))
            .map(|(i, _)| i);
        found.next().filter(|_| found.next().is_none())
    }

    /// Compiles what GROUP BY goes by, or what an aggregate looks at: the columns in it need not be
    /// grouped.
    pub(super) fn as_grouped<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.ungrouped.borrow().len();
        let done = work();
        self.ungrouped.borrow_mut().truncate(before);
        done
    }

    /// GROUP BY goes by this, as it is normalized.
    pub(super) fn group_by(&self, normal: sql::Expr) {
        self.grouped_sizes
            .borrow_mut()
            .insert(size(&normal, usize::MAX));
        self.grouped_by.borrow_mut().insert(normal);
    }

    /// Compiles something, and says whether it names columns, and only those of queries around this
    /// one.
    pub(super) fn names_outer_only<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        let mut around = Vec::new();
        let mut at = self.outer;
        while let Some(scope) = at {
            around.push((scope, scope.used.take()));
            at = scope.outer;
        }
        let (done, used) = self.uses(work);
        let mut names_outer = false;
        for (scope, before) in around {
            names_outer |= !scope.used.borrow().is_empty();
            scope.used.borrow_mut().extend(before);
        }
        (done, names_outer && used.is_empty())
    }

    /// Whether GROUP BY goes by this expression. Only one of the same size is looked at any closer,
    /// or a long expression would be copied once for each of its parts.
    pub(super) fn is_grouped_by(&self, expr: &sql::Expr) -> bool {
        let sizes = self.grouped_sizes.borrow();
        let Some(largest) = sizes.last() else {
            return false;
        };
        sizes.contains(&size(expr, *largest))
            && self.grouped_by.borrow().contains(&normalized(expr, self))
    }
}

impl Compiler<'_> {
    /// A column by its place.
    pub(super) fn column(&self, at: usize, scope: &Scope<'_>) -> Expr {
        scope.used.borrow_mut().insert(at);
        if !scope.is_grouped_by(&placed(at)) {
            scope.ungrouped.borrow_mut().push((at, false));
        }
        Expr {
            column: Some(at),
            ..Expr::new(scope.columns[at].ty.clone(), move |env| {
                Ok(env.row[at].clone())
            })
        }
    }

    /// Refuses a column that is neither grouped nor in an aggregate, unless a primary key is among
    /// the groups: then there is one row of its table in each.
    pub(super) fn check_grouped(&self, scope: &Scope<'_>) -> Result<(), Error> {
        let groups = scope.grouped_by.borrow();
        let is_grouped = |at: usize| groups.contains(&placed(at));
        let named: BTreeSet<(usize, bool)> = scope.ungrouped.borrow().iter().copied().collect();
        for (at, within) in named {
            let column = &scope.columns[at];
            let definition = self
                .snapshot
                .directory
                .builtin
                .definitions
                .iter()
                .find(|d| d.oid == column.relation && d.oid != 0);
            let key = definition.map_or(&[][..], primary_key);
            let of_table = |name: &&str| {
                scope.columns.iter().position(|c| {
                    c.table == column.table && c.relation == column.relation && c.name == **name
                })
            };
            if !key.is_empty()
                && key
                    .iter()
                    .all(|name| of_table(name).is_some_and(is_grouped))
            {
                continue;
            }
            let name = if column.table.is_empty() {
                column.name.clone()
            } else {
                format!("{}.{}", column.table, column.name)
            };
            return Err(Error::new(
                ErrorKind::Grouping,
                if within {
                    format!("subquery uses ungrouped column \"{name}\" from outer query")
                } else {
                    format!(
                        "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"
                    )
                },
            ));
        }
        Ok(())
    }
}

/// DISTINCT in an aggregate sorts by its arguments alone.
pub(super) fn check_distinct_order(
    list: &sql::FunctionArgumentList,
    scope: &Scope<'_>,
) -> Result<(), Error> {
    let arguments: Vec<sql::Expr> = list
        .args
        .iter()
        .filter_map(argument)
        .map(|e| normalized(e, scope))
        .collect();
    let mut keys = list.clauses.iter().filter_map(|clause| match clause {
        sql::FunctionArgumentClause::OrderBy(keys) => Some(keys),
        _ => None,
    });
    if keys.all(|keys| {
        keys.iter()
            .all(|key| arguments.contains(&normalized(&key.expr, scope)))
    }) {
        return Ok(());
    }
    let message =
        "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list";
    Err(Error::new(ErrorKind::InvalidColumnReference, message))
}

fn argument(argument: &sql::FunctionArg) -> Option<&sql::Expr> {
    match argument {
        sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}
