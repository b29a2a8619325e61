//! Calls of functions in catalog queries: plain ones, aggregates, windows, and sets.

use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::aggregate::{Aggregate, Kind, SortKey, Window, WindowKind};
use super::compile::Compiler;
use super::expr::{Env, Eval, Expr, row_of, unsupported};
use super::function_list::{self, Family};
use super::functions;
use super::grouping::check_distinct_order;
use super::names::function_name;
use super::refused;
use super::scope::Scope;
use super::set_functions::{SetFunction, set_function};
use super::types::sql_type_name;
use super::value::{Value, ValueType};
use starkeep_error::{Error, ErrorKind};

impl Compiler<'_> {
    fn arguments(
        &self,
        list: &sql::FunctionArguments,
        scope: &Scope<'_>,
    ) -> Result<Vec<Expr>, Error> {
        let sql::FunctionArguments::List(list) = list else {
            return Ok(Vec::new());
        };
        let mut args = Vec::new();
        for arg in &list.args {
            match arg {
                sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => {
                    args.push(self.expr(expr, scope)?)
                }
                sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Wildcard) => {}
                other => return Err(unsupported(format_args!("the argument {other}"))),
            }
        }
        Ok(args)
    }

    pub(super) fn function(
        &self,
        function: &sql::Function,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        let name = function_name(&function.name)?;
        if let sql::FunctionArguments::Subquery(query) = &function.args {
            if name != "array" {
                return Err(unsupported(format_args!("{name}(SELECT …)")));
            }
            let plan = self.query(query, Some(scope))?;
            let [(_, ty)] = plan.columns.as_slice() else {
                return Err(Error::new(
                    ErrorKind::Syntax,
                    "subquery must return only one column",
                ));
            };
            return Ok(Expr::new(ty.array(), move |env| {
                env.context.made(Value::array(
                    plan.passing(env)?
                        .into_iter()
                        .filter_map(|r| r.into_iter().next()),
                ))
            }));
        }
        let gathers = scope.gathers.get();
        let family = function_list::find(&name).map(|group| group.family);
        let looks_at_rows = matches!(family, Some(Family::Aggregate | Family::Window));
        if looks_at_rows && !gathers {
            let message = format!("aggregate functions are not allowed here: {name}");
            return Err(Error::new(ErrorKind::Grouping, message));
        }
        refused::call(function, &name, looks_at_rows)?;
        if looks_at_rows {
            check_arity(&name, &function.args)?;
            // Inside their arguments stand plain expressions of a row.
            scope.gathers.set(false);
            let compile = || self.aggregate_or_window(&name, function, scope);
            // A window looks at rows that are grouped already.
            let compiled = if function.over.is_some() {
                compile()
            } else {
                let (compiled, outer_only) = scope.names_outer_only(|| scope.as_grouped(compile));
                // It would be the outer query's aggregate.
                refused::unless(!outer_only, "an aggregate of another query's columns")?;
                compiled
            };
            scope.gathers.set(gathers);
            return compiled;
        }
        let args = self.arguments(&function.args, scope)?;
        if name == "row" {
            return Ok(row_of(args));
        }
        let types: Vec<ValueType> = args.iter().map(|a| a.ty.clone()).collect();
        if let Some(set) = set_function(&name, &types) {
            if !gathers {
                let message = "set-returning functions are not allowed here";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            return Ok(gather_set(set, args, scope));
        }
        self.call(&name, args)
    }

    fn aggregate_or_window(
        &self,
        name: &str,
        function: &sql::Function,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        let args = self.arguments(&function.args, scope)?;
        let mut settled = Vec::new();
        for arg in args {
            settled.push(if arg.ty.pg == Type::UNKNOWN {
                self.cast(arg, ValueType::TEXT)?
            } else {
                arg
            });
        }
        let types: Vec<ValueType> = settled.iter().map(|a| a.ty.clone()).collect();
        let args: Vec<Eval> = settled.into_iter().map(|a| a.eval).collect();
        let list = match &function.args {
            sql::FunctionArguments::List(list) => Some(list),
            _ => None,
        };
        let mut order = Vec::new();
        for clause in list.map_or(&[][..], |l| &l.clauses) {
            match clause {
                sql::FunctionArgumentClause::OrderBy(keys) => {
                    order.extend(self.sort_keys(keys, scope)?)
                }
                other => return Err(unsupported(other)),
            }
        }
        let filter = function
            .filter
            .as_ref()
            .map(|f| self.expr(f, scope))
            .transpose()?
            .map(|f| f.eval);
        let distinct =
            list.is_some_and(|l| l.duplicate_treatment == Some(sql::DuplicateTreatment::Distinct));
        if let (true, Some(list)) = (distinct, list) {
            check_distinct_order(list, scope)?;
        }
        let aggregate = Kind::of(name, &types).map(|(kind, ty)| {
            let aggregate = Aggregate {
                kind,
                args,
                types,
                distinct,
                order,
                filter,
            };
            (aggregate, ty)
        });
        let Some(over) = &function.over else {
            let (aggregate, ty) = aggregate.ok_or_else(|| {
                Error::new(
                    ErrorKind::Windowing,
                    format!("window function {name} requires an OVER clause"),
                )
            })?;
            let mut gathered = scope.gathered.borrow_mut();
            gathered.aggregates.push(aggregate);
            let at = gathered.aggregates.len() - 1;
            return Ok(Expr::new(ty, move |env| {
                Ok(env.aggregates.get(at).cloned().unwrap_or(Value::Null))
            }));
        };
        let sql::WindowType::WindowSpec(spec) = over else {
            return Err(unsupported("a named window"));
        };
        let partition = spec
            .partition_by
            .iter()
            .map(|p| self.expr(p, scope).map(|e| e.eval))
            .collect::<Result<_, _>>()?;
        let order = self.sort_keys(&spec.order_by, scope)?;
        let (kind, ty) = match (WindowKind::of(name), aggregate) {
            (Some(kind), _) => (kind, ValueType::INT8),
            (None, Some((aggregate, ty))) if order.is_empty() => {
                (WindowKind::Aggregate(aggregate), ty)
            }
            _ => return Err(unsupported(format_args!("{name} over an ordered window"))),
        };
        let mut gathered = scope.gathered.borrow_mut();
        gathered.windows.push(Window {
            kind,
            partition,
            order,
        });
        let at = gathered.windows.len() - 1;
        Ok(Expr::new(ty, move |env| {
            Ok(env.windows.get(at).cloned().unwrap_or(Value::Null))
        }))
    }

    pub(super) fn sort_keys(
        &self,
        keys: &[sql::OrderByExpr],
        scope: &Scope<'_>,
    ) -> Result<Vec<SortKey>, Error> {
        let key = |k: &sql::OrderByExpr| {
            refused::key(k)?;
            let descending = k.options.asc == Some(false);
            let eval = self.expr(&k.expr, scope)?.eval;
            Ok(SortKey {
                eval,
                descending,
                nulls_first: k.options.nulls_first.unwrap_or(descending),
            })
        };
        keys.iter().map(key).collect()
    }

    /// A plain function of some arguments.
    pub(super) fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr, Error> {
        match name {
            "coalesce" | "greatest" | "least" => {
                let (ty, evals) = self.unify(args)?;
                let name = name.to_owned();
                return Ok(Expr::new(ty, move |env| {
                    let mut best = Value::Null;
                    for eval in &evals {
                        let value = eval(env)?;
                        let better = match name.as_str() {
                            _ if value.is_null() => false,
                            _ if best.is_null() => true,
                            "greatest" => value.compare(&best).is_gt(),
                            _ => value.compare(&best).is_lt(),
                        };
                        if better {
                            best = value;
                            if name == "coalesce" {
                                break;
                            }
                        }
                    }
                    Ok(best)
                }));
            }
            "nullif" if args.len() == 2 => {
                let mut args = args.into_iter();
                let (Some(a), Some(b)) = (args.next(), args.next()) else {
                    return Err(Error::internal("two arguments"));
                };
                let (a, b) = self.alike(a, b)?;
                let (ty, a, b) = (
                    if a.ty.pg == Type::UNKNOWN {
                        ValueType::TEXT
                    } else {
                        a.ty.clone()
                    },
                    a.eval,
                    b.eval,
                );
                return Ok(Expr::new(ty, move |env| {
                    let value = a(env)?;
                    Ok(if value == b(env)? { Value::Null } else { value })
                }));
            }
            _ => {}
        }
        let types: Vec<ValueType> = args.iter().map(|a| a.ty.clone()).collect();
        let found = functions::lookup(name, &types);
        // A type's name is a function that casts to it.
        if let (None, [_], Some(ty)) = (
            &found,
            types.as_slice(),
            self.snapshot
                .directory
                .type_oid(name)
                .and_then(Type::from_oid),
        ) {
            let mut args = args;
            return match args.pop() {
                Some(arg) => self.cast(arg, ValueType::of(ty)),
                None => Err(Error::internal("one argument")),
            };
        }
        let function = found.ok_or_else(|| {
            let shown: Vec<_> = types.iter().map(|t| sql_type_name(&t.pg)).collect();
            Error::new(ErrorKind::UndefinedFunction, format!("function {name}({}) does not exist", shown.join(", ")))
                .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
        })?;
        let mut evals = Vec::new();
        for arg in args {
            // A parameter that nothing else says more about is a text.
            evals.push(if arg.parameter.is_some() {
                self.cast(arg, ValueType::TEXT)?.eval
            } else {
                arg.eval
            });
        }
        Ok(Expr::new(function.returns, move |env| {
            let args = all_of_one_call(&evals, env)?;
            if function.strict && args.iter().any(Value::is_null) {
                return Ok(Value::Null);
            }
            env.context.made((function.call)(&args, env.context)?)
        }))
    }
}

/// The values of the arguments of one call; together they count as one value.
fn all_of_one_call(evals: &[Eval], env: &Env<'_>) -> Result<Vec<Value>, Error> {
    let mut args = Vec::with_capacity(evals.len());
    let mut bytes = 0usize;
    for eval in evals {
        let value = eval(env)?;
        bytes = bytes.saturating_add(value.size());
        // A function of one long text and a few short ones is within the limit of its longest
        // argument.
        env.context.check_length(bytes / 2)?;
        args.push(value);
    }
    Ok(args)
}

/// Aggregates take as many arguments as they have; a star is for count alone.
fn check_arity(name: &str, args: &sql::FunctionArguments) -> Result<(), Error> {
    let args = match args {
        sql::FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    let has_star = args
        .iter()
        .any(|a| matches!(a, sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Wildcard)));
    let fits = match name {
        "count" => args.len() == 1,
        "row_number" | "rank" | "dense_rank" => args.is_empty(),
        "string_agg" | "json_object_agg" | "jsonb_object_agg" => args.len() == 2 && !has_star,
        _ => args.len() == 1 && !has_star,
    };
    if fits {
        return Ok(());
    }
    let shown: Vec<_> = args.iter().map(ToString::to_string).collect();
    Err(Error::new(
        ErrorKind::UndefinedFunction,
        format!("function {name}({}) does not exist", shown.join(", ")),
    ))
}

fn gather_set(set: SetFunction, args: Vec<Expr>, scope: &Scope<'_>) -> Expr {
    let ty = match set.columns.as_slice() {
        [(_, ty)] => ty.clone(),
        columns => ValueType::record(columns.to_vec()),
    };
    let evals: Vec<Eval> = args.into_iter().map(|a| a.eval).collect();
    let is_record = set.columns.len() > 1;
    let rows = set.rows;
    let all: Eval = Box::new(move |env| {
        let args = evals
            .iter()
            .map(|e| e(env))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = rows(&args, env.context)?;
        let value = |row: Vec<Value>| {
            if is_record {
                Value::Record(row.into())
            } else {
                row.into_iter().next().unwrap_or(Value::Null)
            }
        };
        let all = Value::array(rows.into_iter().map(value));
        // Not one value, but the rows to come.
        env.context.hold(all.size())?;
        Ok(all)
    });
    let mut gathered = scope.gathered.borrow_mut();
    gathered.sets.push(all);
    let at = gathered.sets.len() - 1;
    Expr::new(ty, move |env| {
        Ok(env.sets.get(at).cloned().unwrap_or(Value::Null))
    })
}
