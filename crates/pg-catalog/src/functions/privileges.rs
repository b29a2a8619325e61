//! What a user may: the functions has_table_privilege, pg_has_role and their like.

use starkeep_error::Error;

use super::{class, table_of};
use crate::context::Context;
use crate::snapshot::CatalogSnapshot;
use crate::value::Value;

pub(super) fn role_of(value: &Value, context: &Context) -> Option<String> {
    match value {
        Value::Text(name) => Some(name.to_string()),
        other => context.snapshot.directory.role_name(other.as_oid()),
    }
}

/// Whether a user is a role or has it, perhaps by other roles. Administrators have all.
pub(super) fn has_role(snapshot: &CatalogSnapshot, user: &str, role: &str) -> bool {
    let is_admin = snapshot
        .directory
        .facts
        .objects
        .roles
        .iter()
        .any(|r| r.name == user && r.is_admin);
    let mut reached = vec![user.to_owned()];
    let mut next = 0;
    while let Some(member) = reached.get(next).cloned() {
        for (role, of) in &snapshot.directory.facts.objects.memberships {
            if *of == member && !reached.contains(role) {
                reached.push(role.clone());
            }
        }
        next += 1;
    }
    is_admin || reached.iter().any(|r| r == role)
}

pub(super) fn table_privilege(
    args: &[Value],
    context: &Context,
    is_column: bool,
) -> Result<Value, Error> {
    let snapshot = &context.snapshot;
    let object = args.len() - if is_column { 3 } else { 2 };
    if let Some(user) = args
        .first()
        .filter(|_| object == 1)
        .and_then(|u| role_of(u, context))
        && user != snapshot.directory.facts.user
    {
        return Err(Error::unsupported("asking for another user's privileges")
            .hint("SELECT * FROM system.grants"));
    }
    let oid = class(&args[object], snapshot)?;
    let words = args[args.len() - 1].as_text().to_ascii_uppercase();
    let own = snapshot
        .directory
        .relation_name(oid)
        .is_some_and(|(s, _)| s == "pg_catalog" || s == "information_schema");
    if own {
        return Ok(Value::Bool(words.contains("SELECT")));
    }
    Ok(match table_of(snapshot, oid) {
        Some((_, table)) => {
            Value::Bool(words.split(',').any(|w| table.granted.contains(&w.trim())))
        }
        None => Value::Null,
    })
}
