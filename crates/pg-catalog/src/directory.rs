//! Names and numbers (oids) of everything there is: the facts of one moment beside PostgreSQL's own
//! relations.

use std::sync::Arc;

use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::text::{identifiers, quote_ident};

use super::facts::{
    INFORMATION_SCHEMA, OWNER, Object, PG_CATALOG, Schema, ServerFacts, Setting, Table,
};
use super::relations::BuiltinRelations;
use super::types::{array_type, sql_type_name};

#[derive(Debug)]
pub(super) struct Directory {
    pub facts: ServerFacts,
    pub builtin: Arc<BuiltinRelations>,
}

impl Directory {
    pub fn oid(&self, object: &Object) -> u32 {
        match object {
            Object::Role(name) if name == "root" => OWNER,
            Object::Schema(name) if name == "pg_catalog" => PG_CATALOG,
            Object::Schema(name) if name == "information_schema" => INFORMATION_SCHEMA,
            object => self.facts.objects.oid(object),
        }
    }

    pub fn relation_oid(&self, schema: &str, table: &str) -> u32 {
        self.oid(&Object::Relation(schema.to_owned(), table.to_owned()))
    }

    pub fn named(&self, oid: u32) -> Option<&Object> {
        self.facts.objects.named(oid)
    }

    pub fn role_name(&self, oid: u32) -> Option<String> {
        match self.named(oid) {
            _ if oid == OWNER => Some("root".into()),
            Some(Object::Role(name)) => Some(name.clone()),
            _ => None,
        }
    }

    /// The schemas in which bare names are looked for: the current one after PostgreSQL's own.
    pub fn search_path(&self, implicit: bool) -> Vec<String> {
        let current = self.facts.current_schema.clone();
        let own = implicit.then(|| "pg_catalog".to_owned());
        own.into_iter()
            .chain(current.or_else(|| Some("system".into())))
            .collect()
    }

    /// Schema and name of a relation by its number, PostgreSQL's own and indexes included.
    pub fn relation_name(&self, oid: u32) -> Option<(String, String)> {
        match self.named(oid) {
            Some(Object::Relation(schema, name)) => Some((schema.clone(), name.clone())),
            Some(Object::Key(schema, table)) => Some((schema.clone(), format!("{table}_pkey"))),
            Some(_) => None,
            None => {
                let own = self.builtin.definitions.iter().find(|d| d.oid == oid)?;
                Some((own.schema.into(), own.name.into()))
            }
        }
    }

    /// What `regclass` and the like show: the name, qualified where it must be; the number if there
    /// is no name.
    pub fn reg_name(&self, ty: &Type, oid: u32) -> String {
        let path = self.search_path(true);
        let name = match *ty {
            Type::REGCLASS => self.relation_name(oid).map(|(schema, name)| {
                let bare = path.contains(&schema);
                if bare {
                    quote_ident(&name)
                } else {
                    format!("{}.{}", quote_ident(&schema), quote_ident(&name))
                }
            }),
            Type::REGTYPE => Type::from_oid(oid)
                .map(|t| sql_type_name(&t))
                .or_else(|| self.builtin.type_names.get(&oid).cloned()),
            Type::REGPROC | Type::REGPROCEDURE => self.builtin.function_names.get(&oid).cloned(),
            Type::REGNAMESPACE => match oid {
                PG_CATALOG => Some("pg_catalog".into()),
                INFORMATION_SCHEMA => Some("information_schema".into()),
                oid => match self.named(oid) {
                    Some(Object::Schema(name)) => Some(quote_ident(name)),
                    _ => None,
                },
            },
            Type::REGROLE => self.role_name(oid).map(|n| quote_ident(&n)),
            _ => None,
        };
        name.unwrap_or_else(|| {
            if oid == 0 {
                "-".into()
            } else {
                oid.to_string()
            }
        })
    }

    /// The number of a name that is written as `regclass` and the like.
    pub fn reg_oid(&self, ty: &Type, text: &str) -> Result<u32, Error> {
        if let Ok(oid) = text.parse() {
            return Ok(oid);
        }
        if text == "-" {
            return Ok(0);
        }
        let found = match *ty {
            Type::REGCLASS => self.class_oid(text),
            Type::REGTYPE => self.type_oid(text),
            Type::REGPROC | Type::REGPROCEDURE => {
                let name = text.split('(').next().unwrap_or(text);
                self.builtin
                    .function(name.trim_start_matches("pg_catalog."))
            }
            Type::REGNAMESPACE => {
                let name = identifiers(text).pop().unwrap_or_default();
                Some(self.oid(&Object::Schema(name))).filter(|oid| *oid != 0)
            }
            Type::REGROLE => {
                let name = identifiers(text).pop().unwrap_or_default();
                Some(self.oid(&Object::Role(name))).filter(|oid| *oid != 0)
            }
            _ => None,
        };
        found.ok_or_else(|| match *ty {
            Type::REGCLASS => Error::new(
                ErrorKind::UndefinedTable,
                format!("relation \"{text}\" does not exist"),
            ),
            Type::REGTYPE => Error::new(
                ErrorKind::UndefinedObject,
                format!("type \"{text}\" does not exist"),
            ),
            Type::REGNAMESPACE => Error::new(
                ErrorKind::UndefinedSchema,
                format!("schema \"{text}\" does not exist"),
            ),
            Type::REGROLE => Error::new(
                ErrorKind::UndefinedObject,
                format!("role \"{text}\" does not exist"),
            ),
            _ => Error::new(
                ErrorKind::UndefinedFunction,
                format!("function \"{text}\" does not exist"),
            ),
        })
    }

    fn class_oid(&self, text: &str) -> Option<u32> {
        let parts = identifiers(text);
        let look = |schema: &str, name: &str| {
            if let Some(own) = self.builtin.definition(schema, name) {
                return Some(own.oid);
            }
            let oid = match self.relation_oid(schema, name) {
                0 => name.strip_suffix("_pkey").map_or(0, |t| {
                    self.oid(&Object::Key(schema.to_owned(), t.to_owned()))
                }),
                oid => oid,
            };
            (oid != 0).then_some(oid)
        };
        match parts.as_slice() {
            [name] => self
                .search_path(true)
                .iter()
                .find_map(|schema| look(schema, name)),
            [schema, name] => look(schema, name),
            [database, schema, name] if *database == self.facts.database => look(schema, name),
            _ => None,
        }
    }

    /// A type by what SQL calls it, or by its own name.
    pub fn type_oid(&self, text: &str) -> Option<u32> {
        let text = text.trim().trim_start_matches("pg_catalog.");
        if let Some(item) = text.strip_suffix("[]") {
            return Type::from_oid(self.type_oid(item)?).map(|t| array_type(&t).oid());
        }
        let bare = text.split('(').next().unwrap_or(text).trim();
        let own = match bare.to_ascii_lowercase().as_str() {
            "boolean" => "bool",
            "smallint" => "int2",
            "integer" | "int" => "int4",
            "bigint" => "int8",
            "real" => "float4",
            "double precision" | "float" => "float8",
            "decimal" => "numeric",
            "character varying" => "varchar",
            "character" => "bpchar",
            "timestamp without time zone" => "timestamp",
            "timestamp with time zone" => "timestamptz",
            "time without time zone" => "time",
            "time with time zone" => "timetz",
            _ => {
                return self
                    .builtin
                    .type_oid(&identifiers(bare).pop().unwrap_or_default());
            }
        };
        self.builtin.type_oid(own)
    }

    /// `numeric(18,4)`, `character varying(20)`: a type with its modifier.
    pub fn format_type(&self, oid: u32, modifier: Option<i64>) -> String {
        let Some(pg) = Type::from_oid(oid) else {
            let known = self.builtin.type_names.get(&oid).cloned();
            return known.unwrap_or_else(|| if oid == 0 { "-".into() } else { "???".into() });
        };
        let name = sql_type_name(&pg);
        match modifier {
            Some(m) if m > 4 && pg == Type::NUMERIC => {
                format!("numeric({},{})", (m - 4) >> 16, (m - 4) & 0xffff)
            }
            Some(m) if m > 4 && matches!(pg, Type::VARCHAR | Type::BPCHAR) => {
                format!("{name}({})", m - 4)
            }
            _ => name,
        }
    }

    /// All tables with their schema, in order.
    pub fn tables(&self) -> impl Iterator<Item = (&Schema, &Table)> {
        self.facts
            .objects
            .schemas
            .iter()
            .flat_map(|s| s.tables.iter().map(move |t| (s, t)))
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        let name = name.to_lowercase();
        self.facts.settings.iter().find(|s| s.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{FIRST_USER_OID, Objects};
    use super::*;

    #[test]
    fn numbers_follow_from_names() {
        let builtin = Arc::new(BuiltinRelations::load().expect("the catalogs"));
        let table = |name: &str| Table {
            name: name.into(),
            ..Table::default()
        };
        let facts = |tables: Vec<Table>| ServerFacts {
            database: "embedded".into(),
            objects: Arc::new(Objects::new(
                "embedded",
                Vec::new(),
                vec![Schema {
                    name: "market".into(),
                    tables,
                }],
                Vec::new(),
                Vec::new(),
            )),
            ..ServerFacts::default()
        };
        let one = Directory {
            facts: facts(vec![table("a")]),
            builtin: builtin.clone(),
        };
        let two = Directory {
            facts: facts(vec![table("zz"), table("b"), table("a")]),
            builtin,
        };
        assert_eq!(
            one.relation_oid("market", "a"),
            two.relation_oid("market", "a")
        );
        assert!(one.relation_oid("market", "a") >= FIRST_USER_OID);
    }
}
