//! What PostgreSQL calls a column that the statement gives no name.

use datafusion::sql::sqlparser::ast as sql;
use starkeep_error::{Error, ErrorKind};

/// The name of an item of a SELECT list: of its column or function, of the type that it is cast to,
/// or `?column?`.
pub fn column_name(expr: &sql::Expr) -> String {
    named(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A bare name folded to lower case, a quoted one as it is.
pub fn folded(ident: &sql::Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// The parts of a dotted name.
pub(super) fn parts(name: &sql::ObjectName) -> Vec<String> {
    name.0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(folded)
        .collect()
}

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

/// A name, and whether it is a good one: a weak one gives way to the name of a cast's type.
fn named(expr: &sql::Expr) -> Option<(String, bool)> {
    use sql::Expr as E;
    let strong = |name: &str| Some((name.to_owned(), true));
    match expr {
        E::Identifier(ident) => Some((folded(ident), true)),
        E::CompoundIdentifier(idents) => idents.last().map(|i| (folded(i), true)),
        E::Nested(inner) | E::Collate { expr: inner, .. } => named(inner),
        E::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|a| match a {
                sql::AccessExpr::Dot(E::Identifier(field)) => Some((folded(field), true)),
                _ => None,
            });
            field.or_else(|| named(root))
        }
        E::Cast {
            expr, data_type, ..
        } => match named(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_name(data_type), false)),
        },
        E::TypedString(typed) => Some((type_name(&typed.data_type), false)),
        E::Interval(_) => Some(("interval".to_owned(), false)),
        E::Function(function) => function
            .name
            .0
            .last()
            .and_then(|p| p.as_ident())
            .map(|i| (folded(i), true)),
        E::Case { else_result, .. } => match else_result.as_deref().and_then(named) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        E::Subquery(query) => match &*query.body {
            sql::SetExpr::Select(select) => match select.projection.first()? {
                sql::SelectItem::ExprWithAlias { alias, .. } => Some((folded(alias), true)),
                sql::SelectItem::UnnamedExpr(inner) => named(inner),
                _ => None,
            },
            _ => None,
        },
        E::Exists { .. } => strong("exists"),
        E::Array(_) => strong("array"),
        E::Tuple(_) => strong("row"),
        E::Extract { .. } => strong("extract"),
        E::Substring { .. } => strong("substring"),
        E::Position { .. } => strong("position"),
        E::Overlay { .. } => strong("overlay"),
        E::Ceil { .. } => strong("ceil"),
        E::Floor { .. } => strong("floor"),
        E::AtTimeZone { .. } => strong("timezone"),
        E::Trim { trim_where, .. } => strong(match trim_where {
            Some(sql::TrimWhereField::Leading) => "ltrim",
            Some(sql::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        E::Value(value) if matches!(value.value, sql::Value::Boolean(_)) => {
            Some(("bool".to_owned(), false))
        }
        _ => None,
    }
}

/// A type's own name: `int4` for INTEGER.
pub fn type_name(data_type: &sql::DataType) -> String {
    use sql::DataType as D;
    match data_type {
        D::Boolean | D::Bool => "bool",
        D::SmallInt(_) | D::Int2(_) => "int2",
        D::Int(_) | D::Integer(_) | D::Int4(_) => "int4",
        D::BigInt(_) | D::Int8(_) => "int8",
        D::Real | D::Float4 => "float4",
        D::Double(_) | D::DoublePrecision | D::Float8 | D::Float(_) => "float8",
        D::Numeric(_) | D::Decimal(_) | D::Dec(_) => "numeric",
        D::Varchar(_) | D::CharacterVarying(_) => "varchar",
        D::Char(_) | D::Character(_) => "bpchar",
        D::Timestamp(_, sql::TimezoneInfo::Tz | sql::TimezoneInfo::WithTimeZone) => "timestamptz",
        D::Timestamp(..) => "timestamp",
        D::Time(..) => "time",
        D::Array(sql::ArrayElemTypeDef::SquareBracket(item, _)) => return type_name(item),
        D::Custom(name, _) => {
            return name
                .0
                .last()
                .and_then(|p| p.as_ident())
                .map(folded)
                .unwrap_or_default();
        }
        other => return other.to_string().to_lowercase(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn columns_are_called_as_in_postgresql() {
        for (item, name) in [
            ("1", "?column?"),
            ("a.\"B\"", "B"),
            ("count(*)", "count"),
            ("pg_catalog.now()", "now"),
            ("1::int", "int4"),
            ("a::int", "a"),
            ("'x'::pg_catalog.regclass", "regclass"),
            ("CASE WHEN a THEN 1 END", "case"),
            ("CASE WHEN a THEN 1 ELSE b END", "b"),
            ("(SELECT max(x) FROM t)", "max"),
            ("coalesce(a, 1)", "coalesce"),
            ("a + 1", "?column?"),
            ("(f(x)).n", "n"),
            ("trim(both 'x' from a)", "btrim"),
            ("true", "bool"),
        ] {
            let mut statements =
                Parser::parse_sql(&PostgreSqlDialect {}, &format!("SELECT {item}")).expect(item);
            let Some(sql::Statement::Query(query)) = statements.pop() else {
                panic!("{item}")
            };
            let sql::SetExpr::Select(select) = *query.body else {
                panic!("{item}")
            };
            let sql::SelectItem::UnnamedExpr(expr) = &select.projection[0] else {
                panic!("{item}")
            };
            assert_eq!(column_name(expr), name, "{item}");
        }
    }
}
