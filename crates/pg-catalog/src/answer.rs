//! Which statements are about the catalogs, and their answers as rows of Arrow.

mod reads;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, IntervalMonthDayNanoBuilder, ListArray, ListBuilder, RecordBatch,
    RecordBatchOptions, StringBuilder, StructArray, TimestampMicrosecondBuilder, UInt32Builder,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{
    DataType, Field, Fields, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;
use starkeep_error::{Error, from_datafusion};

pub(super) use self::reads::names;
use self::reads::relations;
pub use self::reads::{
    FactScope, asks_the_catalogs, fact_scope_of, has_decimals, is_constant, names_a_catalog,
};
use super::compile::Compiler;
use super::context::{Allowance, Context, SideEffect};
use super::expr::Env;
use super::expr::Plan;
use super::snapshot::CatalogSnapshot;
use super::types::TYPE_KEY;
use super::value::{Row, Value, ValueType};
use super::value_text::show;

/// Whether a query names no relation at all: then it may be the planner's as well as ours.
pub fn is_without_relations(query: &sql::Query) -> bool {
    relations(query).0.is_empty()
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
    pub(super) fn plan(
        &self,
        query: &sql::Query,
        declared: &[Option<DataType>],
    ) -> Result<(Plan, Vec<ValueType>), Error> {
        let compiler = Compiler {
            snapshot: &self.0,
            parameters: RefCell::new(declared.iter().map(|d| d.as_ref().map(type_of)).collect()),
            ctes: RefCell::default(),
            slots: Cell::new(0),
        };
        let plan = compiler.query(query, None)?;
        let parameters = compiler
            .parameters
            .into_inner()
            .into_iter()
            .map(|ty| ty.unwrap_or(ValueType::TEXT))
            .collect();
        Ok((plan, parameters))
    }

    /// The types of a query's parameters, and its columns.
    pub fn describe(
        &self,
        query: &sql::Query,
        declared: &[Option<DataType>],
    ) -> Result<(Vec<DataType>, SchemaRef), Error> {
        let (plan, parameters) = self.plan(query, declared)?;
        // What has a number and a name is sent as its name.
        let carried = |ty: &ValueType| {
            if ty.is_reg() {
                DataType::Utf8
            } else {
                field("", ty).data_type().clone()
            }
        };
        Ok((
            parameters.iter().map(carried).collect(),
            schema(&plan.columns),
        ))
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
        let values = values
            .iter()
            .zip(&parameters)
            .map(|(value, ty)| value_of(value, ty, &self.0));
        let context = Context::new(self.0.clone(), values.collect::<Result<_, _>>()?, allowance);
        let rows = (plan.run)(&Env::top(&context))?;
        let batch = batch(&plan.columns, &rows, &self.0)?;
        Ok(Answer {
            batch,
            effects: context.effects.into_inner(),
        })
    }
}

impl CatalogSnapshot {
    /// Names of the relations of one of the two schemas.
    pub fn relation_names(&self, schema: &str) -> Vec<String> {
        self.directory
            .builtin
            .definitions
            .iter()
            .filter(|d| d.schema == schema)
            .map(|d| d.name.to_owned())
            .collect()
    }

    /// A relation as rows of Arrow, for queries that also name other tables.
    pub fn batch(&self, schema: &str, name: &str) -> Result<Option<RecordBatch>, Error> {
        let Some(relation) = self.relation(schema, name)? else {
            return Ok(None);
        };
        // Other tables are compared with numbers and texts.
        let columns = relation.columns.iter().map(|(name, ty)| {
            let plain = if ty.is_reg() {
                ValueType::OID
            } else {
                ty.clone()
            };
            (name.clone(), plain)
        });
        batch(&columns.collect::<Vec<_>>(), &relation.rows, self).map(Some)
    }
}

/// How a type is carried: numbers and times as such, what has a number and a name as both,
/// everything else as its text.
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
        Type::RECORD_ARRAY if let Some(fields) = &ty.fields => {
            list(DataType::Struct(record_fields(fields)))
        }
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
    vec![
        Field::new("oid", DataType::UInt32, true),
        Field::new("name", DataType::Utf8, true),
    ]
    .into()
}

fn record_fields(fields: &[(String, ValueType)]) -> Fields {
    fields.iter().map(|(name, ty)| field(name, ty)).collect()
}

fn schema(columns: &[(String, ValueType)]) -> SchemaRef {
    Schema::new(
        columns
            .iter()
            .map(|(name, ty)| field(name, ty))
            .collect::<Vec<_>>(),
    )
    .into()
}

fn batch(
    columns: &[(String, ValueType)],
    rows: &[Row],
    snapshot: &CatalogSnapshot,
) -> Result<RecordBatch, Error> {
    let arrays = columns.iter().enumerate().map(|(i, (_, ty))| {
        array(
            &rows.iter().map(|r| &r[i]).collect::<Vec<_>>(),
            ty,
            snapshot,
        )
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema(columns), arrays.collect(), &options)
        .map_err(|e| from_datafusion(e.into()))
}

fn array(values: &[&Value], ty: &ValueType, snapshot: &CatalogSnapshot) -> ArrayRef {
    let int = |v: &Value| v.as_int();
    let nulls = || values.iter().map(|v| !v.is_null()).collect::<NullBuffer>();
    match field("", ty).data_type() {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            values.iter().for_each(|v| {
                builder.append_option(if let Value::Bool(b) = v {
                    Some(*b)
                } else {
                    None
                })
            });
            Arc::new(builder.finish())
        }
        DataType::Int16 => {
            let mut builder = Int16Builder::new();
            values
                .iter()
                .for_each(|v| builder.append_option(int(v).map(|n| n as i16)));
            Arc::new(builder.finish())
        }
        DataType::Int32 => {
            let mut builder = Int32Builder::new();
            values
                .iter()
                .for_each(|v| builder.append_option(int(v).map(|n| n as i32)));
            Arc::new(builder.finish())
        }
        DataType::Int64 => {
            let mut builder = Int64Builder::new();
            values.iter().for_each(|v| builder.append_option(int(v)));
            Arc::new(builder.finish())
        }
        DataType::UInt32 => {
            let mut builder = UInt32Builder::new();
            values
                .iter()
                .for_each(|v| builder.append_option(int(v).map(|n| n as u32)));
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
            let of = |i: usize| {
                values
                    .iter()
                    .map(|v| v.items().get(i).unwrap_or(&Value::Null))
                    .collect::<Vec<_>>()
            };
            let columns = types
                .iter()
                .enumerate()
                .map(|(i, (_, ty))| array(&of(i), ty, snapshot))
                .collect();
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
                names.append_option(
                    (!value.is_null()).then(|| show(value, ty, &snapshot.directory)),
                );
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
            values.iter().for_each(|v| {
                builder.append_option(if let Value::Time(t) = v {
                    Some(*t)
                } else {
                    None
                })
            });
            Arc::new(builder.finish())
        }
        DataType::Interval(_) => {
            const DAY: i64 = 86_400_000_000;
            let mut builder = IntervalMonthDayNanoBuilder::new();
            values.iter().for_each(|v| {
                builder.append_option(match v {
                    Value::Span(micros) => Some(IntervalMonthDayNano::new(
                        0,
                        (micros / DAY) as i32,
                        micros % DAY * 1000,
                    )),
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
                        value
                            .items()
                            .iter()
                            .for_each(|v| builder.values().append_option($value(v)));
                        builder.append(!value.is_null());
                    }
                    Arc::new(builder.finish())
                }};
            }
            match of.data_type() {
                DataType::Struct(_) => {
                    let offsets =
                        OffsetBuffer::from_lengths(values.iter().map(|v| v.items().len()));
                    let items: Vec<&Value> = values.iter().flat_map(|v| v.items()).collect();
                    let items = array(&items, &item, snapshot);
                    Arc::new(ListArray::new(of.clone(), offsets, items, Some(nulls())))
                }
                DataType::Int16 => {
                    lists!(Int16Builder::new(), |v: &Value| int(v).map(|n| n as i16))
                }
                DataType::Int32 => {
                    lists!(Int32Builder::new(), |v: &Value| int(v).map(|n| n as i32))
                }
                DataType::Int64 => lists!(Int64Builder::new(), int),
                DataType::UInt32 => {
                    lists!(UInt32Builder::new(), |v: &Value| int(v).map(|n| n as u32))
                }
                DataType::Boolean => {
                    lists!(
                        BooleanBuilder::new(),
                        |v: &Value| if let Value::Bool(b) = v {
                            Some(*b)
                        } else {
                            None
                        }
                    )
                }
                _ => lists!(StringBuilder::new(), |v: &Value| (!v.is_null())
                    .then(|| show(v, &item, &snapshot.directory))),
            }
        }
        _ => {
            let mut builder = StringBuilder::new();
            values.iter().for_each(|v| {
                builder.append_option((!v.is_null()).then(|| show(v, ty, &snapshot.directory)))
            });
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
fn value_of(
    scalar: &ScalarValue,
    ty: &ValueType,
    snapshot: &CatalogSnapshot,
) -> Result<Value, Error> {
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
    super::value_text::read(
        text.try_as_str().flatten().unwrap_or_default(),
        ty,
        &snapshot.directory,
    )
}
