//! Rows about users, their settings and their connections.

use super::directory::Directory;
use super::facts::{OWNER, Object};
use super::relations::Definition;
use super::value::{Row, Value};

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

/// `pg_authid`, `pg_roles`, `pg_user`, `pg_shadow`, `pg_group`: passwords are never shown.
pub(super) fn roles(directory: &Directory, d: &Definition, rows: &mut Vec<Row>) {
    for role in &directory.facts.objects.roles {
        let oid = Value::oid(directory.oid(&Object::Role(role.name.clone())));
        let admin = Value::Bool(role.is_admin);
        let no = || Value::Bool(false);
        match d.name {
            "pg_user" | "pg_shadow" if role.can_login => rows.push(d.row([
                ("usename", text(&role.name)),
                ("usesysid", oid),
                ("usecreatedb", admin.clone()),
                ("usesuper", admin.clone()),
                ("userepl", no()),
                ("usebypassrls", admin),
                ("passwd", text("********")),
            ])),
            "pg_group" if !role.can_login => {
                let members = directory
                    .facts
                    .objects
                    .memberships
                    .iter()
                    .filter(|(group, _)| *group == role.name);
                let members = members
                    .map(|(_, member)| Value::oid(directory.oid(&Object::Role(member.clone()))));
                rows.push(d.row([
                    ("groname", text(&role.name)),
                    ("grosysid", oid),
                    ("grolist", Value::array(members)),
                ]));
            }
            "pg_authid" | "pg_roles" => {
                let mut row = d.row([
                    ("oid", oid),
                    ("rolname", text(&role.name)),
                    ("rolsuper", admin.clone()),
                    ("rolinherit", Value::Bool(true)),
                    ("rolcreaterole", admin.clone()),
                    ("rolcreatedb", admin.clone()),
                    ("rolcanlogin", Value::Bool(role.can_login)),
                    ("rolreplication", no()),
                    ("rolbypassrls", admin),
                    ("rolconnlimit", Value::Int(-1)),
                ]);
                if d.name == "pg_roles" {
                    row[d.column("rolpassword").unwrap_or(0)] = text("********");
                }
                rows.push(row);
            }
            _ => {}
        }
    }
}

pub(super) fn members(directory: &Directory, d: &Definition, rows: &mut Vec<Row>) {
    let oid = |name: &String| Value::oid(directory.oid(&Object::Role(name.clone())));
    rows.extend(
        directory
            .facts
            .objects
            .memberships
            .iter()
            .map(|(role, member)| {
                let set = Value::Bool(true);
                d.row([
                    ("roleid", oid(role)),
                    ("member", oid(member)),
                    ("grantor", Value::oid(OWNER)),
                    ("inherit_option", set.clone()),
                    ("set_option", set),
                ])
            }),
    );
}

pub(super) fn settings(directory: &Directory, d: &Definition, rows: &mut Vec<Row>) {
    rows.extend(directory.facts.settings.iter().map(|setting| {
        let value = setting.value.as_str();
        let kind = match value {
            "on" | "off" => "bool",
            v if !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()) => "integer",
            _ => "string",
        };
        d.row([
            ("name", text(super::settings_name(&setting.name))),
            ("setting", text(value)),
            ("category", text("Starkeep")),
            ("short_desc", text("")),
            (
                "context",
                text(if setting.is_fixed { "internal" } else { "user" }),
            ),
            ("vartype", text(kind)),
            (
                "source",
                text(if setting.value == setting.default {
                    "default"
                } else {
                    "session"
                }),
            ),
            ("boot_val", text(&setting.default)),
            ("reset_val", text(&setting.default)),
            ("pending_restart", Value::Bool(false)),
        ])
    }));
}

pub(super) fn activity(directory: &Directory, d: &Definition, rows: &mut Vec<Row>) {
    for one in &directory.facts.activity {
        if d.name != "pg_stat_activity" {
            let mut row = d.row([("pid", Value::Int(one.pid.into()))]);
            for name in ["ssl", "gss_authenticated", "encrypted"] {
                if let Some(at) = d.column(name) {
                    row[at] = Value::Bool(false);
                }
            }
            rows.push(row);
            continue;
        }
        let time = |t: Option<i64>| t.map_or(Value::Null, Value::Time);
        rows.push(
            d.row([
                (
                    "datid",
                    Value::oid(directory.oid(&Object::Database(one.database.clone()))),
                ),
                ("datname", text(&one.database)),
                ("pid", Value::Int(one.pid.into())),
                (
                    "usesysid",
                    Value::oid(directory.oid(&Object::Role(one.user.clone()))),
                ),
                ("usename", text(&one.user)),
                ("application_name", text(&one.application_name)),
                ("client_addr", text(&one.client_addr)),
                ("client_port", Value::Int(-1)),
                ("backend_start", Value::Time(one.started_at)),
                ("query_start", time(one.query_start)),
                ("state_change", time(one.query_start)),
                ("state", text(&one.state)),
                (
                    "query",
                    one.query
                        .as_deref()
                        .map_or(text("<insufficient privilege>"), Value::text),
                ),
                ("backend_type", text("client backend")),
            ]),
        );
    }
}
