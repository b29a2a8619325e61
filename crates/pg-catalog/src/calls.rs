//! Calls of functions in catalog queries: plain ones, aggregates, windows, and sets.

use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::aggregate::{Aggregate, Kind, SortKey, Window, WindowKind};
use super::compile::{Compiler, Env, Eval, Expr, Scope, parts, row_of, unsupported};
use super::context::Context;
use super::functions;
use super::grouping::check_distinct_order;
use super::refused;
use super::relations::Row;
use super::value::{Value, ValueType, type_name};
use starkeep_error::{Error, ErrorKind};

/// The rows for some arguments.
type RowsOf = fn(&[Value], &Context) -> Result<Vec<Row>, Error>;

/// A function that answers rows: what each row has, and the rows for some arguments.
pub(super) struct SetFunction {
    pub columns: Vec<(String, ValueType)>,
    pub rows: RowsOf,
}

/// The most rows that one call answers.
const SET_MAX: i64 = 1_000_000;

/// Finds a function that answers sets.
pub(super) fn set_function(name: &str, args: &[ValueType]) -> Option<SetFunction> {
    let one = |ty: ValueType| vec![(name.to_owned(), ty)];
    let item = || {
        args.first()
            .and_then(ValueType::item)
            .unwrap_or(ValueType::TEXT)
    };
    let each = |values: &[Value], _: &Context| {
        Ok(values[0].items().iter().map(|i| vec![i.clone()]).collect())
    };
    Some(match (name, args.len()) {
        ("generate_series", 2 | 3) => SetFunction {
            columns: one(if args.iter().any(|a| a.pg == Type::INT8) {
                ValueType::INT8
            } else {
                ValueType::INT4
            }),
            rows: |values, _| {
                let step = values.get(2).map_or(Some(1), Value::as_int);
                let (Some(from), Some(to), Some(step)) =
                    (values[0].as_int(), values[1].as_int(), step)
                else {
                    return Ok(Vec::new());
                };
                if step == 0 {
                    return Err(Error::new(
                        ErrorKind::InvalidParameter,
                        "step size cannot equal zero",
                    ));
                }
                if (i128::from(to) - i128::from(from)) / i128::from(step) > i128::from(SET_MAX) {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("generate_series of more than {SET_MAX} rows"),
                    ));
                }
                let mut rows = Vec::new();
                let mut at = from;
                while if step > 0 { at <= to } else { at >= to } {
                    rows.push(vec![Value::Int(at)]);
                    let Some(next) = at.checked_add(step) else {
                        break;
                    };
                    at = next;
                }
                Ok(rows)
            },
        },
        ("unnest", 1) => SetFunction {
            columns: one(item()),
            rows: each,
        },
        ("string_to_table" | "regexp_split_to_table", 2) => SetFunction {
            columns: one(ValueType::TEXT),
            rows: |values, _| {
                let rows = values[0]
                    .as_text()
                    .split(values[1].as_text())
                    .map(|t| vec![Value::text(t)]);
                let rows: Vec<Row> = rows.take(SET_MAX as usize + 1).collect();
                if rows.len() > SET_MAX as usize {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("a text of more than {SET_MAX} parts"),
                    ));
                }
                Ok(rows)
            },
        },
        ("generate_subscripts", 2) => SetFunction {
            columns: one(ValueType::INT4),
            rows: |values, _| match &values[0] {
                Value::Array(lower, items) => Ok((0..items.len())
                    .map(|i| vec![Value::Int(lower.saturating_add(i as i64))])
                    .collect()),
                _ => Ok(Vec::new()),
            },
        },
        // The standard's keys have places; this tells them.
        ("_pg_expandarray", 1) => SetFunction {
            columns: vec![("x".into(), item()), ("n".into(), ValueType::INT4)],
            rows: |values, _| {
                let numbered = values[0].items().iter().enumerate();
                Ok(numbered
                    .map(|(i, x)| vec![x.clone(), Value::Int(i as i64 + 1)])
                    .collect())
            },
        },
        // Nothing is partitioned or inherited, for PostgreSQL's idea of it.
        ("pg_partition_ancestors", 1) => SetFunction {
            columns: vec![("relid".into(), ValueType::of(Type::REGCLASS))],
            rows: |_, _| Ok(Vec::new()),
        },
        ("pg_partition_tree", 1) => SetFunction {
            columns: vec![
                ("relid".into(), ValueType::of(Type::REGCLASS)),
                ("parentrelid".into(), ValueType::of(Type::REGCLASS)),
                ("isleaf".into(), ValueType::BOOL),
                ("level".into(), ValueType::INT4),
            ],
            rows: |_, _| Ok(Vec::new()),
        },
        ("pg_options_to_table", 1) => SetFunction {
            columns: vec![
                ("option_name".into(), ValueType::TEXT),
                ("option_value".into(), ValueType::TEXT),
            ],
            rows: |_, _| Ok(Vec::new()),
        },
        ("aclexplode", 1) => SetFunction {
            columns: vec![
                ("grantor".into(), ValueType::OID),
                ("grantee".into(), ValueType::OID),
                ("privilege_type".into(), ValueType::TEXT),
                ("is_grantable".into(), ValueType::BOOL),
            ],
            rows: |values, context| {
                Ok(values[0]
                    .items()
                    .iter()
                    .flat_map(|acl| explode(acl.as_text(), context))
                    .collect())
            },
        },
        ("pg_get_keywords", 0) => SetFunction {
            columns: ["word", "catcode", "barelabel", "catdesc", "baredesc"]
                .map(|n| {
                    (
                        n.to_owned(),
                        match n {
                            "catcode" => ValueType::of(Type::CHAR),
                            "barelabel" => ValueType::BOOL,
                            _ => ValueType::TEXT,
                        },
                    )
                })
                .into(),
            rows: |_, context| Ok(context.snapshot.builtin.keywords().to_vec()),
        },
        ("json_array_elements_text" | "jsonb_array_elements_text", 1) => SetFunction {
            columns: vec![("value".into(), ValueType::TEXT)],
            rows: |values, _| {
                let parsed: serde_json::Value =
                    serde_json::from_str(values[0].as_text()).unwrap_or_default();
                let shown =
                    |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                Ok(parsed
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|v| vec![Value::text(shown(v))])
                    .collect())
            },
        },
        _ => return None,
    })
}

/// `grantee=UC/grantor` as rows.
fn explode(acl: &str, context: &Context) -> Vec<Vec<Value>> {
    let Some((grantee, rest)) = acl.split_once('=') else {
        return Vec::new();
    };
    let (letters, grantor) = rest.split_once('/').unwrap_or((rest, ""));
    let oid = |name: &str| {
        Value::oid(if name.is_empty() {
            0
        } else {
            context.snapshot.reg_oid(&Type::REGROLE, name).unwrap_or(0)
        })
    };
    let word = |letter: char| match letter {
        'r' => "SELECT",
        'a' => "INSERT",
        'd' => "DELETE",
        'U' => "USAGE",
        'C' => "CREATE",
        'X' => "EXECUTE",
        _ => "CONNECT",
    };
    letters
        .chars()
        .filter(char::is_ascii_alphabetic)
        // No more privileges than there are letters.
        .take(52)
        .map(|l| {
            vec![
                oid(grantor),
                oid(grantee),
                Value::text(word(l)),
                Value::Bool(false),
            ]
        })
        .collect()
}

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
        let is_window_only = matches!(name.as_str(), "row_number" | "rank" | "dense_rank");
        let is_aggregate = Kind::of(&name, &[]).is_some();
        if (is_aggregate || is_window_only) && !gathers {
            let message = format!("aggregate functions are not allowed here: {name}");
            return Err(Error::new(ErrorKind::Grouping, message));
        }
        refused::call(function, &name, is_aggregate || is_window_only)?;
        if is_aggregate || is_window_only {
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
        let (kind, ty) = match (name, aggregate) {
            ("row_number", _) => (WindowKind::RowNumber, ValueType::INT8),
            ("rank", _) => (WindowKind::Rank, ValueType::INT8),
            ("dense_rank", _) => (WindowKind::DenseRank, ValueType::INT8),
            (_, Some((aggregate, ty))) if order.is_empty() => {
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
            self.snapshot.type_oid(name).and_then(Type::from_oid),
        ) {
            let mut args = args;
            return match args.pop() {
                Some(arg) => self.cast(arg, ValueType::of(ty)),
                None => Err(Error::internal("one argument")),
            };
        }
        let function = found.ok_or_else(|| {
            let shown: Vec<_> = types.iter().map(|t| type_name(&t.pg)).collect();
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

/// A set function in a SELECT list: its values come one a row.
/// A function's own name; its schema can only be where PostgreSQL's functions are.
pub(super) fn function_name(name: &sql::ObjectName) -> Result<String, Error> {
    let mut parts = parts(name);
    if let [.., schema, name] = parts.as_slice()
        && !matches!(
            (schema.as_str(), name.as_str()),
            ("pg_catalog", _) | ("information_schema", "_pg_expandarray")
        )
    {
        let message = format!("function {}(…) does not exist", parts.join("."));
        return Err(Error::new(ErrorKind::UndefinedFunction, message));
    }
    Ok(parts.pop().unwrap_or_default())
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
