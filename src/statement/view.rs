//! CREATE VIEW and DROP VIEW. The query of a view is PostgreSQL's language, kept as canonical text.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self as sql, Ident, ObjectName, ObjectNamePart};

use super::ast::{Definition, Qualified, Statement};
use super::bounds::{Reading, check_text};
use super::split::Language;
use super::sql_text::parse_query;
use crate::catalog::folded;
use crate::error::{Error, ErrorKind};
use crate::names::{DatabaseName, TableName};
use crate::schema::{ViewColumn, ViewDefinition};

/// CREATE VIEW as sqlparser read it.
pub(super) fn create_view(create: sql::CreateView, reading: &Reading) -> Result<Statement, Error> {
    let extras = [
        (create.materialized, "CREATE MATERIALIZED VIEW"),
        (create.temporary, "CREATE TEMPORARY VIEW"),
        (create.or_alter, "CREATE OR ALTER VIEW"),
        (create.with_no_schema_binding, "WITH NO SCHEMA BINDING"),
        (
            !matches!(create.options, sql::CreateTableOptions::None),
            "WITH (…) of CREATE VIEW",
        ),
        (create.to.is_some(), "TO of CREATE VIEW"),
        (!create.cluster_by.is_empty(), "CLUSTER BY of CREATE VIEW"),
    ];
    if let Some((_, what)) = extras.iter().find(|(is_set, _)| *is_set) {
        return Err(Error::unsupported(what));
    }
    let columns = create
        .columns
        .into_iter()
        .map(|c| ViewColumn {
            name: folded(&c.name),
            comment: None,
        })
        .collect();
    let query = canonical(&create.query, reading)?;
    let definition = Box::new(ViewDefinition {
        columns,
        query,
        comment: create.comment,
    });
    let view = table_name(&create.name)?;
    Ok(Statement::Define(Definition::CreateView {
        view,
        definition,
        or_replace: create.or_replace,
        if_not_exists: create.if_not_exists,
    }))
}

/// DROP VIEW as sqlparser read it.
pub(super) fn drop_view(if_exists: bool, names: &[ObjectName]) -> Result<Statement, Error> {
    match names {
        [name] => Ok(Statement::Define(Definition::DropView {
            view: table_name(name)?,
            if_exists,
        })),
        _ => Err(Error::unsupported("DROP VIEW of several views")),
    }
}

/// A table's or view's name: bare words keep their case here, as in StarRocks' own statements.
pub(super) fn table_name(name: &ObjectName) -> Result<Qualified<TableName>, Error> {
    let parts: Vec<&str> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(|i| i.value.as_str()))
        .collect();
    match parts.as_slice() {
        [table] => Ok(Qualified {
            database: None,
            name: TableName::new(*table)?,
        }),
        [database, table] => Ok(Qualified {
            database: Some(DatabaseName::new(*database)?),
            name: TableName::new(*table)?,
        }),
        _ => Err(Error::new(
            ErrorKind::InvalidName,
            format!("Invalid table name format '{name}'"),
        )),
    }
}

/// The query's text, if that reads back as the same query.
fn canonical(query: &sql::Query, reading: &Reading) -> Result<String, Error> {
    let text = query.to_string();
    match parse_query(&text, reading).ok().flatten().as_deref() {
        Some(sql::Statement::Query(again)) if **again == *query => Ok(text),
        _ => Err(Error::unsupported("a view with this query").detail(text)),
    }
}

/// A view's query with its bare table names in this database; names of its own WITH clauses stay
/// bare.
pub fn qualify_tables(query: &str, database: &DatabaseName) -> Result<String, Error> {
    let reading = Reading::default();
    check_text(query, Language::Postgres, &reading.bounds)?;
    let mut ast = parse_query(query, &reading)?
        .ok_or_else(|| Error::internal("a view's query is no query"))?;
    let mut own = Vec::new();
    collect_ctes(&ast, &mut own);
    let _ = sql::visit_relations_mut(&mut *ast, |relation| {
        if let [ObjectNamePart::Identifier(name)] = relation.0.as_slice()
            && !own.contains(&folded(name))
        {
            relation.0.insert(
                0,
                ObjectNamePart::Identifier(Ident::with_quote('"', database.as_str())),
            );
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(ast.to_string())
}

fn collect_ctes(statement: &sql::Statement, names: &mut Vec<String>) {
    struct Ctes<'a>(&'a mut Vec<String>);
    impl sql::Visitor for Ctes<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
            self.0.extend(
                query
                    .with
                    .iter()
                    .flat_map(|w| &w.cte_tables)
                    .map(|cte| folded(&cte.alias.name)),
            );
            ControlFlow::Continue(())
        }
    }
    let _ = sql::Visit::visit(statement, &mut Ctes(names));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_get_the_database() {
        let database = DatabaseName::new("Shop").expect("valid");
        for (query, qualified) in [
            (
                "SELECT a FROM t JOIN u.v ON t.a = v.a",
                "SELECT a FROM \"Shop\".t JOIN u.v ON t.a = v.a",
            ),
            (
                "WITH t AS (SELECT 1 AS a) SELECT a FROM t, w",
                "WITH t AS (SELECT 1 AS a) SELECT a FROM t, \"Shop\".w",
            ),
            (
                "SELECT (SELECT max(b) FROM x) FROM t",
                "SELECT (SELECT max(b) FROM \"Shop\".x) FROM \"Shop\".t",
            ),
        ] {
            assert_eq!(qualify_tables(query, &database).expect(query), qualified);
        }
    }
}
