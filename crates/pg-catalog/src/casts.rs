//! Types of catalog queries: which ones meet in which, and how values of one become values of
//! another.

use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::compile::Compiler;
use super::context::Context;
use super::expr::{Eval, Expr, unsupported};
use super::names::parts;
use super::refused;
use super::types::sql_type_name;
use super::value::{Value, ValueType};
use super::value_text::{read, show};
use starkeep_error::{Error, ErrorKind};

impl Compiler<'_> {
    /// The type that a cast names.
    pub fn type_of(&self, data_type: &sql::DataType) -> Result<ValueType, Error> {
        use sql::DataType as D;
        refused::data_type(data_type)?;
        let pg = match data_type {
            D::Array(sql::ArrayElemTypeDef::SquareBracket(item, _)) => {
                return Ok(self.type_of(item)?.array());
            }
            D::Boolean | D::Bool => Type::BOOL,
            D::SmallInt(_) | D::Int2(_) => Type::INT2,
            D::Int(_) | D::Integer(_) | D::Int4(_) => Type::INT4,
            D::BigInt(_) | D::Int8(_) => Type::INT8,
            D::Text => Type::TEXT,
            D::Varchar(_) | D::CharacterVarying(_) => Type::VARCHAR,
            D::Regclass => Type::REGCLASS,
            D::Double(_) | D::DoublePrecision | D::Float8 => Type::FLOAT8,
            D::Real | D::Float4 => Type::FLOAT4,
            D::Numeric(_) | D::Decimal(_) | D::Dec(_) => Type::NUMERIC,
            D::JSON => Type::JSON,
            D::Custom(name, _) => {
                let name = parts(name).pop().unwrap_or_default();
                let oid = self.snapshot.directory.type_oid(&name);
                return oid
                    .and_then(Type::from_oid)
                    .map(ValueType::of)
                    .ok_or_else(|| {
                        Error::new(
                            ErrorKind::UndefinedObject,
                            format!("type \"{name}\" does not exist"),
                        )
                    });
            }
            other => {
                let quoted = matches!(other, D::Char(_) | D::Character(_))
                    && other.to_string().starts_with('"');
                let name = if quoted {
                    "char".to_owned()
                } else {
                    other.to_string().to_lowercase()
                };
                let oid = self.snapshot.directory.type_oid(&name);
                return oid
                    .and_then(Type::from_oid)
                    .map(ValueType::of)
                    .ok_or_else(|| {
                        Error::new(
                            ErrorKind::UndefinedObject,
                            format!("type \"{name}\" does not exist"),
                        )
                    });
            }
        };
        Ok(ValueType::of(pg))
    }

    /// Brings an expression to a type.
    pub fn cast(&self, inner: Expr, ty: ValueType) -> Result<Expr, Error> {
        if let Some(at) = inner.parameter {
            let mut known = self.parameters.borrow_mut();
            let settled = known[at].get_or_insert_with(|| ty.clone()).clone();
            drop(known);
            let settled = Expr {
                ty: settled,
                parameter: None,
                ..inner
            };
            return if settled.ty == ty {
                Ok(settled)
            } else {
                self.cast(settled, ty)
            };
        }
        let is_null = inner.ty.pg == Type::UNKNOWN && inner.literal.is_none();
        if inner.ty != ty && !is_null && !is_carried(&ty) {
            return Err(unsupported(format_args!(
                "a cast to {}",
                sql_type_name(&ty.pg)
            )));
        }
        if let Some(text) = &inner.literal {
            // What a function looks at the names of may change until it runs; so may regclass, but
            // its users do not expect it to.
            return Ok(Expr::constant(
                ty.clone(),
                read(text, &ty, &self.snapshot.directory)?,
            ));
        }
        if inner.ty == ty || inner.ty.pg == Type::UNKNOWN {
            return Ok(Expr { ty, ..inner });
        }
        let (from, to) = (inner.ty.clone(), ty.clone());
        let column = inner
            .column
            .filter(|_| from.is_text() == to.is_text() && from.is_integer() == to.is_integer());
        let eval = inner.eval;
        let converted = Expr::new(ty, move |env| convert(eval(env)?, &from, &to, env.context));
        Ok(Expr {
            column,
            ..converted
        })
    }

    pub fn text(&self, inner: Expr) -> Result<Expr, Error> {
        if inner.ty.is_text() && inner.ty.pg != Type::UNKNOWN {
            Ok(inner)
        } else {
            self.cast(inner, ValueType::TEXT)
        }
    }

    pub fn boolean(&self, inner: Expr) -> Result<Expr, Error> {
        match inner.ty.pg {
            Type::BOOL => Ok(inner),
            Type::UNKNOWN => self.cast(inner, ValueType::BOOL),
            ref other => Err(Error::new(
                ErrorKind::DatatypeMismatch,
                format!(
                    "argument of WHERE must be type boolean, not type {}",
                    sql_type_name(other)
                ),
            )),
        }
    }

    /// Two expressions of types that can be compared.
    pub fn alike(&self, a: Expr, b: Expr) -> Result<(Expr, Expr), Error> {
        let ty = common(&a.ty, &b.ty).ok_or_else(|| {
            let message = format!(
                "operator does not exist: {} = {}",
                sql_type_name(&a.ty.pg),
                sql_type_name(&b.ty.pg)
            );
            Error::new(ErrorKind::UndefinedFunction, message)
                .hint("You might need to add explicit type casts.")
        })?;
        // A number becomes an object's, which has less room; other types are compared as they are.
        let must_become =
            |e: &Expr| e.ty.pg == Type::UNKNOWN || ty.pg == Type::OID && e.ty.is_number();
        let settle = |e: Expr| {
            if must_become(&e) {
                self.cast(e, ty.clone())
            } else {
                Ok(e)
            }
        };
        Ok((settle(a)?, settle(b)?))
    }

    /// Expressions brought to one type: of CASE, ARRAY, COALESCE, VALUES and UNION.
    pub fn unify(&self, items: Vec<Expr>) -> Result<(ValueType, Vec<Eval>), Error> {
        let mut ty = ValueType::UNKNOWN;
        for item in &items {
            ty = common(&ty, &item.ty).ok_or_else(|| {
                let message = format!(
                    "types {} and {} cannot be matched",
                    sql_type_name(&ty.pg),
                    sql_type_name(&item.ty.pg)
                );
                Error::new(ErrorKind::DatatypeMismatch, message)
            })?;
        }
        if ty.pg == Type::UNKNOWN {
            ty = ValueType::TEXT;
        }
        let evals = items
            .into_iter()
            .map(|i| self.cast(i, ty.clone()).map(|e| e.eval));
        Ok((ty.clone(), evals.collect::<Result<_, _>>()?))
    }
}

/// Whether values of a type are what they say here. Others (dates, times of a day, bytes) are shown
/// as texts only.
fn is_carried(ty: &ValueType) -> bool {
    let is_own = matches!(
        ty.pg,
        Type::BOOL
            | Type::TIMESTAMP
            | Type::TIMESTAMPTZ
            | Type::INTERVAL
            | Type::ACLITEM
            | Type::ANYARRAY
    );
    let is_record = matches!(ty.pg, Type::RECORD | Type::RECORD_ARRAY);
    is_own
        || is_record
        || ty.is_number()
        || ty.is_integer()
        || ty.is_text()
        || ty.item().is_some_and(|item| is_carried(&item))
}

/// The type that two expressions meet in.
pub(super) fn common(a: &ValueType, b: &ValueType) -> Option<ValueType> {
    if a == b || b.pg == Type::UNKNOWN {
        return Some(a.clone());
    }
    if a.pg == Type::UNKNOWN {
        return Some(b.clone());
    }
    let rank = |ty: &ValueType| match ty.pg {
        Type::INT2 => 1,
        Type::INT4 => 2,
        Type::INT8 => 3,
        Type::NUMERIC => 4,
        Type::FLOAT4 => 5,
        Type::FLOAT8 => 6,
        _ => 0,
    };
    if a.is_number() && b.is_number() {
        return Some(if rank(a) >= rank(b) {
            a.clone()
        } else {
            b.clone()
        });
    }
    if a.is_integer() && b.is_integer() {
        return Some(if a.is_number() { b.clone() } else { a.clone() });
    }
    if a.is_text() && b.is_text() {
        // Each becomes the other without a word, so the first one stays; but a "char" only becomes
        // a text.
        return Some(if a.pg == Type::CHAR {
            b.clone()
        } else {
            a.clone()
        });
    }
    let is_time =
        |ty: &ValueType| matches!(ty.pg, Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::DATE);
    if is_time(a) && is_time(b) {
        return Some(ValueType::of(Type::TIMESTAMPTZ));
    }
    match (a.item(), b.item()) {
        (Some(a), Some(b)) => common(&a, &b).map(|item| item.array()),
        // Records are compared field by field; of unlike ones only the text is shown.
        _ if a.pg == Type::RECORD && b.pg == Type::RECORD => Some(if a.fields == b.fields {
            a.clone()
        } else {
            ValueType::of(Type::RECORD)
        }),
        _ => None,
    }
}

/// A value of one type as one of another.
pub(super) fn convert(
    value: Value,
    from: &ValueType,
    to: &ValueType,
    context: &Context,
) -> Result<Value, Error> {
    let out_of_range = || {
        Error::new(
            ErrorKind::OutOfRange,
            format!("{} out of range", sql_type_name(&to.pg)),
        )
    };
    Ok(match value {
        Value::Null => Value::Null,
        Value::Text(text) if to.is_text() => match to.pg {
            Type::CHAR | Type::NAME => read(&text, to, &context.snapshot.directory)?,
            _ => Value::Text(text),
        },
        Value::Text(text) => {
            if to.item().is_some() {
                context
                    .check_length(text.matches(',').count().saturating_mul(size_of::<Value>()))?;
            }
            read(&text, to, &context.snapshot.directory)?
        }
        Value::Bool(b) if to.is_text() => Value::text(if b { "true" } else { "false" }),
        Value::Bool(b) if to.is_integer() => Value::Int(b.into()),
        Value::Int(n) if to.pg == Type::BOOL => Value::Bool(n != 0),
        other if to.is_text() => Value::text(show(&other, from, &context.snapshot.directory)),
        Value::Int(n) if matches!(to.pg, Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC) => {
            Value::Float(n as f64)
        }
        Value::Float(f) if to.is_integer() => {
            let rounded = if from.pg == Type::NUMERIC {
                f.round()
            } else {
                f.round_ties_even()
            };
            // All of them are whole numbers of 64 bits; the next one is not.
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
                return Err(out_of_range());
            }
            convert(Value::Int(rounded as i64), &ValueType::INT8, to, context)?
        }
        Value::Int(n) => match to.pg {
            Type::INT2 => Value::Int(i16::try_from(n).map_err(|_| out_of_range())?.into()),
            Type::INT4 => Value::Int(i32::try_from(n).map_err(|_| out_of_range())?.into()),
            Type::OID => Value::Int(
                u32::try_from(n)
                    .or_else(|_| i32::try_from(n).map(|n| n as u32))
                    .map_err(|_| out_of_range())?
                    .into(),
            ),
            _ => Value::Int(n),
        },
        Value::Array(lower, items) => match (from.item(), to.item()) {
            (Some(a), Some(b)) if a != b => {
                let items = items.iter().map(|i| convert(i.clone(), &a, &b, context));
                Value::Array(lower, items.collect::<Result<_, _>>()?)
            }
            (_, Some(_)) => Value::Array(lower, items),
            _ => {
                let message = format!(
                    "cannot cast type {} to {}",
                    sql_type_name(&from.pg),
                    sql_type_name(&to.pg)
                );
                return Err(Error::new(ErrorKind::DatatypeMismatch, message));
            }
        },
        other => other,
    })
}
