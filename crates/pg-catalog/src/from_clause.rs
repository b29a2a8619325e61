//! FROM: which relations a query names, under which names, and what connects them.

use std::collections::BTreeSet;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast as sql;

use super::compile::Compiler;
use super::expr::Run;
use super::expr::{Eval, Expr, unsupported};
use super::join::{Condition, From, Item, Kind, Source, arrange};
use super::names::{folded, function_name, parts};
use super::refused;
use super::scope::{Cte, Scope, ScopeColumn};
use super::set_functions::set_function;
use super::value::{Row, Value, ValueType};
use starkeep_error::{Error, ErrorKind};

/// The parts of a condition that AND connects.
fn conjuncts<'a>(expr: &'a sql::Expr, all: &mut Vec<&'a sql::Expr>) {
    match expr {
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::And,
            right,
        } => {
            conjuncts(left, all);
            conjuncts(right, all);
        }
        sql::Expr::Nested(inner) => conjuncts(inner, all),
        other => all.push(other),
    }
}

/// One expression for two places; only one of them is asked for a row.
fn twice(expr: Expr) -> (Expr, Expr) {
    let eval = Rc::new(expr.eval);
    let again = eval.clone();
    let other = Expr {
        column: expr.column,
        ..Expr::new(expr.ty.clone(), move |env| again(env))
    };
    (
        Expr {
            eval: Box::new(move |env| eval(env)),
            ..expr
        },
        other,
    )
}

impl Compiler<'_> {
    /// Compiles FROM and WHERE; the scope gets the columns.
    pub(super) fn from(
        &self,
        tables: &[sql::TableWithJoins],
        selection: Option<&sql::Expr>,
        scope: &mut Scope<'_>,
    ) -> Result<From, Error> {
        let mut items = Vec::new();
        for table in tables {
            self.add_tree(table, scope, &mut items)?;
        }
        let mut wheres = Vec::new();
        if let Some(selection) = selection {
            let mut all = Vec::new();
            conjuncts(selection, &mut all);
            for conjunct in all {
                wheres.push(self.condition(conjunct, scope)?);
            }
        }
        Ok(arrange(items, wheres, scope.columns.len()))
    }

    fn condition(&self, expr: &sql::Expr, scope: &Scope<'_>) -> Result<Condition, Error> {
        let sql::Expr::BinaryOp {
            left,
            op: op @ sql::BinaryOperator::Eq,
            right,
        } = expr
        else {
            let (compiled, used) =
                scope.uses(|| self.expr(expr, scope).and_then(|e| self.boolean(e)));
            return Ok(Condition {
                eval: compiled?.eval,
                used,
                sides: None,
            });
        };
        // Each side is compiled once, for both uses: conditions inside conditions would double the
        // work on each level.
        let (left, used_left) = scope.uses(|| self.expr(left, scope));
        let (right, used_right) = scope.uses(|| self.expr(right, scope));
        let (left, right) = self.alike(left?, right?)?;
        let (left, left_again) = twice(left);
        let (right, right_again) = twice(right);
        let used = used_left.union(&used_right).copied().collect();
        let eval = self.operation(left_again, op, right_again)?.eval;
        Ok(Condition {
            eval,
            used,
            sides: Some([(left, used_left), (right, used_right)]),
        })
    }

    /// Adds a relation and what is joined to it.
    fn add_tree(
        &self,
        tree: &sql::TableWithJoins,
        scope: &mut Scope<'_>,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        let first = scope.columns.len();
        self.add(&tree.relation, Kind::Inner, scope, items)?;
        for join in &tree.joins {
            use sql::JoinOperator as J;
            let sql::Join {
                relation,
                global,
                join_operator,
            } = join;
            refused::unless(!global, "GLOBAL JOIN")?;
            let is_cross = matches!(join_operator, J::CrossJoin(sql::JoinConstraint::None));
            let (kind, constraint) = match join_operator {
                J::Join(c) | J::Inner(c) | J::CrossJoin(c) => (Kind::Inner, c),
                J::Left(c) | J::LeftOuter(c) => (Kind::Left, c),
                J::Right(c) | J::RightOuter(c) => (Kind::Right, c),
                J::FullOuter(c) => (Kind::Full, c),
                other => return Err(unsupported(format_args!("the join {other:?}"))),
            };
            // Left-deep steps mean the same only if nothing stands before the tree.
            if matches!(kind, Kind::Right | Kind::Full) && first > 0 {
                return Err(unsupported("RIGHT or FULL JOIN after a comma"));
            }
            let before = scope.columns.len();
            self.add(relation, kind, scope, items)?;
            let item = items.len() - 1;
            match constraint {
                sql::JoinConstraint::None if is_cross => {}
                sql::JoinConstraint::None => {
                    return Err(Error::new(ErrorKind::Syntax, "a JOIN needs ON or USING"));
                }
                sql::JoinConstraint::On(on) => {
                    let mut all = Vec::new();
                    conjuncts(on, &mut all);
                    for conjunct in all {
                        items[item].on.push(self.condition(conjunct, scope)?);
                    }
                }
                sql::JoinConstraint::Using(_) | sql::JoinConstraint::Natural => {
                    let names: Vec<String> = match constraint {
                        sql::JoinConstraint::Using(names) => {
                            names.iter().filter_map(|n| parts(n).pop()).collect()
                        }
                        _ => {
                            let left = &scope.columns[first..before];
                            let shared = scope.columns[before..].iter().map(|c| c.name.clone());
                            shared
                                .filter(|n| left.iter().any(|c| c.name == *n))
                                .collect()
                        }
                    };
                    for name in names {
                        items[item]
                            .on
                            .push(using(&name, first, before, kind, scope)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn add(
        &self,
        factor: &sql::TableFactor,
        kind: Kind,
        scope: &mut Scope<'_>,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        refused::factor(factor)?;
        let (source, columns) = match factor {
            sql::TableFactor::Table {
                name,
                alias,
                args,
                with_ordinality,
                ..
            } => match args {
                Some(args) => {
                    self.table_function(name, &args.args, *with_ordinality, alias.as_ref(), scope)?
                }
                None => self.table(name, alias.as_ref())?,
            },
            sql::TableFactor::Function {
                name,
                args,
                with_ordinality,
                alias,
                ..
            } => self.table_function(name, args, *with_ordinality, alias.as_ref(), scope)?,
            sql::TableFactor::UNNEST {
                array_exprs,
                alias,
                with_ordinality,
                ..
            } => self.unnest(array_exprs, *with_ordinality, alias.as_ref(), scope)?,
            sql::TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                let plan = if *lateral {
                    self.query(subquery, Some(scope))?
                } else {
                    self.query(subquery, scope.outer)?
                };
                let columns = aliased(plan.columns, "", alias.as_ref())?;
                (
                    Source::Rows {
                        run: plan.run,
                        lateral: *lateral,
                    },
                    columns,
                )
            }
            sql::TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => {
                let mut inner = Scope::new(scope.outer);
                let from =
                    self.from(std::slice::from_ref(&**table_with_joins), None, &mut inner)?;
                let run: Run = Box::new(move |env| from.rows(&env.within()));
                (
                    Source::Rows {
                        run,
                        lateral: false,
                    },
                    inner.columns,
                )
            }
            other => return Err(unsupported(format_args!("FROM {other}"))),
        };
        let start = scope.columns.len();
        let width = columns.len();
        scope.columns.extend(columns);
        items.push(Item {
            source,
            kind,
            start,
            width,
            on: Vec::new(),
        });
        Ok(())
    }

    fn table(
        &self,
        name: &sql::ObjectName,
        alias: Option<&sql::TableAlias>,
    ) -> Result<(Source, Vec<ScopeColumn>), Error> {
        let parts = parts(name);
        if let [bare] = parts.as_slice() {
            let ctes = self.ctes.borrow();
            if let Some(Cte { columns, slot, .. }) = ctes.iter().rev().find(|c| c.name == *bare) {
                return Ok((Source::Slot(*slot), aliased(columns.clone(), bare, alias)?));
            }
        }
        let (schema, bare) = match parts.as_slice() {
            [bare] => ("pg_catalog", bare),
            [schema, bare] | [_, schema, bare] => (schema.as_str(), bare),
            _ => return Err(unsupported(format_args!("the name {name}"))),
        };
        let relation = self.snapshot.relation(schema, bare)?.ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedTable,
                format!("relation \"{}\" does not exist", parts.join(".")),
            )
        })?;
        let mut columns = aliased(relation.columns.clone(), bare, alias)?;
        let oid = self
            .snapshot
            .directory
            .builtin
            .definition(schema, bare)
            .map_or(0, |d| d.oid);
        columns.iter_mut().for_each(|c| c.relation = oid);
        Ok((Source::Relation(relation), columns))
    }

    fn table_function(
        &self,
        name: &sql::ObjectName,
        args: &[sql::FunctionArg],
        with_ordinality: bool,
        alias: Option<&sql::TableAlias>,
        scope: &Scope<'_>,
    ) -> Result<(Source, Vec<ScopeColumn>), Error> {
        let name = function_name(name)?;
        // Views of PostgreSQL stand on functions, which some clients ask instead.
        let view = match name.as_str() {
            "pg_show_all_settings" => Some("pg_settings"),
            "pg_available_extensions" => Some("pg_available_extensions"),
            "pg_lock_status" => Some("pg_locks"),
            "pg_cursor" => Some("pg_cursors"),
            "pg_prepared_statement" => Some("pg_prepared_statements"),
            "pg_timezone_names" => Some("pg_timezone_names"),
            _ => None,
        };
        if let (Some(view), false) = (view, with_ordinality)
            && let Some(relation) = self.snapshot.relation("pg_catalog", view)?
        {
            let columns = aliased(relation.columns.clone(), &name, alias)?;
            return Ok((Source::Relation(relation), columns));
        }
        // Compiled one level inside the rows before it, which it may name.
        let inner = Scope::new(Some(scope));
        let mut exprs = Vec::new();
        for arg in args {
            let sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) = arg else {
                return Err(unsupported(format_args!("the argument {arg}")));
            };
            exprs.push(self.expr(expr, &inner)?);
        }
        let mut settled = Vec::new();
        for expr in exprs {
            let is_parameter = expr.parameter.is_some();
            settled.push(if is_parameter {
                self.cast(expr, ValueType::INT4)?
            } else {
                expr
            });
        }
        self.rows_of(&name, settled, with_ordinality, alias)
    }

    fn unnest(
        &self,
        arrays: &[sql::Expr],
        with_ordinality: bool,
        alias: Option<&sql::TableAlias>,
        scope: &Scope<'_>,
    ) -> Result<(Source, Vec<ScopeColumn>), Error> {
        let inner = Scope::new(Some(scope));
        let arrays = arrays
            .iter()
            .map(|a| self.expr(a, &inner))
            .collect::<Result<Vec<_>, _>>()?;
        if arrays.len() == 1 {
            return self.rows_of("unnest", arrays, with_ordinality, alias);
        }
        let mut columns: Vec<(String, ValueType)> = arrays
            .iter()
            .map(|a| ("unnest".to_owned(), a.ty.item().unwrap_or(ValueType::TEXT)))
            .collect();
        if with_ordinality {
            columns.push(("ordinality".into(), ValueType::INT8));
        }
        let evals: Vec<Eval> = arrays.into_iter().map(|a| a.eval).collect();
        let run: Run = Box::new(move |env| {
            let env = env.within();
            let arrays = evals
                .iter()
                .map(|e| e(&env))
                .collect::<Result<Vec<_>, _>>()?;
            let longest = arrays.iter().map(|a| a.items().len()).max().unwrap_or(0);
            let row = |i: usize| {
                let mut row: Row = arrays
                    .iter()
                    .map(|a| a.items().get(i).cloned().unwrap_or(Value::Null))
                    .collect();
                if with_ordinality {
                    row.push(Value::Int(i as i64 + 1));
                }
                row
            };
            Ok((0..longest).map(row).collect())
        });
        Ok((
            Source::Rows { run, lateral: true },
            aliased(columns, "unnest", alias)?,
        ))
    }

    fn rows_of(
        &self,
        name: &str,
        args: Vec<Expr>,
        with_ordinality: bool,
        alias: Option<&sql::TableAlias>,
    ) -> Result<(Source, Vec<ScopeColumn>), Error> {
        let types: Vec<ValueType> = args.iter().map(|a| a.ty.clone()).collect();
        let (mut columns, run): (Vec<(String, ValueType)>, Run) = match set_function(name, &types) {
            Some(set) => {
                let evals: Vec<Eval> = args.into_iter().map(|a| a.eval).collect();
                let rows = set.rows;
                let run: Run = Box::new(move |env| {
                    let env = env.within();
                    let args = evals
                        .iter()
                        .map(|e| e(&env))
                        .collect::<Result<Vec<_>, _>>()?;
                    rows(&args, env.context)
                });
                (set.columns, run)
            }
            // A plain function is one row.
            None => {
                let call = self.call(name, args)?;
                let (columns, eval) = (vec![(name.to_owned(), call.ty)], call.eval);
                (
                    columns,
                    Box::new(move |env| Ok(vec![vec![eval(&env.within())?]])),
                )
            }
        };
        let run: Run = if with_ordinality {
            columns.push(("ordinality".into(), ValueType::INT8));
            Box::new(move |env| {
                let mut rows = run(env)?;
                rows.iter_mut()
                    .enumerate()
                    .for_each(|(i, row)| row.push(Value::Int(i as i64 + 1)));
                Ok(rows)
            })
        } else {
            run
        };
        // A function with one column takes the alias for that, too.
        let is_scalar = columns.len() == 1 + usize::from(with_ordinality);
        if let (true, Some(alias)) = (is_scalar, alias.filter(|a| a.columns.is_empty())) {
            columns[0].0 = folded(&alias.name);
        }
        Ok((
            Source::Rows { run, lateral: true },
            aliased(columns, name, alias)?,
        ))
    }
}

/// Columns under their table's alias, and under the names that it gives them.
fn aliased(
    columns: Vec<(String, ValueType)>,
    table: &str,
    alias: Option<&sql::TableAlias>,
) -> Result<Vec<ScopeColumn>, Error> {
    if let Some(alias) = alias {
        check_aliases(&folded(&alias.name), columns.len(), alias)?;
    }
    let table = alias.map_or(table.to_owned(), |a| folded(&a.name));
    let names = alias.map_or(&[][..], |a| &a.columns);
    let column = |(i, (name, ty)): (usize, (String, ValueType))| ScopeColumn {
        table: table.clone(),
        name: names.get(i).map_or(name, |c| folded(&c.name)),
        ty,
        hidden: false,
        relation: 0,
    };
    Ok(columns.into_iter().enumerate().map(column).collect())
}

/// Refuses more names than there are columns, and types for them.
pub(super) fn check_aliases(
    table: &str,
    columns: usize,
    alias: &sql::TableAlias,
) -> Result<(), Error> {
    if alias.columns.iter().any(|c| c.data_type.is_some()) {
        return Err(unsupported("a list of columns with types"));
    }
    if alias.columns.len() > columns {
        let message = format!(
            "table \"{table}\" has {columns} columns available but {} columns specified",
            alias.columns.len()
        );
        return Err(Error::new(ErrorKind::InvalidColumnReference, message));
    }
    Ok(())
}

/// The equality of a USING column; the name alone means the side that is always there.
fn using(
    name: &str,
    first: usize,
    before: usize,
    kind: Kind,
    scope: &mut Scope<'_>,
) -> Result<Condition, Error> {
    let missing = || {
        let message =
            format!("column \"{name}\" specified in USING clause does not exist in both tables");
        Error::new(ErrorKind::UndefinedColumn, message)
    };
    let find = |from: usize, to: usize, scope: &Scope<'_>| {
        let found = scope.columns[from..to]
            .iter()
            .position(|c| c.name == name && !c.hidden);
        found.map(|i| from + i).ok_or_else(missing)
    };
    let left = find(first, before, scope)?;
    let right = find(before, scope.columns.len(), scope)?;
    if kind == Kind::Full {
        return Err(unsupported("FULL JOIN USING"));
    }
    let hidden = if kind == Kind::Right { left } else { right };
    scope.columns[hidden].hidden = true;
    let side = |at: usize, scope: &Scope<'_>| {
        let ty = scope.columns[at].ty.clone();
        let expr = Expr {
            column: Some(at),
            ..Expr::new(ty, move |env| Ok(env.row[at].clone()))
        };
        (expr, BTreeSet::from([at]))
    };
    let eval: Eval = Box::new(move |env| {
        let (a, b) = (&env.row[left], &env.row[right]);
        Ok(if a.is_null() || b.is_null() {
            Value::Null
        } else {
            Value::Bool(a.compare(b).is_eq())
        })
    });
    Ok(Condition {
        eval,
        used: BTreeSet::from([left, right]),
        sides: Some([side(left, scope), side(right, scope)]),
    })
}
