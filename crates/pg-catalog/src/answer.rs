//! Which statements are about the catalogs, and their answers as rows of Arrow.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::compile::{Compiler, Env, parts};
use super::context::{Allowance, Context, SideEffect};
use super::functions::is_ours;
use super::relations::{BuiltinRelations, Row};
use super::select::Plan;
use super::snapshot::CatalogSnapshot;
use super::types::TYPE_KEY;
use super::value::{Value, ValueType, show};
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    IntervalMonthDayNanoBuilder, ListArray, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, UInt32Builder,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;
use starkeep_error::{Error, from_datafusion};

/// Whether a statement is about nothing but the catalogs: every relation that it names is one of theirs, or it names none and
/// calls a function that only they know.
pub fn asks_the_catalogs(builtin: &BuiltinRelations, query: &sql::Query) -> bool {
    let mut with = BTreeSet::new();
    let mut calls_ours = false;
    let _ = sql::visit_expressions(query, |expr| {
        if let sql::Expr::Function(function) = expr {
            calls_ours |= parts(&function.name).pop().is_some_and(|name| is_ours(&name));
        }
        if let sql::Expr::Identifier(word) = expr {
            calls_ours |= word.quote_style.is_none()
                && matches!(
                    word.value.to_lowercase().as_str(),
                    "current_user" | "session_user" | "current_catalog" | "current_role"
                );
        }
        // Casts to types of the catalogs' own, such as regclass.
        if let sql::Expr::Cast { data_type, .. } = expr {
            let name = data_type.to_string().to_lowercase();
            calls_ours |= name.trim_start_matches("pg_catalog.").starts_with("reg") || name == "oid";
        }
        ControlFlow::<()>::Continue(())
    });
    collect_with(query, &mut with);
    let (named, functions) = relations(query);
    calls_ours |= functions.iter().any(|name| is_ours(name));
    let mut theirs = named.iter().filter(|parts| !matches!(parts.as_slice(), [bare] if with.contains(bare)));
    let is_theirs = |parts: &Vec<String>| match parts.as_slice() {
        [bare] => builtin.definition("pg_catalog", bare).is_some(),
        // A schema of theirs without such a relation is theirs to refuse.
        [schema, _] | [_, schema, _] => matches!(schema.as_str(), "pg_catalog" | "information_schema"),
        _ => false,
    };
    match theirs.next() {
        None => calls_ours || is_constant(query),
        Some(first) => is_theirs(first) && theirs.all(is_theirs),
    }
}

/// Whether a query names no relation at all: then it may be the planner's as well as ours.
pub fn is_without_relations(query: &sql::Query) -> bool {
    relations(query).0.is_empty()
}

/// Whether a query has decimals, with which the planner reckons exactly; here they are floating.
pub fn has_decimals(query: &sql::Query) -> bool {
    let visited = sql::visit_expressions(query, |expr| match expr {
        sql::Expr::Value(value) if matches!(&value.value, sql::Value::Number(digits, _) if digits.parse::<i64>().is_err()) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}

/// What a query of the catalogs needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactScope {
    /// Nothing: it has only constants.
    Nothing,
    /// Who asks, and the settings of the session.
    Session,
    Objects,
}

/// What a query that asks the catalogs needs.
pub fn need_of(query: &sql::Query) -> FactScope {
    const OF_SESSION: &[&str] = &[
        "version",
        "current_database",
        "current_catalog",
        "current_schema",
        "current_schemas",
        "current_user",
        "session_user",
        "user",
        "current_role",
        "pg_backend_pid",
        "current_setting",
        "set_config",
        "pg_is_in_recovery",
        "pg_postmaster_start_time",
        "now",
        "pg_advisory_unlock_all",
        "pg_sleep",
        "txid_current",
        "inet_server_addr",
        "inet_server_port",
        "inet_client_addr",
        "inet_client_port",
        "coalesce",
        "lower",
        "upper",
    ];
    if is_constant(query) {
        return FactScope::Nothing;
    }
    let (named, functions) = relations(query);
    let mut all = named.is_empty() && functions.is_empty();
    let _ = sql::visit_expressions(query, |expr| {
        match expr {
            sql::Expr::Function(function) => {
                all &= parts(&function.name).pop().is_some_and(|name| OF_SESSION.contains(&name.as_str()));
            }
            sql::Expr::Cast { data_type, .. } => {
                all &= !data_type.to_string().to_lowercase().trim_start_matches("pg_catalog.").starts_with("reg");
            }
            _ => {}
        }
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if all { FactScope::Session } else { FactScope::Objects }
}

/// `SELECT 1` and the like: nothing but literals that mean the same everywhere.
pub fn is_constant(query: &sql::Query) -> bool {
    let sql::SetExpr::Select(select) = &*query.body else { return false };
    let plain = |expr: &sql::Expr| {
        let sql::Expr::Value(value) = expr else { return false };
        match &value.value {
            sql::Value::Number(digits, _) => digits.parse::<i64>().is_ok(),
            sql::Value::SingleQuotedString(_) | sql::Value::Boolean(_) | sql::Value::Null => true,
            _ => false,
        }
    };
    let item = |item: &sql::SelectItem| match item {
        sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => plain(expr),
        _ => false,
    };
    let bare = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    bare && select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.distinct.is_none()
        && !select.projection.is_empty()
        && select.projection.iter().all(item)
}

/// Whether a part of a query names a relation by this bare name.
pub(super) fn names(body: &sql::SetExpr, name: &str) -> bool {
    relations(body).0.iter().any(|parts| matches!(parts.as_slice(), [bare] if bare == name))
}

/// The relations that a query names, and the functions behind its FROMs.
fn relations<V: sql::Visit>(of: &V) -> (Vec<Vec<String>>, Vec<String>) {
    struct Relations(Vec<Vec<String>>, Vec<String>);
    impl sql::Visitor for Relations {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &sql::TableFactor) -> ControlFlow<()> {
            match factor {
                sql::TableFactor::Table { name, args: None, .. } => self.0.push(parts(name)),
                sql::TableFactor::Table { name, args: Some(_), .. } | sql::TableFactor::Function { name, .. } => {
                    self.1.extend(parts(name).pop());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Relations(Vec::new(), Vec::new());
    let _ = sql::Visit::visit(of, &mut found);
    (found.0, found.1)
}

/// Whether a statement names a relation of the catalogs, perhaps beside others.
pub fn names_a_catalog(builtin: &BuiltinRelations, statement: &sql::Statement) -> bool {
    relations(statement).0.iter().any(|parts| match parts.as_slice() {
        [bare] => builtin.definition("pg_catalog", bare).is_some(),
        [schema, _] | [_, schema, _] => schema == "pg_catalog" || schema == "information_schema",
        _ => false,
    })
}

/// The names of WITH queries, at any depth.
fn collect_with(query: &sql::Query, names: &mut BTreeSet<String>) {
    struct Names<'n>(&'n mut BTreeSet<String>);
    impl sql::Visitor for Names<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
            if let Some(with) = &query.with {
                self.0.extend(with.cte_tables.iter().map(|c| super::compile::folded(&c.alias.name)));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql::Visit::visit(query, &mut Names(names));
}

/// A snapshot, ready to answer queries.
#[derive(Clone, Debug)]
pub struct Catalogs(pub Arc<CatalogSnapshot>);

/// The rows of a query, and what its functions ask to be done.
#[derive(Debug)]
pub struct Answer {
    /// All of its rows.
    pub batch: RecordBatch,
    /// In the order of their calls.
    pub effects: Vec<SideEffect>,
}

impl Catalogs {
    pub(super) fn plan(&self, query: &sql::Query, declared: &[Option<DataType>]) -> Result<(Plan, Vec<ValueType>), Error> {
        let compiler = Compiler {
            snapshot: &self.0,
            parameters: RefCell::new(declared.iter().map(|d| d.as_ref().map(type_of)).collect()),
            ctes: RefCell::default(),
            slots: Cell::new(0),
        };
        let plan = compiler.query(query, None)?;
        let parameters = compiler.parameters.into_inner().into_iter().map(|ty| ty.unwrap_or(ValueType::TEXT)).collect();
        Ok((plan, parameters))
    }

    /// The types of a query's parameters, and its columns.
    pub fn describe(&self, query: &sql::Query, declared: &[Option<DataType>]) -> Result<(Vec<DataType>, SchemaRef), Error> {
        let (plan, parameters) = self.plan(query, declared)?;
        // What has a number and a name is sent as its name.
        let carried = |ty: &ValueType| if ty.is_reg() { DataType::Utf8 } else { field("", ty).data_type().clone() };
        Ok((parameters.iter().map(carried).collect(), schema(&plan.columns)))
    }

    /// Answers a query. It is work for a thread that may be busy for a while.
    pub fn answer(
        &self,
        query: &sql::Query,
        types: &[DataType],
        values: &[ScalarValue],
        allowance: Allowance,
    ) -> Result<Answer, Error> {
        let declared: Vec<_> = types.iter().map(|t| Some(t.clone())).collect();
        let (plan, parameters) = self.plan(query, &declared)?;
        let values = values.iter().zip(&parameters).map(|(value, ty)| value_of(value, ty, &self.0));
        let context = Context::new(self.0.clone(), values.collect::<Result<_, _>>()?, allowance);
        let rows = (plan.run)(&Env::top(&context))?;
        let batch = batch(&plan.columns, &rows, &self.0)?;
        Ok(Answer { batch, effects: context.effects.into_inner() })
    }
}

impl CatalogSnapshot {
    /// Names of the relations of one of the two schemas.
    pub fn relation_names(&self, schema: &str) -> Vec<String> {
        self.builtin.definitions.iter().filter(|d| d.schema == schema).map(|d| d.name.to_owned()).collect()
    }

    /// A relation as rows of Arrow, for queries that also name other tables.
    pub fn batch(&self, schema: &str, name: &str) -> Result<Option<RecordBatch>, Error> {
        let Some(relation) = self.relation(schema, name)? else { return Ok(None) };
        // Other tables are compared with numbers and texts.
        let columns = relation.columns.iter().map(|(name, ty)| {
            let plain = if ty.is_reg() { ValueType::OID } else { ty.clone() };
            (name.clone(), plain)
        });
        batch(&columns.collect::<Vec<_>>(), &relation.rows, self).map(Some)
    }
}

/// How a type is carried: numbers and times as such, what has a number and a name as both, everything else as its text.
fn field(name: &str, ty: &ValueType) -> Field {
    let list = |item: DataType| DataType::List(Field::new_list_field(item, true).into());
    let data_type = match ty.pg {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::OID | Type::XID | Type::CID => DataType::UInt32,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::INT2_VECTOR | Type::INT2_ARRAY => list(DataType::Int16),
        Type::OID_VECTOR | Type::OID_ARRAY => list(DataType::UInt32),
        Type::INT4_ARRAY => list(DataType::Int32),
        Type::INT8_ARRAY => list(DataType::Int64),
        Type::BOOL_ARRAY => list(DataType::Boolean),
        Type::RECORD_ARRAY if let Some(fields) = &ty.fields => list(DataType::Struct(record_fields(fields))),
        _ if ty.is_reg() => DataType::Struct(reg_fields()),
        _ if let Some(fields) = &ty.fields => DataType::Struct(record_fields(fields)),
        _ if ty.item().is_some() => list(DataType::Utf8),
        _ => DataType::Utf8,
    };
    let shown_as = match ty.pg {
        // Of a record whose fields nobody knows there is only the text.
        Type::RECORD | Type::RECORD_ARRAY if ty.fields.is_none() => Type::TEXT,
        Type::UNKNOWN => Type::TEXT,
        _ => ty.pg.clone(),
    };
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), shown_as.oid().to_string())]);
    Field::new(name, data_type, true).with_metadata(metadata)
}

/// A `regclass` and the like: text on the wire is its name, binary its number.
fn reg_fields() -> Fields {
    vec![Field::new("oid", DataType::UInt32, true), Field::new("name", DataType::Utf8, true)].into()
}

fn record_fields(fields: &[(String, ValueType)]) -> Fields {
    fields.iter().map(|(name, ty)| field(name, ty)).collect()
}

fn schema(columns: &[(String, ValueType)]) -> SchemaRef {
    Schema::new(columns.iter().map(|(name, ty)| field(name, ty)).collect::<Vec<_>>()).into()
}

fn batch(columns: &[(String, ValueType)], rows: &[Row], snapshot: &CatalogSnapshot) -> Result<RecordBatch, Error> {
    let arrays =
        columns.iter().enumerate().map(|(i, (_, ty))| array(&rows.iter().map(|r| &r[i]).collect::<Vec<_>>(), ty, snapshot));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema(columns), arrays.collect(), &options).map_err(|e| from_datafusion(e.into()))
}

fn array(values: &[&Value], ty: &ValueType, snapshot: &CatalogSnapshot) -> ArrayRef {
    let int = |v: &Value| v.as_int();
    let nulls = || values.iter().map(|v| !v.is_null()).collect::<NullBuffer>();
    match field("", ty).data_type() {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            values.iter().for_each(|v| builder.append_option(if let Value::Bool(b) = v { Some(*b) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Int16 => {
            let mut builder = Int16Builder::new();
            values.iter().for_each(|v| builder.append_option(int(v).map(|n| n as i16)));
            Arc::new(builder.finish())
        }
        DataType::Int32 => {
            let mut builder = Int32Builder::new();
            values.iter().for_each(|v| builder.append_option(int(v).map(|n| n as i32)));
            Arc::new(builder.finish())
        }
        DataType::Int64 => {
            let mut builder = Int64Builder::new();
            values.iter().for_each(|v| builder.append_option(int(v)));
            Arc::new(builder.finish())
        }
        DataType::UInt32 => {
            let mut builder = UInt32Builder::new();
            values.iter().for_each(|v| builder.append_option(int(v).map(|n| n as u32)));
            Arc::new(builder.finish())
        }
        DataType::Float32 => {
            let mut builder = Float32Builder::new();
            values.iter().for_each(|v| {
                builder.append_option(match v {
                    Value::Float(f) => Some(*f as f32),
                    other => other.as_int().map(|n| n as f32),
                });
            });
            Arc::new(builder.finish())
        }
        DataType::Struct(fields) if let Some(types) = &ty.fields => {
            let of = |i: usize| values.iter().map(|v| v.items().get(i).unwrap_or(&Value::Null)).collect::<Vec<_>>();
            let columns = types.iter().enumerate().map(|(i, (_, ty))| array(&of(i), ty, snapshot)).collect();
            if types.is_empty() {
                return Arc::new(StructArray::new_empty_fields(values.len(), Some(nulls())));
            }
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls())))
        }
        DataType::Struct(fields) => {
            let mut oids = UInt32Builder::new();
            let mut names = StringBuilder::new();
            for value in values {
                oids.append_option(int(value).map(|n| n as u32));
                names.append_option((!value.is_null()).then(|| show(value, ty, snapshot)));
            }
            let columns: Vec<ArrayRef> = vec![Arc::new(oids.finish()), Arc::new(names.finish())];
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls())))
        }
        DataType::Float64 => {
            let mut builder = Float64Builder::new();
            values.iter().for_each(|v| {
                builder.append_option(match v {
                    Value::Float(f) => Some(*f),
                    other => other.as_int().map(|n| n as f64),
                });
            });
            Arc::new(builder.finish())
        }
        DataType::Timestamp(_, zone) => {
            let mut builder = TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone());
            values.iter().for_each(|v| builder.append_option(if let Value::Time(t) = v { Some(*t) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Interval(_) => {
            const DAY: i64 = 86_400_000_000;
            let mut builder = IntervalMonthDayNanoBuilder::new();
            values.iter().for_each(|v| {
                builder.append_option(match v {
                    Value::Span(micros) => Some(IntervalMonthDayNano::new(0, (micros / DAY) as i32, micros % DAY * 1000)),
                    _ => None,
                });
            });
            Arc::new(builder.finish())
        }
        DataType::List(of) => {
            let item = ty.item().unwrap_or(ValueType::TEXT);
            macro_rules! lists {
                ($builder:expr, $value:expr) => {{
                    let mut builder = ListBuilder::new($builder);
                    for value in values {
                        value.items().iter().for_each(|v| builder.values().append_option($value(v)));
                        builder.append(!value.is_null());
                    }
                    Arc::new(builder.finish())
                }};
            }
            match of.data_type() {
                DataType::Struct(_) => {
                    let offsets = OffsetBuffer::from_lengths(values.iter().map(|v| v.items().len()));
                    let items: Vec<&Value> = values.iter().flat_map(|v| v.items()).collect();
                    let items = array(&items, &item, snapshot);
                    Arc::new(ListArray::new(of.clone(), offsets, items, Some(nulls())))
                }
                DataType::Int16 => lists!(Int16Builder::new(), |v: &Value| int(v).map(|n| n as i16)),
                DataType::Int32 => lists!(Int32Builder::new(), |v: &Value| int(v).map(|n| n as i32)),
                DataType::Int64 => lists!(Int64Builder::new(), int),
                DataType::UInt32 => lists!(UInt32Builder::new(), |v: &Value| int(v).map(|n| n as u32)),
                DataType::Boolean => {
                    lists!(BooleanBuilder::new(), |v: &Value| if let Value::Bool(b) = v { Some(*b) } else { None })
                }
                _ => lists!(StringBuilder::new(), |v: &Value| (!v.is_null()).then(|| show(v, &item, snapshot))),
            }
        }
        _ => {
            let mut builder = StringBuilder::new();
            values.iter().for_each(|v| builder.append_option((!v.is_null()).then(|| show(v, ty, snapshot))));
            Arc::new(builder.finish())
        }
    }
}

/// The type that a client declares for a parameter.
fn type_of(data_type: &DataType) -> ValueType {
    ValueType::of(match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 => Type::INT2,
        DataType::Int32 => Type::INT4,
        DataType::Int64 => Type::INT8,
        DataType::UInt32 => Type::OID,
        DataType::Float32 | DataType::Float64 => Type::FLOAT8,
        DataType::Decimal128(..) => Type::NUMERIC,
        DataType::Timestamp(..) | DataType::Date32 => Type::TIMESTAMPTZ,
        DataType::List(item) => return type_of(item.data_type()).array(),
        _ => Type::TEXT,
    })
}

/// A parameter's value.
fn value_of(scalar: &ScalarValue, ty: &ValueType, snapshot: &CatalogSnapshot) -> Result<Value, Error> {
    if scalar.is_null() {
        return Ok(Value::Null);
    }
    if let ScalarValue::List(list) = scalar {
        let item = ty.item().unwrap_or(ValueType::TEXT);
        let values = list.value(0);
        let items = (0..values.len()).map(|i| {
            let scalar = ScalarValue::try_from_array(&values, i).map_err(from_datafusion)?;
            value_of(&scalar, &item, snapshot)
        });
        return Ok(Value::Array(1, items.collect::<Result<_, Error>>()?));
    }
    if let ScalarValue::TimestampMicrosecond(Some(t), _) = scalar {
        return Ok(Value::Time(*t));
    }
    let text = scalar.cast_to(&DataType::Utf8).map_err(from_datafusion)?;
    super::value::read(text.try_as_str().flatten().unwrap_or_default(), ty, snapshot)
}
