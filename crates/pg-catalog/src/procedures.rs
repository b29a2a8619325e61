//! Signatures of functions, from `pg_proc`.

use starkeep_pg_semantics::text::quote_ident;

use super::snapshot::CatalogSnapshot;
use super::value::{Row, Value};

/// A row of `pg_proc` and the places of some of its columns.
fn find<const N: usize>(
    snapshot: &CatalogSnapshot,
    oid: u32,
    names: [&str; N],
) -> Option<(Row, [usize; N])> {
    let all = snapshot.relation("pg_catalog", "pg_proc").ok()??;
    let at = |name: &str| all.columns.iter().position(|(n, _)| n == name).unwrap_or(0);
    let row = all.rows.iter().find(|r| r[0].as_oid() == oid)?;
    Some((row.clone(), names.map(at)))
}

fn type_of(snapshot: &CatalogSnapshot, value: &Value) -> String {
    snapshot.directory.format_type(value.as_oid(), None)
}

/// `pg_get_function_result`
pub(super) fn result(snapshot: &CatalogSnapshot, oid: u32) -> Value {
    let Some((row, [returns, is_set, kind])) =
        find(snapshot, oid, ["prorettype", "proretset", "prokind"])
    else {
        return Value::Null;
    };
    if row[kind].as_text() == "p" {
        return Value::Null;
    }
    let setof = if row[is_set].is_true() { "SETOF " } else { "" };
    Value::text(format!("{setof}{}", type_of(snapshot, &row[returns])))
}

/// `pg_get_function_arguments`, without defaults.
pub(super) fn arguments(snapshot: &CatalogSnapshot, oid: u32) -> Value {
    let names = [
        "proargtypes",
        "proallargtypes",
        "proargmodes",
        "proargnames",
    ];
    let Some((row, [inputs, all, modes, names])) = find(snapshot, oid, names) else {
        return Value::Null;
    };
    let types = if row[all].is_null() {
        row[inputs].items()
    } else {
        row[all].items()
    };
    let shown = types.iter().enumerate().map(|(i, ty)| {
        let mode = match row[modes].items().get(i).map(Value::as_text) {
            Some("o") => "OUT ",
            Some("b") => "INOUT ",
            Some("v") => "VARIADIC ",
            _ => "",
        };
        let name = row[names]
            .items()
            .get(i)
            .map(Value::as_text)
            .filter(|n| !n.is_empty());
        let name = name.map_or(String::new(), |n| format!("{} ", quote_ident(n)));
        format!("{mode}{name}{}", type_of(snapshot, ty))
    });
    Value::text(shown.collect::<Vec<_>>().join(", "))
}
