//! Functions that answer several rows: in a SELECT list, after FROM, and with a number of each row.

use datafusion::sql::sqlparser::ast as sql;

use super::super::series::BIG_SERIES;
use super::call;
use crate::error::Error;

/// The function that makes an array of the rows of such a function.
pub(super) fn array_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "generate_series" => "generate_series",
        "regexp_split_to_table" => "regexp_split_to_array",
        "string_to_table" => "string_to_array",
        _ => return None,
    })
}

fn args_of(args: &[sql::FunctionArg]) -> Option<Vec<sql::Expr>> {
    let args = args.iter().map(|arg| match arg {
        sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(arg)) => Some(arg.clone()),
        _ => None,
    });
    args.collect()
}

/// In a SELECT list.
pub(super) fn in_list(function: &sql::Function) -> Result<Option<sql::Expr>, Error> {
    let name = function.name.to_string().to_lowercase();
    let sql::FunctionArguments::List(list) = &function.args else {
        return Ok(None);
    };
    let rows = array_of(&name).zip(args_of(&list.args));
    Ok(rows.map(|(array, args)| call("unnest", vec![call(array, args)])))
}

/// Behind FROM.
pub(super) fn in_tables(table: &mut sql::TableWithJoins) -> Result<(), Error> {
    let joined = table.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut table.relation).chain(joined) {
        match factor {
            sql::TableFactor::NestedJoin {
                table_with_joins, ..
            } => in_tables(table_with_joins)?,
            factor => {
                in_from(factor)?;
                big_series(factor);
            }
        }
    }
    Ok(())
}

/// A series whose bounds are no plain numbers is not one of integers: they may be cast to bigints,
/// which the function is not told.
fn big_series(factor: &mut sql::TableFactor) {
    let sql::TableFactor::Table {
        name,
        alias,
        args: Some(args),
        ..
    } = factor
    else {
        return;
    };
    let is_plain = |arg: &sql::FunctionArg| arg.to_string().parse::<i64>().is_ok();
    let is_series = name.to_string().eq_ignore_ascii_case("generate_series");
    if is_series && !args.args.iter().all(is_plain) {
        alias.get_or_insert_with(|| named("generate_series"));
        *name = sql::ObjectName::from(vec![sql::Ident::new(BIG_SERIES)]);
    }
}

/// A function after FROM, and WITH ORDINALITY.
fn in_from(factor: &mut sql::TableFactor) -> Result<(), Error> {
    if let sql::TableFactor::Table {
        name,
        alias,
        args: Some(args),
        with_ordinality,
        ..
    } = &*factor
    {
        let name = name.to_string().to_lowercase();
        let array = array_of(&name).filter(|array| *array != "generate_series");
        if let Some((array, args)) = array.zip(args_of(&args.args)) {
            *factor = sql::TableFactor::UNNEST {
                alias: Some(alias.clone().unwrap_or_else(|| named(&name))),
                array_exprs: vec![call(array, args)],
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: *with_ordinality,
            };
        }
    }
    let mut alias = match factor {
        sql::TableFactor::Table {
            name,
            alias,
            with_ordinality: counted @ true,
            ..
        } => {
            *counted = false;
            let named = named(&name.to_string().to_lowercase());
            alias.take().unwrap_or(named)
        }
        sql::TableFactor::UNNEST {
            alias,
            with_ordinality: counted @ true,
            ..
        } => {
            *counted = false;
            alias.take().unwrap_or_else(|| named("unnest"))
        }
        _ => return Ok(()),
    };
    // Rows of one array or series come in their order.
    let width = match factor {
        sql::TableFactor::UNNEST { array_exprs, .. } => array_exprs.len(),
        _ => 1,
    };
    if alias.columns.len() <= width {
        let itself = alias.name.clone();
        let mut columns: Vec<sql::Ident> = alias.columns.drain(..).map(|c| c.name).collect();
        if columns.is_empty() && width == 1 {
            columns.push(itself);
        }
        while columns.len() < width {
            columns.push(sql::Ident::new("unnest"));
        }
        columns.push(sql::Ident::new("ordinality"));
        let columns = columns.into_iter().map(|name| sql::TableAliasColumnDef {
            name,
            data_type: None,
        });
        alias.columns = columns.collect();
    }
    let mut rows = super::parsed("SELECT *, row_number() OVER () FROM one_row")?;
    if let sql::SetExpr::Select(select) = &mut *rows.body {
        select.from[0].relation = factor.clone();
    }
    *factor = sql::TableFactor::Derived {
        lateral: false,
        subquery: rows,
        alias: Some(alias),
        sample: None,
    };
    Ok(())
}

fn named(name: &str) -> sql::TableAlias {
    sql::TableAlias {
        explicit: true,
        name: sql::Ident::new(name),
        columns: Vec::new(),
        at: None,
    }
}
