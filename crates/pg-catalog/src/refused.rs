//! What the parser reads and the evaluator does not do. Each structure is taken apart field by
//! field, so that one that a later parser adds does not compile until somebody has decided about
//! it.

use datafusion::sql::sqlparser::ast as sql;

use super::expr::unsupported;
use starkeep_error::{Error, ErrorKind};

/// Refuses by name what is not so.
pub(super) fn unless(is_fine: bool, what: &str) -> Result<(), Error> {
    if is_fine {
        Ok(())
    } else {
        Err(unsupported(what))
    }
}

pub(super) fn query(query: &sql::Query) -> Result<(), Error> {
    let sql::Query {
        with: _,
        body: _,
        order_by: _,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if let Some(lock) = locks.first() {
        return Err(unsupported(lock));
    }
    unless(for_clause.is_none(), "FOR XML, JSON or BROWSE")?;
    unless(settings.is_none(), "SETTINGS")?;
    unless(format_clause.is_none(), "FORMAT")?;
    unless(pipe_operators.is_empty(), "a pipe operator")?;
    match limit_clause {
        None => {}
        Some(sql::LimitClause::LimitOffset {
            limit,
            offset: _,
            limit_by,
        }) => {
            unless(limit_by.is_empty(), "LIMIT BY")?;
            if limit.is_some() && fetch.is_some() {
                return Err(Error::new(
                    ErrorKind::Syntax,
                    "LIMIT and FETCH cannot both be there",
                ));
            }
        }
        Some(sql::LimitClause::OffsetCommaLimit {
            offset: _,
            limit: _,
        }) => {
            return Err(
                Error::new(ErrorKind::Syntax, "LIMIT #,# syntax is not supported")
                    .hint("Use separate LIMIT and OFFSET clauses."),
            );
        }
    }
    if let Some(sql::Fetch {
        with_ties,
        percent,
        quantity: _,
    }) = fetch
    {
        unless(!with_ties, "FETCH … WITH TIES")?;
        unless(!percent, "FETCH … PERCENT")?;
    }
    Ok(())
}

/// The keys of a query's order.
pub(super) fn order_by(query: &sql::Query) -> Result<&[sql::OrderByExpr], Error> {
    let Some(sql::OrderBy { kind, interpolate }) = &query.order_by else {
        return Ok(&[]);
    };
    unless(interpolate.is_none(), "INTERPOLATE")?;
    match kind {
        sql::OrderByKind::Expressions(keys) => {
            keys.iter().try_for_each(key)?;
            Ok(keys)
        }
        sql::OrderByKind::All(_) => Err(unsupported("ORDER BY ALL")),
    }
}

pub(super) fn key(key: &sql::OrderByExpr) -> Result<(), Error> {
    let sql::OrderByExpr {
        expr: _,
        options: sql::OrderByOptions {
            asc: _,
            nulls_first: _,
        },
        with_fill,
    } = key;
    unless(with_fill.is_none(), "WITH FILL")
}

/// What cannot stand in the recursive query of a WITH.
pub(super) fn in_recursion(query: &sql::Query) -> Result<(), Error> {
    let what = match query {
        sql::Query {
            order_by: Some(_), ..
        } => "ORDER BY in a recursive query",
        sql::Query {
            limit_clause: Some(_),
            ..
        }
        | sql::Query { fetch: Some(_), .. } => "LIMIT in a recursive query",
        sql::Query { with: Some(_), .. } => "WITH in a recursive query",
        _ => return self::query(query),
    };
    Err(unsupported(what))
}

pub(super) fn select(select: &sql::Select) -> Result<(), Error> {
    let sql::Select {
        select_token: _,
        optimizer_hints,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by: _,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    unless(optimizer_hints.is_empty(), "a hint for the optimizer")?;
    unless(select_modifiers.is_none(), "a modifier of SELECT")?;
    unless(top.is_none(), "TOP")?;
    unless(exclude.is_none(), "EXCLUDE")?;
    unless(into.is_none(), "SELECT INTO")?;
    unless(lateral_views.is_empty(), "LATERAL VIEW")?;
    unless(prewhere.is_none(), "PREWHERE")?;
    unless(connect_by.is_empty(), "CONNECT BY")?;
    unless(cluster_by.is_empty(), "CLUSTER BY")?;
    unless(distribute_by.is_empty(), "DISTRIBUTE BY")?;
    unless(sort_by.is_empty(), "SORT BY")?;
    unless(named_window.is_empty(), "WINDOW")?;
    unless(qualify.is_none(), "QUALIFY")?;
    unless(value_table_mode.is_none(), "SELECT AS")?;
    unless(*flavor == sql::SelectFlavor::Standard, "FROM before SELECT")
}

pub(super) fn star(options: &sql::WildcardAdditionalOptions) -> Result<(), Error> {
    let sql::WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let is_bare = opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none();
    unless(is_bare, "an option of *")
}

/// What may stand beside a relation's name.
pub(super) fn factor(factor: &sql::TableFactor) -> Result<(), Error> {
    match factor {
        sql::TableFactor::Table {
            name: _,
            alias: _,
            args,
            with_hints,
            version,
            with_ordinality: _,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            unless(sample.is_none(), "TABLESAMPLE")?;
            unless(
                with_hints.is_empty() && index_hints.is_empty(),
                "a hint for a table",
            )?;
            unless(version.is_none(), "a version of a table")?;
            unless(partitions.is_empty(), "PARTITION")?;
            unless(json_path.is_none(), "a path in a table")?;
            unless(
                args.as_ref().is_none_or(|a| a.settings.is_none()),
                "SETTINGS",
            )
        }
        sql::TableFactor::Derived {
            lateral: _,
            subquery: _,
            alias: _,
            sample,
        } => unless(sample.is_none(), "TABLESAMPLE"),
        sql::TableFactor::UNNEST {
            alias: _,
            array_exprs: _,
            with_offset,
            with_offset_alias,
            with_ordinality: _,
        } => unless(!with_offset && with_offset_alias.is_none(), "WITH OFFSET"),
        _ => Ok(()),
    }
}

/// What a call may have beside its arguments; `is_aggregate` is for those that take rows.
pub(super) fn call(function: &sql::Function, name: &str, is_aggregate: bool) -> Result<(), Error> {
    let sql::Function {
        name: _,
        uses_odbc_syntax,
        parameters,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = function;
    unless(!uses_odbc_syntax, "{fn …}")?;
    unless(
        matches!(parameters, sql::FunctionArguments::None),
        "a call with parameters",
    )?;
    unless(null_treatment.is_none(), "IGNORE NULLS or RESPECT NULLS")?;
    unless(within_group.is_empty(), "WITHIN GROUP")?;
    if let Some(sql::WindowType::WindowSpec(spec)) = over {
        let sql::WindowSpec {
            window_name,
            partition_by: _,
            order_by: _,
            window_frame,
        } = spec;
        unless(window_name.is_none(), "a named window")?;
        unless(window_frame.is_none(), "the frame of a window")?;
    }
    if is_aggregate {
        return Ok(());
    }
    let plain = |clause: &str| {
        let message = format!("{clause} specified, but {name} is not an aggregate function");
        Err(Error::new(ErrorKind::WrongObjectType, message))
    };
    if filter.is_some() {
        return plain("FILTER");
    }
    if over.is_some() {
        let message = format!(
            "OVER specified, but {name} is not a window function nor an aggregate function"
        );
        return Err(Error::new(ErrorKind::WrongObjectType, message));
    }
    let sql::FunctionArguments::List(sql::FunctionArgumentList {
        duplicate_treatment,
        args: _,
        clauses,
    }) = args
    else {
        return Ok(());
    };
    if *duplicate_treatment == Some(sql::DuplicateTreatment::Distinct) {
        return plain("DISTINCT");
    }
    match clauses.first() {
        Some(sql::FunctionArgumentClause::OrderBy(_)) => plain("ORDER BY"),
        Some(other) => Err(unsupported(other)),
        None => Ok(()),
    }
}

/// A type with a length or precision: values would have to be cut or rounded to it.
pub(super) fn data_type(data_type: &sql::DataType) -> Result<(), Error> {
    use sql::DataType as D;
    let is_bare = match data_type {
        D::Varchar(length) | D::CharacterVarying(length) | D::CharVarying(length) => {
            length.is_none()
        }
        D::Char(length) | D::Character(length) => length.is_none(),
        D::Numeric(info) | D::Decimal(info) | D::Dec(info) | D::Float(info) => {
            *info == sql::ExactNumberInfo::None
        }
        D::Timestamp(precision, _) | D::Time(precision, _) => precision.is_none(),
        D::Bit(length) | D::BitVarying(length) => length.is_none(),
        D::Interval { fields, precision } => fields.is_none() && precision.is_none(),
        D::Custom(_, modifiers) => modifiers.is_empty(),
        _ => true,
    };
    unless(is_bare, &format!("a cast to {data_type}"))
}
